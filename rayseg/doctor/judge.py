"""From what nodes say of themselves to lines: is it well, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import metadata, requires
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rayseg.doctor.lines import Line, fail, ok, warn

GIB = 1 << 30
LEAST_MEMORY, LEAST_CACHE, LEAST_STORE = 4 * GIB, 2 * GIB, 256 << 20
SKEW_WARN_S, SKEW_FAIL_S = (
    2.0,
    60.0,
)  # S3 refuses requests that are signed 15 minutes off; locks compare ages of seconds
_IMAGE = "use one image on all nodes (cluster/Dockerfile)"

Node = Mapping[str, Any]


def judge_node(node: Node, resources: Mapping[str, float] | None) -> Iterator[Line]:
    """Lines about one node; `resources` are Ray's, None where Ray does not run."""
    name = node["host"]
    yield from _versions(node, name)
    yield _cpus(node, name, resources)
    yield from _gpus(node, name, resources)
    yield _memory(node, name, resources)
    if resources is not None:
        yield _object_store(node, name, resources)
    yield _cache(node, name)
    yield _kernels(node, name)


def judge_alike(nodes: Sequence[Node], here: Node) -> Iterator[Line]:
    """Lines about what has to be the same everywhere: versions and clocks. `here` is the machine that asks."""
    for what in ("python", "ray", "rayseg", "torch", "numpy", "pyarrow"):
        found: dict[str, list[str]] = {}
        for node in nodes:
            version = node["python"] if what == "python" else node["versions"][what]
            found.setdefault(str(version), []).append(node["host"])
        if len(found) > 1:
            told = "; ".join(f"{version} on {', '.join(hosts[:3])}" for version, hosts in found.items())
            state = fail if what in ("python", "ray", "rayseg") else warn
            yield state(f"{what} versions", told, _IMAGE)
    skews = {node["host"]: node["skew_s"] for node in nodes if node.get("skew_s") is not None}
    if skews:
        worst = max(skews, key=lambda host: abs(skews[host]))
        yield clock_line("clocks", skews[worst], worst, here["host"])


def clock_line(what: str, skew_s: float, whose: str, against: str) -> Line:
    """How far a clock is from that of `against`."""
    found = f"{whose} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} {against}"
    if abs(skew_s) >= SKEW_FAIL_S:
        return fail(what, found, "let chrony or systemd-timesyncd keep the time: S3 refuses requests that are far off")
    if abs(skew_s) >= SKEW_WARN_S:
        return warn(what, found, "let chrony or systemd-timesyncd keep the time")
    return ok(what, f"within {abs(skew_s):.1f} s of {against}")


def _versions(node: Node, name: str) -> Iterator[Line]:
    versions = node["versions"]
    told = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    wanted = metadata("rayseg")["Requires-Python"]
    if not SpecifierSet(wanted).contains(node["python"]):
        yield fail("versions", f"Python {node['python']}", f"rayseg needs Python {wanted}; {_IMAGE}", name)
        return
    wrong = []
    for one in map(Requirement, requires("rayseg") or ()):
        version = versions.get(one.name, "not asked")
        if version is None or (version != "not asked" and not one.specifier.contains(version, prereleases=True)):
            wrong.append(f"{one.name}{one.specifier} ({version or 'none'})")
    if wrong:
        yield fail("versions", "lacks " + ", ".join(wrong), _IMAGE, name)
    else:
        yield ok("versions", f"Python {node['python']}, {told}", name)


def _cpus(node: Node, name: str, resources: Mapping[str, float] | None) -> Line:
    there = node["cpus"]
    if resources is None:
        return ok("CPUs", str(there), name)
    given = resources.get("CPU", 0)
    if given > there:
        return warn(
            "CPUs", f"Ray has {given:g}, there are {there}", "set num-cpus to what the container has: "
            "more processes than cores wait for each other", name
        )  # fmt: skip
    return ok("CPUs", f"Ray has {given:g} of {there}", name)


def _gpus(node: Node, name: str, resources: Mapping[str, float] | None) -> Iterator[Line]:
    gpus, names = node["gpus"], node["gpus"]["names"]
    given = len(names) if resources is None else resources.get("GPU", 0)
    if gpus["seen"] and not names:
        advice = "torch sees none of them: an image with CUDA (cluster/Dockerfile, target cuda), and the device plugin"
        yield fail("GPUs", f"{gpus['seen']} there, torch {gpus['error'] or 'is built without CUDA'}", advice, name)
    elif given > len(names):
        yield fail("GPUs", f"Ray has {given:g}, torch sees {len(names)}", "num-gpus must be what the node has", name)
    elif names and resources is not None and not given:
        yield warn(
            "GPUs", f"torch sees {len(names)}, Ray has none", "start Ray with num-gpus, or labels use CPUs", name
        )
    elif names:
        yield ok("GPUs", f"{len(names)} x {names[0]}, CUDA {gpus['cuda']}", name)
    else:
        yield ok("GPUs", "none", name)


def _memory(node: Node, name: str, resources: Mapping[str, float] | None) -> Line:
    there = node["memory_bytes"]
    if there < LEAST_MEMORY:
        return warn("memory", f"{there / GIB:.1f} GiB", "a model worker takes 1 to 2 GiB, reading another 1", name)
    given = f", Ray gives out {resources['memory'] / GIB:.1f}" if resources and "memory" in resources else ""
    return ok("memory", f"{there / GIB:.1f} GiB{given}", name)


def _object_store(node: Node, name: str, resources: Mapping[str, float]) -> Line:
    store, shared = resources.get("object_store_memory", 0), node["shared_memory_bytes"]
    if store < LEAST_STORE:
        return warn("object store", f"{store / GIB:.2f} GiB", "images wait there: 256 MiB and more", name)
    if shared is not None and shared < store:
        return warn(
            "object store", f"{store / GIB:.1f} GiB, but /dev/shm has {shared / GIB:.1f}",
            "mount an emptyDir with medium Memory at /dev/shm, or Ray uses the disk", name
        )  # fmt: skip
    return ok("object store", f"{store / GIB:.1f} GiB", name)


def _cache(node: Node, name: str) -> Line:
    cache = node["cache"]
    if cache["error"]:
        return fail(
            "model cache",
            f"{cache['folder']}: {cache['error']}",
            "point RAYSEG_CACHE at a folder that can be written",
            name,
        )
    if cache["free_bytes"] < LEAST_CACHE:
        return warn("model cache", f"{cache['folder']}: {cache['free_bytes'] / GIB:.1f} GiB free", "make room", name)
    return ok("model cache", f"{cache['folder']}, {cache['free_bytes'] / GIB:.0f} GiB free", name)


def _kernels(node: Node, name: str) -> Line:
    kernels = node["kernels"]
    if kernels["error"]:
        return fail("numba cache", kernels["error"], _IMAGE, name)
    if not kernels["compiled"]:
        return ok("numba cache", f"warm, {kernels['folder']}", name)
    found = f"was cold: {kernels['compiled']} kernels compiled in {kernels['seconds']:.0f} s"
    if kernels["kept"]:
        return warn(
            "numba cache", f"{found}, kept in {kernels['folder']}", "warm from now on; an image can bring it", name
        )
    return warn("numba cache", f"{found} and not kept", "set NUMBA_CACHE_DIR to a folder that can be written", name)
