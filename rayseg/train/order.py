"""Which images each step sees: decided by the seed and the step's number alone, never by who computes it.

A step takes `batch_size` images, cut into slices of `micro_batch` that go through the network one after the other or on
different workers. Slice k belongs to worker k modulo their number, so that the mean gradient of a step is the same for
any number of workers, no worker can run out of steps before the others, and a run can go on from any step.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rayseg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Slice:
    """Images that go through the network together: `weight` is their share of the step's images, `seed` is its own."""

    epoch: int
    indices: tuple[int, ...]
    weight: float
    seed: int


@dataclass(frozen=True)
class Order:
    """Every one of `images` once per epoch, in an order of the epoch's own; the last step of an epoch may be smaller."""

    images: int
    batch_size: int
    micro_batch: int
    seed: int = 0
    even: bool = False  # for networks whose workers meet within a forward, as in synchronised norms

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: 1 or more is needed, found {getattr(self, name)}")
        if self.images < 1:
            raise UsageError("nothing to train on: no images")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.images / self.batch_size)

    def slices(self, step: int) -> list[Slice]:
        """The slices of `step`, which counts from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        begin = within * self.batch_size
        chosen = self._of_epoch(epoch)[begin : begin + self.batch_size]
        parts = [chosen[start : start + self.micro_batch] for start in range(0, len(chosen), self.micro_batch)]
        return [
            Slice(epoch, part, len(part) / len(chosen), _seed(self.seed, step, number))
            for number, part in enumerate(parts)
        ]

    def images_before(self, step: int) -> int:
        """Images of all steps before `step`, each as often as it is seen."""
        epochs, within = divmod(step, self.steps_per_epoch)
        return epochs * self.images + within * self.batch_size

    def of_worker(self, first_step: int, rank: int, workers: int) -> Iterator[list[Slice]]:
        """The slices of each step from `first_step` on that are worker `rank`'s, without end; a list may be empty.

        With `even` all workers have equally many: what is missing is the step's first slices once more, of weight 0.
        """
        step = first_step
        while True:
            slices = self.slices(step)
            if self.even and (missing := -len(slices) % workers):
                again = itertools.islice(itertools.cycle(slices), missing)
                slices += [replace(one, weight=0.0) for one in again]
            yield slices[rank::workers]
            step += 1

    def _of_epoch(self, epoch: int) -> tuple[int, ...]:
        return _shuffled(self.images, self.seed, epoch)


@functools.lru_cache(maxsize=4)
def _shuffled(images: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, epoch]).permutation(images).tolist())


def _seed(seed: int, step: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0])
