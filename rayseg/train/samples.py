"""Training on samples that are in memory, in this process: what the demo does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from rayseg.errors import UsageError
from rayseg.train.augmentation import Augmentation
from rayseg.train.batches import TrainingSample, training_image
from rayseg.train.loading import batches
from rayseg.train.loop import History, Loop, Step
from rayseg.train.order import Order
from rayseg.train.recipe import Recipe
from rayseg.train.schedule import Budget


def train(
    model: nn.Module,
    samples: Sequence[TrainingSample],
    budget: Budget,
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
    *,
    flip: float = 0.5,
    device: str | torch.device = "cpu",
    on_step: Callable[[Step], None] | None = None,
) -> History:
    """Train `model` in place, in training mode, until the budget is spent; `flip` is the probability of mirroring.

    The same seed, samples and number of steps give the same weights on the same machine; a budget in seconds ends where
    the clock says. Raises `UsageError` where there is nothing to learn from, `JobError` when the loss stays non-finite.
    """
    if not samples or not any(len(sample.classes) for sample in samples):
        raise UsageError(f"nothing to train on: {len(samples)} images, none with an instance")
    order = Order(len(samples), recipe.batch_size, recipe.micro_batch or recipe.batch_size, recipe.seed)
    model.to(torch.device(device)).to(memory_format=torch.channels_last)  # in place; what convolutions want
    loop = Loop(model.train(), recipe, device)
    source = batches(
        lambda index: training_image(samples[index], str(index)), order, Augmentation.model_validate({"flip": flip})
    )
    return loop.run(source, budget, on_step)
