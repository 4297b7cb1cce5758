"""A Ray cluster of several nodes on this machine, with a dashboard and a token, on loopback only.

    with RayNodes(tmp_path) as nodes:
        nodes.start_head(cpus=1)
        worker = nodes.add(cpus=1, resources={"gpu_node": 1})
        ...  # nodes.url is the dashboard
        worker.kill()  # a power cut: all of the node's processes get SIGKILL

Each node is a process of its own that starts a raylet, with an environment of its own, as a machine would have one.
Every process dies with the one that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 90.0
TRIES = 3
OBJECT_STORE_BYTES = 150 << 20
_ME = Path(__file__)
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray's own switch for nodes that listen on 127.0.0.1 alone
_UV_HOOK = (
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV"  # "0": below `uv run`, Ray's own processes do not send the folder they are in
)


@dataclass
class RayNode:
    """One node: the process that keeps it, and what it said when it was up."""

    process: subprocess.Popen[str]
    address: str
    id: str

    def kill(self) -> None:
        """End all of its processes at once, as a power cut would."""
        import psutil

        try:
            keeper = psutil.Process(self.process.pid)
            family = [*keeper.children(recursive=True), keeper]
        except psutil.NoSuchProcess:
            return
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(timeout=30)

    def processes(self, title: str) -> list[int]:
        """The node's processes whose title holds `title`, as `ray::LabelWorker`."""
        import psutil

        found = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if title in " ".join(one.cmdline()):
                    found.append(one.pid)
        return found


class RayNodes:
    """The nodes of one cluster; `url` is that of its dashboard, `env` what a client needs to be let in."""

    def __init__(self, folder: Path, token: str | None = None, env: dict[str, str] | None = None) -> None:
        self.token = token or os.urandom(32).hex()
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder, self._common = folder, env or {}
        self._nodes: list[RayNode] = []
        self._ray = ""

    @property
    def env(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, _LOOPBACK: "0", _UV_HOOK: "0"}

    @property
    def address(self) -> str:
        """Of the head, for `ray.init`."""
        return self._nodes[0].address

    def start_head(self, **settings: Any) -> RayNode:
        """The first node, with the dashboard; settings as for `add`."""
        return self.add(head=True, **settings)

    def add(
        self,
        cpus: int = 1,
        *,
        gpus: float = 0,
        resources: dict[str, float] | None = None,
        env: dict[str, str] | None = None,
        head: bool = False,
    ) -> RayNode:
        """Start a node and wait until it is one of the cluster. `env` is its own, over that of all nodes."""
        wanted = {"num_cpus": cpus, "num_gpus": gpus, "resources": resources or {}}
        wanted |= {"object_store_memory": OBJECT_STORE_BYTES, "temp_dir": self._ray}
        # nodes of one machine share the session's folder: each needs a place of its own for what jobs bring along
        wanted |= {"runtime_env_dir_name": f"runtime_resources_{len(self._nodes)}"}
        if head:
            wanted |= {"dashboard_port": int(self.url.rpartition(":")[2])}
        else:
            wanted |= {"gcs_address": self.address}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process, told = self._started(wanted, clean | {"PATH": path} | self._common | self.env | (env or {}))
        node = RayNode(process, **json.loads(told))
        self._nodes.append(node)
        return node

    def _started(self, wanted: dict[str, Any], env: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
        """A keeper whose node is up. Ray gives a node 30 s to come up, which a busy machine may miss: it gets three tries."""
        path = self._folder / f"node-{len(self._nodes)}.log"
        for _ in range(TRIES):
            with path.open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, str(_ME), json.dumps(wanted)],
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=self._folder,
                )
            assert process.stdout is not None
            if told := process.stdout.readline():
                return process, told
            process.wait()
        raise RuntimeError(f"the node did not start:\n{path.read_text()[-3000:]}")

    def __enter__(self) -> RayNodes:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ray = tempfile.mkdtemp(prefix="rayseg-")  # not below the folder: a socket's path has 107 bytes
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in reversed(self._nodes):
            node.kill()
        shutil.rmtree(self._ray, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _keep(wanted: dict[str, Any]) -> None:
    """Start a node, say so, and wait for the parent's end."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._private.utils import write_ray_address

    head = "gcs_address" not in wanted
    more: dict[str, Any] = {"include_dashboard": True, "dashboard_host": "127.0.0.1"} if head else {}
    if not head:
        more = {"include_log_monitor": False, "redis_address": wanted["gcs_address"]}
    parameters = RayParams(
        node_ip_address="127.0.0.1",
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        dashboard_agent_listen_port=free_port(),
        **more,
        **wanted,
    )
    node = Node(parameters, head=head, shutdown_at_exit=True, spawn_reaper=True)
    if head:
        write_ray_address(node.gcs_address, wanted["temp_dir"])  # what jobs look for, as other clusters may run here
    print(json.dumps({"address": node.gcs_address, "id": node.node_id}), flush=True)
    sys.stdin.read()  # ends with the parent, however that ends


def wait_for(what: str, condition: Any, within_s: float = START_S) -> Any:
    """What `condition()` returns once that is true. Raises `AssertionError` naming `what` when it does not come."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {within_s:.0f} s for {what}")


if __name__ == "__main__":
    _keep(json.loads(sys.argv[1]))
