"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError, RayError

import rayseg
from rayseg.errors import JobError, UsageError

IDLE_WORKER_MS = 60_000
"""Few CPUs let few idle processes live, and Ray's own second of grace is less than a process takes to import torch."""


def connect(
    address: str | None = None, *, log_workers: bool = False, runtime_env: Mapping[str, Any] | None = None
) -> bool:
    """Join the cluster at `address`, else at $RAY_ADDRESS, else start one on this machine; True if this call started it.

    A cluster of our own listens on loopback only, and asks for a token as Ray's own default is, unless $RAY_AUTH_MODE
    says otherwise. `runtime_env` is Ray's, for all workers. Raises `ConnectionError` when there is no cluster at the
    address, `JobError` when it refuses the token or runs another version of Ray, Python or rayseg.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters is raised, and said once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": log_workers}
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"address: {address} is a dashboard's, which takes jobs: rayseg submit; to join, give HEAD:6379"
        )
    if address == "local":
        # Under `uv run` Ray would pack the working folder and start every worker through uv, in an environment of its own;
        # on this machine the workers share this one.
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
        ray_constants.ENABLE_RAY_CLUSTER = False  # Ray's own switch for a node that listens on 127.0.0.1 alone
        options["include_dashboard"] = False
        options["_system_config"] = {"idle_worker_killing_time_threshold_ms": IDLE_WORKER_MS}
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    try:
        with _without_greeting():
            ray.init(address=address, **options)
    except AuthenticationError:
        raise JobError(
            f"{address}: the cluster refuses the token, or asks for one; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's"
        ) from None
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise
        told = " ".join(str(error).split())
        raise JobError(f"{address}: the cluster runs another version of Ray or Python. {told}") from None
    if address != "local":
        check_package(address)
    return address == "local"


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Ray's core writes to file descriptor 2, past Python, that it has read its log level; all else it writes stays."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        before = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            lines = [line for line in written if b"RAY_BACKEND_LOG_LEVEL" not in line]
            os.write(2, b"".join(lines))


def check_package(address: str, runtime_env: Mapping[str, Any] | None = None) -> None:
    """Raise `JobError` unless the joined cluster's workers have this version of rayseg.

    Without it Ray would start tasks that cannot be read there, again and again.
    """

    @ray.remote(num_cpus=0, max_retries=0)
    def version() -> str:
        import rayseg

        return rayseg.__version__

    way_out = "rayseg submit brings the package along; or use an image that has it"
    try:
        found = ray.get(version.options(runtime_env=dict(runtime_env or {})).remote())
    except (RayError, ImportError) as error:
        told = str(error).strip().splitlines()[-1]
        raise JobError(f"{address}: its workers cannot import rayseg ({told}); {way_out}") from None
    if found != rayseg.__version__:
        raise JobError(f"{address}: its workers have rayseg {found}, expected {rayseg.__version__}; {way_out}")


def check_fits(needs: Mapping[str, float], what: str) -> None:
    """Raise `UsageError` where no node of the joined cluster, nor any that its autoscaler may add, has all of `needs`."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    lacking = first_lacking(needs, nodes)
    if lacking is None or first_lacking(needs, _to_come()) is None:
        return
    raise UsageError(why_not(lacking, needs, nodes, what))


def first_lacking(needs: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> str | None:
    """None where one of `nodes` has all of `needs`, else a resource that keeps the job from its nodes."""
    missing = [[name for name, amount in needs.items() if node.get(name, 0) < amount] for node in nodes]
    if not any(needs.values()) or [] in missing:
        return None
    return min(missing, key=len)[0] if missing else next(iter(needs))


def why_not(lacking: str, needs: Mapping[str, float], nodes: Iterable[Mapping[str, float]], what: str) -> str:
    """In words: what a worker needs, and the most of it that any node has."""
    most = max((node.get(lacking, 0) for node in nodes), default=0)
    asked = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
    found = f"the most that a node has is {most:g} {lacking}" if most else f"no node has a {lacking}"
    without = "; without one: gpus_per_worker=0 (label) or gpu=false (train)" if lacking == "GPU" else ""
    return f"{what} needs {asked} on one node, and {found}. Add a node that has it, or ask for less{without}"


def _to_come() -> list[dict[str, float]]:
    """What one node of each kind has that the autoscaler, where there is one, may start."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [dict(group.resources) for group in groups if group.max_count]


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    ray.shutdown()
