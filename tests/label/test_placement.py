"""Where model workers and reading may run: what no node has is said before anything starts."""

import pytest

from rayseg import cluster
from rayseg.errors import UsageError
from rayseg.label import pipeline
from rayseg.label.spec import LabelSpec

NODES = [{"CPU": 8.0, "memory": 1e9}, {"CPU": 2.0, "GPU": 1.0, "model": 2.0}]


def spec_of(**changes):
    return LabelSpec(images="i", model="rectangles", out="o", **changes)


@pytest.mark.parametrize(
    ("needs", "lacking"),
    [
        ({}, None),
        ({"GPU": 0.0}, None),
        ({"GPU": 1.0, "model": 2.0}, None),
        ({"GPU": 2.0}, "GPU"),
        ({"CPU": 4.0, "GPU": 1.0}, "GPU"),  # each is somewhere, but not on one node
        ({"TPU": 1.0}, "TPU"),
    ],
)
def test_one_node_must_have_all_that_a_worker_needs(needs, lacking):
    assert cluster.first_lacking(needs, NODES) == lacking


def test_a_cluster_without_nodes_lacks_everything_that_is_needed():
    assert cluster.first_lacking({"GPU": 1.0}, []) == "GPU" and cluster.first_lacking({}, []) is None


def test_what_is_lacking_is_said_in_words():
    assert "no node has a TPU" in cluster.why_not("TPU", {"TPU": 1.0}, NODES, "a model worker")
    said = cluster.why_not("GPU", {"GPU": 2.0}, NODES, "a model worker")
    assert said.startswith("a model worker needs 2 GPU on one node, and the most that a node has is 1 GPU")
    assert "gpus_per_worker=0" in said


def test_the_address_of_a_dashboard_is_none_to_join(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match="rayseg submit"):
        cluster.connect("http://head:8265")


@pytest.mark.parametrize(
    "changes", [{"gpus_per_worker": 1.0}, {"worker_resources": {"model": 1.0}}, {"read_resources": {"decode": 1.0}}]
)
def test_a_run_that_fits_no_node_is_refused(ray_cluster, changes):
    with pytest.raises(UsageError, match=r"needs .* on one node, and no node has a (GPU|model|decode)"):
        pipeline.resources(spec_of(**changes))


def test_a_run_that_fits(ray_cluster):
    have = pipeline.resources(spec_of(workers=1))
    assert (have.workers, have.device, dict(have.worker_places)) == (1, "cpu", {})
