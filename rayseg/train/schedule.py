"""How long to train, and the learning rate on the way.

The rate follows the share of the budget that is spent, so that a run limited by time ends its cosine on any machine,
slow or fast, instead of being cut off in the middle of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayseg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Budget:
    """Train for so many `steps` or so many `seconds`; with both, until the first of them is spent."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise UsageError("a training budget needs steps or seconds, neither is given")
        for name, value in (("steps", self.steps), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise UsageError(f"training {name}: more than 0 is needed, found {value!r}")

    def progress(self, step: int, elapsed_s: float) -> float:
        """The share that is spent after `step` steps and `elapsed_s` seconds; 1 or more means done."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = elapsed_s / self.seconds if self.seconds is not None else 0.0
        return max(by_steps, by_time)


def warmup(step: int, warmup_steps: int) -> float:
    """Factor in (0, 1]: a linear rise over the first steps (Goyal et al., "Accurate, Large Minibatch SGD", 2017)."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_cosine(step: int, progress: float, warmup_steps: int) -> float:
    """Factor in (0, 1] of the learning rate: half a cosine over the budget (Loshchilov and Hutter, "SGDR", 2017),
    under the linear rise of `warmup`."""
    return warmup(step, warmup_steps) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def warmup_steps_down(
    step: int, progress: float, warmup_steps: int, milestones: Sequence[float], gamma: float
) -> float:
    """Factor in (0, 1]: times `gamma` at each of `milestones`, shares of the budget, under the rise of `warmup`."""
    return warmup(step, warmup_steps) * gamma ** sum(progress >= milestone for milestone in milestones)
