"""Who loads the images of a worker: tasks where there is room for them, its own threads else, the same slices in any case."""

import itertools
import os
from contextlib import closing

import pytest
import ray
from tiny_training import drawn, slices_of

from rayseg.train.network import Place
from rayseg.train.order import Order
from rayseg.train.spec import TrainSpec
from rayseg.train.streaming import NothingLoaded
from rayseg.train.worker import Work, held_by_others, in_turn, loader_cpus, threads_of

SAMPLES = drawn(4)


def spec_of(**changes):
    return TrainSpec.model_validate({"data": "d", "out": "o", "model": "maskrcnn_resnet10_fpn", **changes})


def of_cluster(monkeypatch, cpus, free):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": cpus})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": free} if free else {})


@pytest.mark.parametrize(
    ("cpus", "wanted", "found"),
    [(8.0, None, 1.0), (4.0, None, 0.5), (2.0, None, 0.0), (1.0, None, 0.0), (2.0, 0.25, 0.25)],
)
def test_tasks_fit_beside_the_workers_on_what_the_cluster_has_now(monkeypatch, cpus, wanted, found):
    of_cluster(monkeypatch, cpus, cpus)
    assert loader_cpus(spec_of(workers=2, loaders=2, loader_cpus=wanted), workers=2) == found


def test_tasks_do_not_count_on_cpus_that_others_hold(monkeypatch):
    """Of four CPUs this worker holds one, and an endpoint the rest: tasks would wait for ever."""
    spec = spec_of(loaders=2)
    of_cluster(monkeypatch, 4.0, 0.0)
    assert held_by_others(spec, workers=1) == 3.0
    assert Work(spec, [], None).feed(Place(), None) is None
    of_cluster(monkeypatch, 4.0, 3.0)
    assert held_by_others(spec, workers=1) == 0.0
    assert Work(spec, [], None).feed(Place(), None) is not None


@pytest.mark.parametrize(
    ("device", "threads", "loading", "tasks"),
    [("cpu", 4, "auto", False), ("cpu", 2, "auto", True), ("cuda:0", 4, "auto", True), ("cpu", 4, "tasks", True)],
)
def test_tasks_leave_a_network_its_cores(monkeypatch, device, threads, loading, tasks):
    of_cluster(monkeypatch, 4.0, 3.0)
    spec = spec_of(loaders=2, loading=loading)
    feed = Work(spec, [], None).feed(Place(device=device), None, threads)
    assert (feed is not None) == tasks


def test_a_network_leaves_tasks_that_are_asked_for_their_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert threads_of(spec_of(), workers=2) == 4
    assert threads_of(spec_of(loading="tasks", loaders=1), workers=2) == 3
    assert threads_of(spec_of(loading="tasks", loaders=9), workers=2) == 1
    assert threads_of(spec_of(loading="tasks", loaders=1, threads=5), workers=2) == 5


def test_threads_go_on_where_tasks_bring_nothing():
    order = Order(4, batch_size=3, micro_batch=2)

    def tasks(order, first):
        yield from itertools.islice(slices_of(SAMPLES, order, first_step=first), 2)
        raise NothingLoaded("no task has come to an end")

    def threads(order, first):
        return slices_of(SAMPLES, order, first_step=first)

    said = []
    with closing(in_turn(tasks, threads, said.append)(order, 3)) as source:
        found = [[list(one.names) for one in step] for step in itertools.islice(source, 5)]
    expected = [[list(one.names) for one in step] for step in itertools.islice(threads(order, 3), 5)]
    assert found == expected
    assert said == ["no task has come to an end; its own threads load from step 5 on"]
