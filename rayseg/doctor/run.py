"""`rayseg doctor`: this machine, or every node of a cluster, and the storage that jobs will use.

Without an address this machine is looked at, and no Ray is started. With that of a dashboard (http://) the doctor runs in the
cluster, as a job; with any other that Ray knows it joins and asks each node by a task.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from rayseg.doctor import checks, judge
from rayseg.doctor.lines import Line, fail, ok
from rayseg.doctor.node import describe

NODE_S = 300.0
Say = Callable[[str], None]


def examine(address: str | None, storages: list[str], say: Say = lambda _: None) -> list[Line]:
    """All lines: about this machine, or about the cluster at `address` or $RAY_ADDRESS, and about each of `storages`."""
    address = address or os.environ.get("RAY_ADDRESS")
    lines: list[Line] = []
    if address in (None, "", "local"):
        lines += judge.judge_node(describe(), None)
    else:
        lines += _cluster(address, say)
    for uri in storages:
        lines += checks.check_storage(uri)
    return lines


def _cluster(address: str | None, say: Say) -> Iterator[Line]:
    import ray
    from ray._private.authentication.authentication_utils import get_authentication_mode_name
    from ray._raylet import get_authentication_mode  # pyright: ignore[reportAttributeAccessIssue]

    from rayseg import cluster
    from rayseg.errors import JobError

    try:
        started = cluster.connect(address)
    except ConnectionError as error:
        raise JobError(f"no Ray cluster at {address}: {error}") from None
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        gpus = sum(node["Resources"].get("GPU", 0) for node in alive)
        cpus = sum(node["Resources"].get("CPU", 0) for node in alive)
        yield ok("cluster", f"{len(alive)} nodes, {cpus:g} CPUs, {gpus:g} GPUs, Ray {ray.__version__}")
        yield checks.check_token(get_authentication_mode_name(get_authentication_mode()))
        say(f"asking {len(alive)} nodes")
        yield from _nodes(alive)
    finally:
        if started:
            cluster.disconnect()


def _nodes(alive: list[dict[str, Any]]) -> Iterator[Line]:
    """Lines about each node, from a task that runs there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    asked = {}
    for node in alive:
        task = ray.remote(num_cpus=0, max_retries=0)(_ask)
        there = OnNode(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=there).remote()] = node
    waiting, answers = list(asked), []
    deadline = time.monotonic() + NODE_S
    while waiting:
        done, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            break
        node = asked[done[0]]
        try:
            answers.append(ray.get(done[0]) | {"skew_s": None})
        except Exception as error:  # a node that dies while it is asked, an image that cannot import rayseg
            last = str(error).strip().splitlines()[-1]
            yield fail("node", last, "look at its logs; is rayseg in its image?", node["NodeManagerHostname"])
            continue
        answers[-1]["skew_s"] = _skew(node["NodeID"])
        yield from judge.judge_node(answers[-1], node["Resources"])
    for ref in waiting:
        yield fail("node", f"no answer in {NODE_S:.0f} s", "is it overloaded?", asked[ref]["NodeManagerHostname"])
    if answers:
        yield from judge.judge_alike(answers, {"host": socket.gethostname()})


def _ask() -> dict[str, Any]:
    return describe()


def _now() -> float:
    return time.time()


def _skew(node_id: str) -> float | None:
    """Seconds that the node's clock is ahead of ours: its time, against the middle of the asking; best of three."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    task = ray.remote(num_cpus=0, max_retries=0)(_now).options(scheduling_strategy=OnNode(node_id, soft=False))
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time.time()
        try:
            there = ray.get(task.remote(), timeout=30)
        except Exception:
            return best[1] if best else None
        after = time.time()
        found = (after - before, there - (before + after) / 2)
        best = min(best, found) if best else found
    return best[1] if best else None
