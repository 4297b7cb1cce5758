"""The training loop: a model, samples, a recipe and a budget in; a trained model and its losses out.

Plain PyTorch on one device. It knows nothing of files, clusters or metrics: whoever calls it brings the samples, and
looks at the model afterwards. Any model will do that, in training mode, turns images and targets into a dict of losses,
as torchvision's detectors do.

B batch, N instances, H W image pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rayseg.errors import JobError
from rayseg.train.batches import Target, TrainingSample, endless_batches
from rayseg.train.schedule import Budget, warmup_cosine

MAX_SKIPPED_IN_A_ROW = 10


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a small network from random weights, on small images."""

    batch_size: int = 4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)  # adamw only; in a short run 0.999 would never forget the first gradients
    momentum: float = 0.9  # sgd only
    warmup_steps: int = 50
    clip_norm: float = 5.0  # gradients of a larger norm are scaled down to it
    flip: float = 0.5  # probability that an image is mirrored, left to right
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: `progress` in (0, 1] is the share of the budget that was spent when it began."""

    number: int
    progress: float
    elapsed_s: float
    learning_rate: float
    losses: dict[str, float]
    skipped: bool

    @property
    def loss(self) -> float:
        """The sum that was minimised."""
        return sum(self.losses.values())


@dataclass(slots=True)
class History:
    """Every step's loss, and how the training went as a whole."""

    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    images: int = 0
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return len(self.losses)


def train(
    model: nn.Module,
    samples: Sequence[TrainingSample],
    budget: Budget,
    recipe: Recipe = Recipe(),
    *,
    device: str | torch.device = "cpu",
    on_step: Callable[[Step], None] | None = None,
) -> History:
    """Train `model` in place, in training mode, until the budget is spent.

    The same seed, samples and number of steps give the same weights on the same machine; a budget in seconds ends where
    the clock says. Raises `UsageError` where there is nothing to learn from, `JobError` when the loss stays non-finite.
    """
    device = torch.device(device)
    torch.manual_seed(recipe.seed)
    batches = endless_batches(samples, recipe.batch_size, recipe.flip, recipe.seed, device)
    optimizer = build_optimizer(model, recipe)
    model.to(device).to(memory_format=torch.channels_last)  # in place; what convolutions want
    return run_steps(model.train(), batches, optimizer, budget, recipe, on_step)


def run_steps(
    model: nn.Module,
    batches: Iterable[tuple[list[Tensor], list[Target]]],
    optimizer: torch.optim.Optimizer,
    budget: Budget,
    recipe: Recipe,
    on_step: Callable[[Step], None] | None = None,
) -> History:
    """The loop itself: one step per batch until the budget or the batches end."""
    history, skipped_in_a_row, begin = History(), 0, time.monotonic()
    for number, (images, targets) in enumerate(batches):  # B images (3, H, W), B targets
        elapsed_s = time.monotonic() - begin
        progress = budget.progress(number, elapsed_s)
        if progress >= 1:
            break
        rate = recipe.learning_rate * warmup_cosine(number, progress, recipe.warmup_steps)
        losses, taken = take_step(model, images, targets, optimizer, rate, recipe.clip_norm)
        skipped_in_a_row = 0 if taken else skipped_in_a_row + 1
        _stop_if_diverged(skipped_in_a_row, number, losses)
        step = Step(number, progress, elapsed_s, rate, losses, skipped=not taken)
        history.losses.append(step.loss)
        history.skipped += not taken
        history.images += len(images)
        if on_step:
            on_step(step)
    history.seconds = time.monotonic() - begin
    return history


def take_step(
    model: nn.Module,
    images: list[Tensor],
    targets: list[Target],
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    clip_norm: float,
) -> tuple[dict[str, float], bool]:
    """Forward, backward, update; the losses by name, and whether the update was made.

    One batch with a non-finite loss or gradient is passed over: it must not reach the weights or the optimiser's state.
    """
    named = model(images, targets)
    total = torch.stack(list(named.values())).sum()
    losses = dict(zip(named, torch.stack([loss.detach() for loss in named.values()]).tolist(), strict=True))
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(sum(losses.values())):
        return losses, False
    total.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(weights, clip_norm)
    if not math.isfinite(norm.item()):
        return losses, False
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    return losses, True


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over the trainable weights; biases and norms (one dimension) are not decayed."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def _stop_if_diverged(skipped_in_a_row: int, number: int, losses: dict[str, float]) -> None:
    if skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
        return
    last = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    raise JobError(
        f"training diverged: {skipped_in_a_row} steps in a row up to step {number} had a non-finite loss or gradient "
        f"({last}); a lower learning_rate or a longer warmup_steps usually helps"
    )
