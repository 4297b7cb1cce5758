"""The record of an evaluation: every number, with None where there is nothing to measure.

`to_json` is what `metrics.json` holds, `class_rows` what the CSV holds. Numbers are fractions, not percent.

Shapes: K classes, R recalls, T IoU thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayseg.evaluation.examples import Example
from rayseg.evaluation.numbers import IOU_THRESHOLDS, RECALLS, Measure
from rayseg.evaluation.records import Records

Values = dict[str, float | None]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class. `measures` has, by measure, the twelve numbers; AP's `interval` is of the primary measure.

    threshold, f1, precision, recall  the score threshold at which F1 at IoU .50 is best, and what is reached there
    mean_iou                          of the matches at IoU .50
    """

    name: str
    truths: int
    predictions: int
    measures: dict[Measure, Values]
    interval: Interval | None
    threshold: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    mean_iou: float | None
    panoptic: Values | None


@dataclass(frozen=True, slots=True)
class Panoptic:
    """PQ, SQ and RQ as means over classes, or why there are none.

    `labelled` is the share of pixels that the truths cover: the rest is void, in which nothing is counted as false.
    """

    pq: float | None
    sq: float | None
    rq: float | None
    score: float
    labelled: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """(K + 1, K + 1) counts: rows truths, the last background; columns predictions, the last missed."""

    matrix: np.ndarray
    score: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """All that `evaluate` finds.

    measures   the twelve numbers of masks ("segm"), boxes ("bbox") and boundaries ("boundary"), those that there are
    intervals  by measure and metric ("AP", "AP50", "AP75"), from drawing the images anew
    primary    the measure of everything that is told once: errors, confusion, calibration, thresholds
    curves     by measure, (T, R, K) precision at the recalls of COCO, NaN for a class without truths
    """

    classes: tuple[ClassMetrics, ...]
    measures: dict[Measure, Values]
    intervals: dict[Measure, dict[str, Interval | None]]
    primary: Measure
    mean_iou: Values
    curves: dict[Measure, np.ndarray]
    error_kinds: dict[str, dict[str, Any]]
    confusion: Confusion
    calibration: Any
    best_threshold: float | None
    panoptic: Panoptic
    counts: dict[str, Any]
    problems: tuple[str, ...]
    settings: dict[str, Any]
    examples: tuple[Example, ...] = ()
    records: Records | None = field(default=None, repr=False)
    order: np.ndarray | None = field(default=None, repr=False)
    image_names: Sequence[str] = field(default=(), repr=False)

    @property
    def segm(self) -> Values | None:
        """The twelve mask metrics; None where truths or predictions have no masks."""
        return self.measures.get("segm")

    @property
    def bbox(self) -> Values:
        """The twelve box metrics."""
        return self.measures["bbox"]

    @property
    def boundary(self) -> Values | None:
        """The twelve metrics by Boundary IoU; None where there are no masks or they were not asked for."""
        return self.measures.get("boundary")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    @property
    def class_ap(self) -> Values:
        """AP of each class by the primary measure, None for a class without truths."""
        return {one.name: one.measures[self.primary]["AP"] for one in self.classes}

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is undefined."""
        return plain(
            {
                **{name: self.measures.get(name) for name in ("segm", "bbox", "boundary")},
                "primary": self.primary,
                "intervals": self.intervals,
                "mean_iou_of_matches": self.mean_iou,
                "class_ap": self.class_ap,
                "classes": {one.name: _class_json(one) for one in self.classes},
                "error_kinds": self.error_kinds,
                "best_score_threshold": self.best_threshold,
                "calibration": self.calibration,
                "confusion": {
                    "score_threshold": self.confusion.score,
                    "rows_truth": [*self.class_names, "background"],
                    "columns_prediction": [*self.class_names, "missed"],
                    "counts": self.confusion.matrix,
                },
                "panoptic": self.panoptic,
                "curves": {name: _curve_json(one) for name, one in self.curves.items()},
                "counts": self.counts,
                "problems": self.problems,
                "settings": self.settings,
            }
        )

    def class_rows(self) -> tuple[list[str], list[list[Any]]]:
        """The header and one row per class, for a CSV; None for what is undefined."""
        columns: dict[str, list[Any]] = {
            "class": [one.name for one in self.classes],
            "truths": [one.truths for one in self.classes],
            "predictions": [one.predictions for one in self.classes],
        }
        for measure, values in self.measures.items():
            for name in values:
                columns[f"{measure}_{name}"] = [one.measures[measure][name] for one in self.classes]
        columns["ap_low"] = [one.interval and one.interval[0] for one in self.classes]
        columns["ap_high"] = [one.interval and one.interval[1] for one in self.classes]
        for name in ("mean_iou", "threshold", "f1", "precision", "recall"):
            columns[name] = [getattr(one, name) for one in self.classes]
        columns["pq"] = [one.panoptic and one.panoptic["pq"] for one in self.classes]
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """`value` as JSON takes it: numpy numbers as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _class_json(one: ClassMetrics) -> dict[str, Any]:
    own = ("truths", "predictions", "threshold", "f1", "precision", "recall", "mean_iou", "panoptic")
    return {**one.measures, "ap_interval": one.interval, **{name: getattr(one, name) for name in own}}


def _curve_json(precision: np.ndarray) -> dict[str, Any]:
    """Mean precision over classes at each recall, by IoU threshold."""
    known = precision[:, :, ~np.isnan(precision[0, 0])]
    means = known.mean(axis=2) if known.shape[2] else np.full(precision.shape[:2], np.nan)
    return {"recall": RECALLS, **{f"precision_at_iou_{t:.2f}": means[k] for k, t in enumerate(IOU_THRESHOLDS)}}
