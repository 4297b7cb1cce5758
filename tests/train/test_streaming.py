"""Ray Data brings what threads would have loaded: the same slices, in the same order, from any step on, for any worker."""

import itertools
import threading
from contextlib import closing
from dataclasses import replace

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import write_data

from rayseg import read
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import ObjectNotFound, RaysegError
from rayseg.train import slice_bytes, streaming
from rayseg.train.augmentation import Augmentation
from rayseg.train.loading import batches
from rayseg.train.loop import TensorSlice
from rayseg.train.order import Order
from rayseg.train.records import Records, packed
from rayseg.train.streaming import Loading, NothingLoaded, Tasks, slices_per_task, streamed

AUGMENTATION = Augmentation.model_validate({"flip": 0.5, "copy_paste": 0.5, "scale_jitter": [0.5, 1.5]})


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return packed(read(write_data(tmp_path_factory.mktemp("data"))))


def assert_same(found, expected):
    assert (list(found.names), found.weight, found.seed) == (list(expected.names), expected.weight, expected.seed)
    for one, other in zip(found.images, expected.images, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    for one, other in zip(found.targets, expected.targets, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rank", [0, 1])
def test_tasks_load_what_threads_load(ray_cluster, records, rank, monkeypatch):
    """Over the ends of epochs and executions, from the middle of an epoch, where the second worker has none at times."""
    monkeypatch.setattr(streaming, "SEGMENTS", (2, 6))
    order = Order(len(records), batch_size=3, micro_batch=2)
    loading = Loading(ray.put(records), order, AUGMENTATION)
    steps = streamed(loading, Tasks(2, lambda: 0.0, slices=3), first_step=1, rank=rank, workers=2)
    expected = batches(records.training_image, order, AUGMENTATION, first_step=1, rank=rank, workers=2)
    with closing(steps), closing(expected):
        for found, other in itertools.islice(zip(steps, expected, strict=False), 40):
            assert len(found) == len(other)
            for one, same in zip(found, other, strict=True):
                assert_same(one, same)


def test_what_an_image_raises_is_raised_at_its_step(ray_cluster, tmp_path):
    records = packed(read(write_data(tmp_path, images=3)))
    order = Order(3, batch_size=1, micro_batch=1)
    third = order.slices(2)[0].indices[0]
    gone = records.image(third).uri
    (tmp_path / gone.removeprefix(str(tmp_path)).lstrip("/")).unlink()
    steps = streamed(
        Loading(ray.put(records), order, Augmentation.model_validate({})),
        Tasks(1, lambda: 0.0),
        first_step=0,
        rank=0,
        workers=1,
    )
    with closing(steps):
        assert [len(next(steps)) for _ in range(2)] == [1, 1]
        with pytest.raises(ObjectNotFound, match=gone):
            next(steps)


@pytest.mark.parametrize(("size_px", "micro_batch", "found"), [(64, 1, 128), (64, 8, 16), (64, 100, 1), (1448, 1, 8)])
def test_a_task_loads_more_slices_the_smaller_images_are(tmp_path, size_px, micro_batch, found):
    write_coco(tmp_path, generate(2, seed=0, size_px=size_px, max_objects=1))
    assert slices_per_task(packed(read(str(tmp_path))), micro_batch) == found


def test_a_task_that_fails_is_no_error_of_the_training(ray_cluster, records):
    """Ray's own error comes through, after which workers are started again."""

    class Failing(Records):
        def training_image(self, rank):
            raise ValueError("the node is not well")

    failing = Failing(records.categories, records.data, records.offsets)
    loading = Loading(ray.put(failing), Order(len(records), 1, 1), Augmentation.model_validate({}))
    steps = streamed(loading, Tasks(1, lambda: 0.0), first_step=0, rank=0, workers=1)
    with closing(steps), pytest.raises(Exception, match="the node is not well") as raised:
        next(steps)
    assert not isinstance(raised.value, RaysegError)


def test_tasks_for_which_there_is_no_room_are_said_and_ended(no_cpu_left, records, monkeypatch):
    monkeypatch.setattr(streaming, "PATIENCE_S", 0.5)
    before = set(threading.enumerate())
    loading = Loading(ray.put(records), Order(len(records), 1, 1), Augmentation.model_validate({}))
    steps = streamed(loading, Tasks(1, lambda: 1.0), first_step=0, rank=0, workers=1)
    with closing(steps), pytest.raises(NothingLoaded, match=r"each takes 1 CPU, and 0\S* of \S+ are free"):
        next(steps)
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("rayseg-stream", "StreamingExecutor")):
            thread.join(30)
            assert not thread.is_alive(), thread.name


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_bytes_hold_a_slice(instances, height, width, seed):
    torch.manual_seed(seed)
    target = {
        "boxes": torch.rand(instances, 4),
        "labels": torch.randint(0, 9, (instances,)),
        "masks": torch.randint(0, 2, (instances, height, width), dtype=torch.uint8),
    }
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).permute(2, 0, 1)
    one = TensorSlice([image, image], [target, target], ["a", "ü"], 0.25, seed)
    assert_same(slice_bytes.unpack(slice_bytes.pack(one)), one)
    with pytest.raises(AssertionError):
        assert_same(slice_bytes.unpack(slice_bytes.pack(replace(one, seed=seed + 1))), one)
