"""How to optimise: everything about a training but the model, the images and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayseg.train.schedule import warmup_cosine, warmup_steps_down


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a small network from random weights, on small images.

    `learning_rate` is what the optimiser gets at its highest. `micro_batch` images go through the network at once: where it
    is less than `batch_size`, a step's gradient is the mean over its slices.
    """

    batch_size: int = 4
    micro_batch: int | None = None  # none: the whole batch
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)  # adamw only; in a short run 0.999 would never forget the first gradients
    momentum: float = 0.9  # sgd only
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.67, 0.92)  # step only: shares of the budget
    gamma: float = 0.1  # step only
    warmup_steps: int = 50
    clip_norm: float = 5.0  # gradients of a larger norm are scaled down to it
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    average: float | None = None  # decay of the moving average of the weights
    max_skipped: int = 10  # steps in a row without an update that end the training
    seed: int = 0

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of `step`, when `progress` of the budget is spent."""
        if self.schedule == "cosine":
            return self.learning_rate * warmup_cosine(step, progress, self.warmup_steps)
        return self.learning_rate * warmup_steps_down(step, progress, self.warmup_steps, self.milestones, self.gamma)
