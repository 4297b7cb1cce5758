"""Two workers learn what one learns, wait for nobody, and know the same."""

import math

import forked
import pytest
import torch
import training_pair
from tiny_training import drawn, flat, slices_of, tiny

from rayseg.train.loop import Loop
from rayseg.train.order import Order
from rayseg.train.recipe import Recipe

pytestmark = pytest.mark.xdist_group("forked")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two workers of `training_pair.py` found."""
    folder = tmp_path_factory.mktemp("workers")
    running = [forked.start(training_pair.main, rank, folder) for rank in range(2)]
    assert forked.exit_codes(*running) == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_the_mean_gradient_of_two_workers_is_that_of_one(found):
    model = tiny(backbone_norm="frozen_batch").to(memory_format=torch.channels_last)
    loop = Loop(model, Recipe(batch_size=4, clip_norm=1e9))
    before = flat(loop.weights)
    loop.take(next(slices_of(drawn(), Order(4, 4, 2))), progress=0.0)
    gradient = flat(weight.grad for weight in loop.weights)
    assert gradient.abs().max() > 0.01
    (first, weights), (second, others) = (one["gradients"] for one in found)
    assert torch.equal(first, second) and torch.equal(weights, others)
    assert (first - gradient).abs().max() < 1e-5
    # Adam's first update is the sign of the gradient, so where that is zero but for rounding it may go either way
    sure = gradient.abs() > 1e-5
    assert (weights - flat(loop.weights))[sure].abs().max() < 1e-6 < (weights - before)[sure].abs().max()


@pytest.mark.parametrize("case", ["empty_rank", "all_empty_step", "no_slice"])
def test_workers_without_objects_or_images_wait_for_nobody(found, case):
    for one in found:
        assert len(one[case]["losses"]) == 3 and one[case]["skipped"] == 0
        assert all(math.isfinite(loss) for loss in one[case]["losses"])
    assert found[0][case]["losses"] == pytest.approx(found[1][case]["losses"], rel=1e-6)


def test_a_last_batch_too_small_for_all_workers_goes_to_the_first(found):
    assert [one["no_slice"]["images"] for one in found] == [2 + 1 + 2, 0]


def test_a_loss_that_is_not_finite_on_one_worker_is_skipped_by_all(found):
    assert [one["one_breaks"]["skipped"] for one in found] == [1, 1]
    assert found[0]["one_breaks"]["bad"] == []
    ((step, names),) = found[1]["one_breaks"]["bad"]
    assert step == 1 and len(names) == 1
    assert found[0]["one_breaks"]["weight"] == found[1]["one_breaks"]["weight"] > 0


def test_a_worker_without_slices_goes_along_in_half_precision(found):
    first, second = (one["half_precision"] for one in found)
    assert (first["images"], second["images"]) == (4, 0)
    assert first["weight"] == second["weight"] > 0 == first["skipped"] == second["skipped"]


def test_running_statistics_are_the_mean_of_all_workers_in_the_moving_average_too(found):
    assert found[0]["statistics"] == found[1]["statistics"] == [0.5, 5.0, 0.5]


def test_all_workers_stop_after_the_same_step(found):
    assert [one["one_stops"] for one in found] == [3, 3]


def test_all_workers_leave_a_validation_in_which_one_is_to_stop(found):
    assert [one["one_stops_in_validation"] for one in found] == [(None, 3), (None, 1)]
