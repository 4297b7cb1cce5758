"""Two evaluations of the same ground truth: is B better than A, or is it chance?

The images are drawn anew, the same ones for both, and the interval is that of the difference: an image that is hard for both
then adds nothing to it, so that the interval is far narrower than the two models' own would suggest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rayseg.errors import UsageError
from rayseg.evaluation import bootstrap
from rayseg.evaluation.match_files import Matches, matches_of, read_matches
from rayseg.evaluation.metrics import Interval, Metrics, plain
from rayseg.evaluation.numbers import AT_50, AT_75, MEASURES, Measure
from rayseg.evaluation.ranked import Ranked, weighted_averages

Verdict = Literal["B is better", "A is better", "within chance", "undefined"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of both, B less A with its interval, and the share of draws in which B is ahead."""

    a: float | None
    b: float | None
    difference: float | None
    interval: Interval | None
    ahead: float | None

    @property
    def verdict(self) -> Verdict:
        """What the interval says: it leaves out zero, or it does not."""
        if self.interval is None:
            return "undefined"
        low, high = self.interval
        return "B is better" if low > 0 else "A is better" if high < 0 else "within chance"


@dataclass(frozen=True, slots=True)
class Comparison:
    """By measure and metric, and AP of each class by the primary measure."""

    a: str
    b: str
    images: int
    primary: Measure
    measures: dict[Measure, dict[str, Difference]]
    classes: dict[str, Difference]
    draws: int
    confidence: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is undefined."""

        def one(difference: Difference) -> dict[str, Any]:
            return {**plain(difference), "verdict": difference.verdict}

        return {
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "primary": self.primary,
            "measures": {name: {key: one(d) for key, d in rows.items()} for name, rows in self.measures.items()},
            "classes": {name: one(d) for name, d in self.classes.items()},
            "settings": {"draws": self.draws, "confidence": self.confidence, "seed": self.seed},
        }

    def text(self) -> str:
        """A table for the terminal."""
        percent = f"{100 * self.confidence:g} %"
        lines = [f"A  {self.a}", f"B  {self.b}", f"{self.images:,} images, {self.draws:,} paired draws", ""]
        lines.append(f"{'':16}{'A':>8}{'B':>8}{'B - A':>9}   {percent + ' interval':20}")
        for measure, rows in self.measures.items():
            for name, difference in rows.items():
                lines.append(f"{measure + ' ' + name:16}{_line(difference)}")
        return "\n".join(lines)


def compare(
    a: str | Metrics,
    b: str | Metrics,
    *,
    names: tuple[str, str] = ("A", "B"),
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
) -> Comparison:
    """Compare two evaluations, each the output folder of one or what `evaluate` returned.

    Raises `UsageError` where they are not of the same images, classes and truths, or a folder holds none.
    """
    first, second = (
        read_matches(one) if isinstance(one, str) else matches_of(name, one)
        for one, name in zip((a, b), names, strict=True)
    )
    measures = [name for name in MEASURES if name in first.ranks and name in second.ranks]
    for measure in measures:
        _check_same(first, second, measure)
    images = len(first.images)
    ranks = [one.ranks[measure] for measure in measures for one in (first, second)]
    drawn = bootstrap.draws(ranks, images, draws, seed, threads)
    whole = [_values(one, images) for one in ranks]
    differences, classes, primary = {}, {}, first.primary if first.primary in measures else measures[0]
    for k, measure in enumerate(measures):
        (values_a, classes_a), (values_b, classes_b) = whole[2 * k : 2 * k + 2]
        drawn_a, drawn_b = drawn[2 * k : 2 * k + 2]
        differences[measure] = {
            metric: _difference(values_a[i], values_b[i], drawn_a.metrics[:, i], drawn_b.metrics[:, i], confidence)
            for i, metric in enumerate(bootstrap.DRAWN)
        }
        if measure == primary:
            classes = {
                name: _difference(classes_a[i], classes_b[i], drawn_a.classes[:, i], drawn_b.classes[:, i], confidence)
                for i, name in enumerate(first.classes)
            }
    return Comparison(first.name, second.name, images, primary, differences, classes, draws, confidence, seed)


def _check_same(a: Matches, b: Matches, measure: Measure) -> None:
    """Raise unless both were measured against the same truths."""
    if a.classes != b.classes:
        raise UsageError(f"{a.name} and {b.name} are not of the same classes: {a.classes[:5]} and {b.classes[:5]}")
    if a.images != b.images:
        raise UsageError(
            f"{a.name} and {b.name} are not of the same images: {len(a.images):,} and {len(b.images):,} of them"
        )
    of_a, of_b = (_truths(one.ranks[measure], len(a.images)) for one in (a, b))
    if not np.array_equal(of_a, of_b):
        raise UsageError(
            f"{a.name} and {b.name} have different truths: {int(of_a.sum()):,} and {int(of_b.sum()):,} of them, "
            f"or of other images or classes: evaluate both against the same ground truth"
        )


def _truths(ranks: Ranked, images: int) -> np.ndarray:
    """How many truths that count each image has of each class: (I * K,) int64."""
    counted = ~ranks.hidden[:, 0]
    cells = ranks.truth_images[counted].astype(np.int64) * ranks.classes + ranks.truth_classes[counted]
    return np.bincount(cells, minlength=images * ranks.classes)


def _values(ranks: Ranked, images: int) -> tuple[list[float], np.ndarray]:
    """AP, AP50, AP75 and AP of each class."""
    averages = weighted_averages(ranks, np.ones(images))
    known = averages[:, ~np.isnan(averages[0])]
    if not known.shape[1]:
        return [float("nan")] * len(bootstrap.DRAWN), averages.mean(axis=0)
    return [float(known.mean()), float(known[AT_50].mean()), float(known[AT_75].mean())], averages.mean(axis=0)


def _difference(a: float, b: float, drawn_a: np.ndarray, drawn_b: np.ndarray, confidence: float) -> Difference:
    if np.isnan(a) or np.isnan(b):
        return Difference(_known(a), _known(b), None, None, None)
    drawn = drawn_b - drawn_a
    known = drawn[~np.isnan(drawn)]
    ahead = float((known > 0).mean() + (known == 0).mean() / 2) if len(known) else None
    return Difference(float(a), float(b), float(b - a), bootstrap.interval(drawn, float(b - a), confidence), ahead)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _line(one: Difference) -> str:
    if one.difference is None or one.a is None or one.b is None:
        return f"{'n/a':>8}{'n/a':>8}"
    interval = f"[{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]" if one.interval else "n/a"
    return f"{one.a:8.3f}{one.b:8.3f}{one.difference:+9.3f}   {interval:20}{one.verdict}"
