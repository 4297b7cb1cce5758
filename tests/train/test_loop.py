"""The loop learns, repeats itself from a seed, survives a bad batch and says when it cannot go on."""

import math

import numpy as np
import pytest
import torch
from tiny_training import TINY, Line, tiny
from torch import nn

from rayseg.datasets.synthetic import Sample, generate
from rayseg.errors import JobError, UsageError
from rayseg.models.maskrcnn import build
from rayseg.train.batches import to_tensors, training_image
from rayseg.train.loop import Loop, TensorSlice
from rayseg.train.optimizer import build_optimizer
from rayseg.train.recipe import Recipe
from rayseg.train.samples import train
from rayseg.train.schedule import Budget
from rayseg.train.stand_ins import StandIn


@pytest.fixture(scope="module")
def samples():
    return list(generate(2, seed=0, size_px=64, max_objects=3))


def test_two_images_are_learnt_by_heart(samples):
    recipe = Recipe(batch_size=2, learning_rate=2e-3, warmup_steps=5)
    history = train(tiny(), samples, Budget(steps=30), recipe)
    assert history.steps == 30 and history.images == 60 and history.skipped == 0
    assert np.mean(history.losses[-5:]) < 0.7 * np.mean(history.losses[:5])


def test_the_same_seed_gives_the_same_weights(samples):
    runs = []
    for seed in (1, 1, 2):
        model = tiny()
        train(model, samples, Budget(steps=3), Recipe(batch_size=2, seed=seed))
        runs.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_images_without_instances_are_background(samples):
    nothing = Sample(samples[0].image, np.zeros((0, 64, 64), bool), np.zeros(0, np.int64))
    history = train(tiny(), [samples[0], nothing], Budget(steps=4), Recipe(batch_size=1), flip=1.0)
    assert history.skipped == 0 and all(math.isfinite(loss) for loss in history.losses)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_minimum_is_found(samples, optimizer):
    model = Line()
    recipe = Recipe(batch_size=1, optimizer=optimizer, learning_rate=0.2, weight_decay=0, warmup_steps=0)
    train(model, samples, Budget(steps=80), recipe)
    assert model.weight.item() == pytest.approx(3, abs=0.1)


def test_a_batch_with_a_non_finite_loss_leaves_no_trace(samples):
    whole, broken = Line(), Line(broken={2})
    recipe = Recipe(learning_rate=0.1, warmup_steps=0, optimizer="sgd", weight_decay=0, momentum=0)
    seen = []
    train(whole, samples, Budget(seconds=3600, steps=2), recipe)
    history = train(broken, samples, Budget(seconds=3600, steps=3), recipe, on_step=seen.append)
    assert history.skipped == 1 and [step.skipped for step in seen] == [False, False, True]
    assert math.isfinite(broken.weight.item())
    assert math.isnan(seen[2].loss) and seen[2].losses["none"] == 0


def test_a_batch_with_a_non_finite_loss_leaves_running_statistics_alone(samples):
    class Normed(Line):
        def __init__(self, broken=()):
            super().__init__(broken)
            self.norm = nn.BatchNorm1d(1)

        def forward(self, images, targets):
            losses = super().forward(images, targets)
            value = math.nan if self.calls - 1 in self.broken else float(self.calls)
            self.norm(torch.tensor([[value], [value + 1]]))
            return losses

    recipe = Recipe(learning_rate=0.1, warmup_steps=0)
    whole, broken = Normed(), Normed(broken={2})
    train(whole, samples, Budget(steps=2), recipe)
    assert train(broken, samples, Budget(steps=3), recipe).skipped == 1
    assert torch.equal(broken.norm.running_mean, whole.norm.running_mean)
    assert torch.equal(broken.norm.running_var, whole.norm.running_var) and not torch.isnan(whole.norm.running_mean)


def test_an_image_that_another_one_stands_in_for_is_told_of_once(samples):
    names = ["whole.jpg", StandIn("whole.jpg", "broken.jpg: truncated")]
    image = to_tensors(training_image(samples[0]))
    one = TensorSlice([image[0]] * 2, [image[1]] * 2, names, 1.0, 0)
    loop, told = Loop(Line(), Recipe()), []
    loop.on_stand_in = told.append
    loop.run([[one], [one]], Budget(steps=2))
    assert told == ["broken.jpg: truncated"]


def test_a_loss_that_stays_non_finite_ends_the_training(samples):
    with pytest.raises(JobError, match=r"10 steps in a row up to step 14.*fit nan.*learning_rate"):
        train(Line(broken=range(5, 100)), samples, Budget(steps=100), Recipe(learning_rate=0.01))


def test_nothing_to_train_on_is_said_at_once(samples):
    nothing = Sample(samples[0].image, np.zeros((0, 64, 64), bool), np.zeros(0, np.int64))
    for bad in ([], [nothing]):
        with pytest.raises(UsageError, match="nothing to train on"):
            train(Line(), bad, Budget(steps=1))


def test_biases_and_norms_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    decayed, kept = build_optimizer(model, Recipe(weight_decay=0.1)).param_groups
    assert (len(decayed["params"]), decayed["weight_decay"]) == (0, 0.1)
    assert (len(kept["params"]), kept["weight_decay"]) == (3, 0.0)


def test_a_model_of_one_class_starts_undecided(samples):
    torch.manual_seed(0)
    model = build("maskrcnn_resnet10_fpn", 1, TINY).train()
    tensors = [to_tensors(training_image(sample)) for sample in samples]
    targets = [{**target, "labels": torch.ones_like(target["labels"])} for _, target in tensors]
    losses = model([image.float() / 255 for image, _ in tensors], targets)
    for name in ("loss_mask", "loss_classifier", "loss_objectness"):  # each a choice of two
        assert losses[name].item() == pytest.approx(math.log(2), abs=0.1), losses
