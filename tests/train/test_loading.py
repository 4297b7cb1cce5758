"""Loading by threads: the same slices as without, and nothing taken from the network's own threads."""

import itertools
import threading
from contextlib import closing

import pytest
import torch
from tiny_training import drawn

from rayseg.train.augmentation import Augmentation
from rayseg.train.batches import training_image
from rayseg.train.loading import batches
from rayseg.train.order import Order

FLIPS = Augmentation.model_validate({"flip": 0.5})


@pytest.fixture
def two_threads():
    """The caller computes on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (3, 0), (2, 4)])
def test_threads_bring_the_same_slices_in_the_same_order(threads, ahead):
    samples, order = drawn(4), Order(4, batch_size=3, micro_batch=2)
    load = [training_image(sample, str(i)) for i, sample in enumerate(samples)].__getitem__
    alone = itertools.islice(batches(load, order, FLIPS), 5)
    with closing(batches(load, order, FLIPS, threads=threads, ahead=ahead)) as source:
        for ours, theirs in zip(itertools.islice(source, 5), alone, strict=True):
            assert [list(one.names) for one in ours] == [list(one.names) for one in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))


def test_loading_threads_compute_alone_and_the_caller_keeps_its_own(two_threads):
    samples, found = drawn(4), set[tuple[bool, int]]()

    def image_of(index):
        found.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        return training_image(samples[index], str(index))

    with closing(batches(image_of, Order(4, batch_size=2, micro_batch=2), FLIPS, threads=2)) as source:
        for _ in range(3):
            next(source)
    assert found == {(False, 1)}
    later = list[int]()
    started_later = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    started_later.start()
    started_later.join()
    assert torch.get_num_threads() == 2 and later == [2]
