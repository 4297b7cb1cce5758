"""What nodes say of themselves becomes ok, warn or fail, and each that is not ok says what to do."""

import copy

import pytest

from rayseg.doctor import judge
from rayseg.doctor.lines import verdict
from rayseg.doctor.node import describe

GIB = 1 << 30
RESOURCES = {"CPU": 8.0, "memory": 30.0 * GIB, "object_store_memory": 8.0 * GIB}


@pytest.fixture(scope="module")
def this_machine():
    return describe()


@pytest.fixture
def node(this_machine):
    """A node that has nothing wrong with it, of this environment's versions."""
    found = copy.deepcopy(this_machine)
    return found | {
        "host": "node-1", "cpus": 8, "memory_bytes": 32 * GIB, "shared_memory_bytes": 16 * GIB, "skew_s": 0.1,
        "gpus": {"names": [], "seen": 0, "cuda": None, "error": None},
        "cache": {"folder": "/cache", "free_bytes": 50 * GIB, "error": None},
        "kernels": {"compiled": 0, "seconds": 1.0, "folder": "/k", "kept": True, "error": None},
    }  # fmt: skip


def lines(node, resources=RESOURCES):
    return {line.what: line for line in judge.judge_node(node, resources)}


def test_a_good_node_is_ok_in_every_line(node):
    found = lines(node)
    assert {line.state for line in found.values()} == {"ok"}
    assert set(found) == {"versions", "CPUs", "GPUs", "memory", "object store", "model cache", "numba cache"}
    assert all(line.node == "node-1" and not line.advice for line in found.values())
    assert verdict(found.values()) == "7 ok, 0 warn, 0 fail: jobs can run"


def test_this_machine_says_all_that_is_judged(this_machine):
    found = list(judge.judge_node(this_machine, None))
    assert {line.state for line in found} <= {"ok", "warn"}
    assert this_machine["versions"]["torch"] in next(line.found for line in found if line.what == "versions")


@pytest.mark.parametrize(
    ("changes", "resources", "what", "state", "words", "advice"),
    [
        ({"python": "3.9.1"}, {}, "versions", "fail", "Python 3.9.1", "rayseg needs Python"),
        ({"versions": {"torch": "2.0.0"}}, {}, "versions", "fail", r"torch>=2.11 (2.0.0)", "one image"),
        ({"versions": {"numba": None}}, {}, "versions", "fail", "numba>=0.61 (none)", "one image"),
        ({"cpus": 2}, {}, "CPUs", "warn", "Ray has 8, there are 2", "num-cpus"),
        (
            {"gpus": {"seen": 4, "error": None}},
            {},
            "GPUs",
            "fail",
            "4 there, torch is built without CUDA",
            "target cuda",
        ),
        ({}, {"GPU": 1.0}, "GPUs", "fail", "Ray has 1, torch sees 0", "num-gpus"),
        ({"gpus": {"names": ["L4"], "seen": 1}}, {}, "GPUs", "warn", "torch sees 1, Ray has none", "num-gpus"),
        ({"gpus": {"names": ["L4"], "cuda": "13.0"}}, {"GPU": 1.0}, "GPUs", "ok", "1 x L4, CUDA 13.0", ""),
        ({"memory_bytes": GIB}, {}, "memory", "warn", "1.0 GiB", "model worker"),
        ({"shared_memory_bytes": 1 << 26}, {}, "object store", "warn", "/dev/shm has 0.1", "emptyDir"),
        ({}, {"object_store_memory": 1e8}, "object store", "warn", "0.09 GiB", "256 MiB"),
        ({"cache": {"error": "Read-only file system"}}, {}, "model cache", "fail", "Read-only", "RAYSEG_CACHE"),
        ({"cache": {"free_bytes": GIB}}, {}, "model cache", "warn", "1.0 GiB free", "make room"),
        (
            {"kernels": {"compiled": 31, "seconds": 24.0}},
            {},
            "numba cache",
            "warn",
            "31 kernels compiled in 24 s",
            "image",
        ),
        ({"kernels": {"compiled": 3, "kept": False}}, {}, "numba cache", "warn", "not kept", "NUMBA_CACHE_DIR"),
        ({"kernels": {"error": "no llvmlite"}}, {}, "numba cache", "fail", "no llvmlite", "one image"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(node, changes, resources, what, state, words, advice):
    for name, value in changes.items():
        node[name] = node[name] | value if isinstance(value, dict) else value
    found = lines(node, RESOURCES | resources)
    line = found.pop(what)
    assert line.state == state and words in line.found and advice in line.advice
    assert bool(line.advice) == (state != "ok")
    assert {other.state for other in found.values()} == {"ok"}, "and nothing else is"
    assert state in line.text() and "node-1" in line.text()


def alike(*nodes):
    return {line.what: line for line in judge.judge_alike(nodes, {"host": "driver"})}


def test_nodes_that_differ(node):
    other = copy.deepcopy(node) | {"host": "node-2", "python": "3.12.1", "skew_s": -90.0}
    other["versions"] |= {"rayseg": "9.9", "torch": "2.99"}
    found = alike(node, other)
    assert found["python versions"].state == found["rayseg versions"].state == "fail"
    assert found["torch versions"].state == "warn" and "2.99 on node-2" in found["torch versions"].found
    assert found["clocks"].state == "fail" and "node-2 is 90.0 s behind driver" in found["clocks"].found
    assert "ray versions" not in found


@pytest.mark.parametrize(("skew_s", "state"), [(0.0, "ok"), (-1.9, "ok"), (5.0, "warn"), (-60.0, "fail")])
def test_clocks(node, skew_s, state):
    assert alike(node, node | {"skew_s": skew_s})["clocks"].state == state
