"""Scores against the truth: calibration, the confusion of classes, the best threshold of each class.

Shapes: D detections, G truths, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import metrics as hot

from rayseg.evaluation.ranked import Ranked
from rayseg.evaluation.records import Records
from rayseg.kernels import ranking

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well a score says how often its detection is right (IoU .50, its class).

    ece, mce  expected and largest calibration error (Guo et al., 2017), None without detections or with scores outside 0..1
    bins      `low`, `high`, `count`, mean `score`, `precision`; None for the last two of an empty bin. A score that lies
              between two bins is of the upper one (in that paper of the lower, where 0 would be of none), 1 of the last
    """

    ece: float | None
    mce: float | None
    bins: list[dict[str, Any]]


def calibration(records: Records) -> Calibration:
    """Over all detections that count, by the primary measure."""
    found = records.found[records.primary]
    counts = (found.ignored[:, 0] & 1) == 0
    scores = records.detections.scores[counts]
    hits = (found.matched[counts, 0] & 1).astype(bool)
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return Calibration(None, None, [])
    ece, mce = hot.calibration_error(scores, hits, BINS)
    bins = [
        {
            "low": one["bin_lower"],
            "high": one["bin_upper"],
            "count": one["count"],
            "score": one["avg_confidence"] if one["count"] else None,
            "precision": one["avg_accuracy"] if one["count"] else None,
        }
        for one in hot.calibration_curve(scores, hits, BINS)
    ]
    return Calibration(ece, mce, bins)


def best_thresholds(ranks: Ranked, scores: np.ndarray) -> np.ndarray:
    """For each class score threshold, F1, precision and recall where F1 at IoU .50 is best: (K, 4), NaN for none.

    `scores` (D,) float64 of the records.
    """
    counts = (ranks.ignored[:, 0] & 1) == 0
    before = np.concatenate([[0], np.cumsum(counts)])
    hits = (ranks.matched[counts, 0] & 1).astype(bool)
    return ranking.best_f1(before[ranks.class_starts], scores[ranks.rows][counts], hits, ranks.truth_weights(0))


def best_threshold(records: Records) -> float | None:
    """The one score threshold for all classes at which F1 at IoU .50, counted over all of them, is best."""
    found = records.found[records.primary]
    rows = np.flatnonzero((found.ignored[:, 0] & 1) == 0)
    rows = rows[np.argsort(-records.detections.scores[rows], kind="stable")]
    best = ranking.best_f1(
        np.array([0, len(rows)], np.int64),
        records.detections.scores[rows],
        (found.matched[rows, 0] & 1).astype(bool),
        np.array([float((~found.hidden[:, 0]).sum())]),
    )[0, 0]
    return None if np.isnan(best) else float(best)


def confusion(records: Records, classes: int, threshold: float) -> np.ndarray:
    """(K + 1, K + 1) int64: truths of class r found as class c, by detections of at least `threshold`, at IoU .50.

    The last row is background that was taken for something, the last column what was not found. Each detection, best
    first, takes the free truth that it overlaps most, whatever its class; crowds and what lies on them count nowhere.
    """
    detections, truths = records.detections, records.truths
    hidden = records.found[records.primary].hidden[:, 0]
    shown = detections.scores >= threshold
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    hits = shown & (detections.any_class >= 0)
    np.add.at(matrix, (truths.classes[detections.any_class[hits]], detections.classes[hits]), 1)
    np.add.at(matrix[classes], detections.classes[shown & (detections.any_class == -1)], 1)
    found = np.zeros(len(truths), bool)
    found[detections.any_class[hits]] = True
    np.add.at(matrix[:, classes], truths.classes[~found & ~hidden], 1)
    return matrix
