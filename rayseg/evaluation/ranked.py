"""Detections ranked as COCO ranks them, and what precision and recall follow.

Shapes: D detections, K classes, I images, T IoU thresholds, R recalls, A sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayseg.evaluation.numbers import IOU_THRESHOLDS, RECALLS, Measure
from rayseg.evaluation.records import Records
from rayseg.kernels import ranking


@dataclass(frozen=True, slots=True)
class Ranked:
    """The detections of one measure by class and falling score, of equal scores the earlier image's first.

    rows          (D,) int64, their places in the records
    class_starts  (K + 1,) int64
    images        (D,) int32, by rank; `matched`, `ignored` (D, A) uint16 as in `Found`
    truth_images, truth_classes  (G,) int32, `hidden` (G, A) bool
    """

    rows: np.ndarray
    class_starts: np.ndarray
    images: np.ndarray
    places: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_images: np.ndarray
    truth_classes: np.ndarray
    hidden: np.ndarray

    @property
    def classes(self) -> int:
        return len(self.class_starts) - 1

    def truth_weights(self, size: int, weights: np.ndarray | None = None) -> np.ndarray:
        """The weight of each class's truths of a size that count, (K,) float64; of images `weights` (I,), else 1 each."""
        counted = ~self.hidden[:, size]
        of_truths = None if weights is None else weights[self.truth_images[counted]]
        return np.bincount(self.truth_classes[counted], of_truths, self.classes).astype(np.float64)


def ranked(records: Records, measure: Measure, classes: int, order: np.ndarray) -> Ranked:
    """Rank the detections; `order` (I,) int64 is each image's place in the COCO API's order of images."""
    detections, found, truths = records.detections, records.found[measure], records.truths
    images = order[detections.images]
    rows = np.lexsort((detections.places, images, -detections.scores, detections.classes))
    starts = np.searchsorted(detections.classes[rows], np.arange(classes + 1)).astype(np.int64)
    return Ranked(
        rows,
        starts,
        detections.images[rows],
        detections.places[rows],
        np.ascontiguousarray(found.matched[rows]),
        np.ascontiguousarray(found.ignored[rows]),
        truths.images,
        truths.classes,
        found.hidden,
    )


def precision_recall(
    ranks: Ranked, images: int, *, size: int = 0, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K) and recall (T, K) at a size, of the `most` best detections of each image and class.

    -1 for a class without truths: `COCOeval.accumulate`'s values.
    """
    starts, of_images, matched, ignored = _cut(ranks, size, most)
    return ranking.precision_at_recalls(
        starts, of_images, matched, ignored, np.ones(images), ranks.truth_weights(size), RECALLS, len(IOU_THRESHOLDS)
    )


def all_precision_recall(ranks: Ranked, images: int, max_dets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M) as the COCO API holds them."""
    sizes = ranks.hidden.shape[1]
    precision = np.empty((len(IOU_THRESHOLDS), len(RECALLS), ranks.classes, sizes, len(max_dets)))
    recall = np.empty((len(IOU_THRESHOLDS), ranks.classes, sizes, len(max_dets)))
    for size in range(sizes):
        for m, most in enumerate(max_dets):
            found = precision_recall(ranks, images, size=size, most=most)
            precision[..., size, m], recall[..., size, m] = found
    return precision, recall


def weighted_averages(ranks: Ranked, weights: np.ndarray) -> np.ndarray:
    """AP (T, K) over all sizes where image i counts `weights[i]` times; NaN for a class without truths."""
    averages = ranking.average_precisions(
        ranks.class_starts,
        ranks.images,
        ranks.matched[:, 0],
        ranks.ignored[:, 0],
        weights,
        ranks.truth_weights(0, weights),
        RECALLS,
        len(IOU_THRESHOLDS),
    )
    return np.where(averages < 0, np.nan, averages)


def _cut(ranks: Ranked, size: int, most: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    matched, ignored = ranks.matched[:, size], ranks.ignored[:, size]
    if most is None:
        return ranks.class_starts, ranks.images, matched, ignored
    kept = ranks.places < most
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[ranks.class_starts], ranks.images[kept], matched[kept], ignored[kept]
