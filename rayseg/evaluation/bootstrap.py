"""How sure a number is: intervals from drawing the images anew, with replacement, as often as wanted.

Matches are kept, so a draw costs a weighted pass over the records. Two models are compared on the same draws: what an image
adds to both cancels, and the interval of the difference is that of the pair.

Shapes: B draws, I images, T IoU thresholds, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rayseg.evaluation.numbers import AT_50, AT_75
from rayseg.evaluation.ranked import Ranked, weighted_averages

DRAWN = ("AP", "AP50", "AP75")  # the metrics that have intervals


@dataclass(frozen=True, slots=True)
class Draws:
    """The values that B draws gave: `metrics` (B, 3) of `DRAWN`, `classes` (B, K) AP of each class; NaN for none."""

    metrics: np.ndarray
    classes: np.ndarray


def draws(ranks: Sequence[Ranked], images: int, count: int, seed: int, threads: int | None = None) -> list[Draws]:
    """`count` draws of the images for each of `ranks`, the same images for all of them."""
    seeds = np.random.SeedSequence(seed).spawn(count)

    def one(child: np.random.SeedSequence) -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(child)
        weights = np.bincount(rng.integers(0, images, images), minlength=images).astype(np.float64)
        return [_summaries(weighted_averages(each, weights)) for each in ranks]

    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="rayseg-bootstrap") as pool:
        found = list(pool.map(one, seeds))
    return [
        Draws(np.array([draw[k][0] for draw in found]), np.array([draw[k][1] for draw in found]))
        for k in range(len(ranks))
    ]


def interval(values: np.ndarray, estimate: float | None, confidence: float) -> tuple[float, float] | None:
    """The bias-corrected interval of `confidence` around `estimate` from the draws `values` (B,).

    AP of few images is too high on average, and of draws from them higher still, which the share of draws below the estimate
    shows: the quantiles are moved by it (Efron, 1981). None where half of the draws or more are undefined.
    """
    known = values[~np.isnan(values)]
    if estimate is None or np.isnan(estimate) or 2 * len(known) <= len(values):
        return None
    normal = NormalDist()
    below = float((known < estimate).mean() + (known == estimate).mean() / 2)
    shift = 2 * normal.inv_cdf(min(max(below, 1 / len(known) / 2), 1 - 1 / len(known) / 2))
    tail = normal.inv_cdf((1 - confidence) / 2)
    low, high = np.quantile(known, [normal.cdf(shift + tail), normal.cdf(shift - tail)])
    return float(low), float(high)


def _summaries(averages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP, AP50 and AP75 over classes, and AP of each class, of `averages` (T, K)."""
    there = ~np.isnan(averages[0])
    classes = averages.mean(axis=0)
    if not there.any():
        return np.full(len(DRAWN), np.nan), classes
    known = averages[:, there]
    return np.array([known.mean(), known[AT_50].mean(), known[AT_75].mean()]), classes
