"""A stage for jobs on several nodes: an S3 server, a Ray cluster with a token, `rayseg` as a user would call it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from ray_nodes import RayNode, RayNodes, wait_for
from seaweed import Seaweed

JOB_S = 900.0


class Job:
    """A running `rayseg` command whose words are kept."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rayseg.cli", *command],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait(self, within_s: float = JOB_S) -> int:
        """The exit code."""
        code = self.process.wait(within_s)
        self._reading.join(10)
        return code


class Stage:
    """`bucket` is an `s3://` URI; `nodes` the cluster, without a node yet."""

    def __init__(self, folder: Path, endpoint: str | None = None) -> None:
        self.folder = folder
        self.server = Seaweed(folder / "seaweed")
        self._endpoint = endpoint

    def __enter__(self) -> Stage:
        self.server.start()
        self.bucket = self.server.make_bucket("many-nodes")
        self.nodes = RayNodes(self.folder / "nodes", env=self.storage_env(self.server.endpoint)).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.nodes.__exit__(kind, error, trace)
        self.server.kill()

    def storage_env(self, endpoint: str) -> dict[str, str]:
        """The variables of a process that speaks to the store at `endpoint`, the server itself or what stands before it."""
        return self.server.env | {"AWS_ENDPOINT_URL": endpoint, "RAYSEG_RETRY_S": "60", "OMP_NUM_THREADS": "1"}

    def add(self, name: str, cpus: int = 1, *, endpoint: str | None = None, **settings: object) -> RayNode:
        """A node with a cache of its own, as every machine has one."""
        env = self.storage_env(endpoint or self.server.endpoint) | {"RAYSEG_CACHE": str(self.folder / "caches" / name)}
        add = self.nodes.start_head if name == "head" else self.nodes.add
        return add(cpus=cpus, env=env, **settings)  # type: ignore[arg-type]

    def rayseg(self, *words: str) -> Job:
        """Start a command beside the cluster, with its token and with access to the store."""
        return Job(list(words), os.environ | self.storage_env(self.server.endpoint) | self.nodes.env, self.folder)

    def submit(self, spec: str, *words: str) -> Job:
        """Submit `spec` (YAML) and follow it."""
        number = len(list(self.folder.glob("*.yaml")))
        path = self.folder / f"job-{number}.yaml"
        path.write_text(spec)
        return self.rayseg("submit", str(path), "--address", self.nodes.url, "--follow", *words)

    def wait_for_object(self, prefix: str, ending: str, job: Job) -> str:
        """The first object below `prefix` whose name ends so, while `job` runs."""

        def look() -> str | None:
            assert job.process.poll() is None, f"the job ended before there was any {prefix}*{ending}:\n{job.said}"
            return next((key for key in self.objects(prefix) if key.endswith(ending)), None)

        return wait_for(f"{prefix}*{ending}", look, JOB_S)

    def objects(self, prefix: str) -> list[str]:
        """The first thousand keys below `prefix`."""
        listed = self.server.client().list_objects_v2(Bucket=self.bucket.removeprefix("s3://"), Prefix=prefix)
        return [one["Key"] for one in listed.get("Contents", [])]

    def upload(self, local: Path, prefix: str) -> str:
        """Copy a folder into the bucket; its URI."""
        client = self.server.client()
        for path in sorted(local.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(local).as_posix()}"
                client.put_object(Bucket=self.bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())
        return f"{self.bucket}/{prefix}"
