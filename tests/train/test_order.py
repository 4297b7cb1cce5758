"""Every image once per epoch, whoever computes it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayseg.errors import UsageError
from rayseg.train.order import Order

SIZES = st.integers(1, 40)


@given(images=SIZES, batch_size=SIZES, micro_batch=SIZES, workers=st.integers(1, 5), epoch=st.integers(0, 3))
def test_workers_share_each_epoch_out_and_have_equally_many_steps(images, batch_size, micro_batch, workers, epoch):
    order = Order(images, batch_size, micro_batch, seed=3)
    first = epoch * order.steps_per_epoch
    seen = []
    for rank in range(workers):
        steps = list(itertools.islice(order.of_worker(first, rank, workers), order.steps_per_epoch))
        seen += [index for step in steps for one in step for index in one.indices]
        assert all(one.epoch == epoch and len(one.indices) <= micro_batch for step in steps for one in step)
    assert sorted(seen) == list(range(images))
    for step in range(first, first + order.steps_per_epoch):
        assert sum(one.weight for one in order.slices(step)) == pytest.approx(1)


def test_the_seed_and_the_epoch_decide_the_order():
    def of(seed, step):
        return [one.indices for one in Order(20, 20, 5, seed).slices(step)]

    assert of(1, 0) == of(1, 0) != of(1, 1)
    assert of(2, 0) != of(1, 0)


def test_slices_have_seeds_of_their_own():
    seeds = [one.seed for step in range(5) for one in Order(20, 8, 2, seed=1).slices(step)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"batch_size": 0}, {"micro_batch": 0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError):
        Order(**({"images": 1, "batch_size": 1, "micro_batch": 1} | wrong))


def test_workers_that_meet_within_a_step_have_equally_many_slices():
    """What fills up has no weight, so that the step's gradient stays the mean over its images."""
    order, even = Order(5, 3, 1), Order(5, 3, 1, even=True)
    for workers in (1, 2, 4):
        for step in range(4):
            shares = [next(even.of_worker(step, rank, workers)) for rank in range(workers)]
            assert len({len(share) for share in shares}) == 1
            counted = sorted(one.indices for share in shares for one in share if one.weight)
            assert counted == sorted(one.indices for one in order.slices(step))
            assert sum(one.weight for share in shares for one in share) == pytest.approx(1)


@given(images=SIZES, batch_size=SIZES, step=st.integers(0, 30))
def test_images_until_a_step_are_counted_over_all_epochs(images, batch_size, step):
    order = Order(images, batch_size, 3)
    seen = sum(len(one.indices) for number in range(step) for one in order.slices(number))
    assert order.images_before(step) == seen
