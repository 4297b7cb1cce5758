"""What goes wrong, by kind, and the AP that each kind costs: Bolya et al., "TIDE", 2020.

A detection that hits nothing at IoU .50 has the wrong class, the wrong place, both, comes after a better one for the same
truth, or lies on background; a truth that nothing hits, and that no wrong class or place would have hit, is missed. The cost
of a kind is what AP at IoU .50 would gain if only that kind were put right: a wrong class or place becomes a hit where its
truth is free and no better detection of either kind lays claim to it, else it goes; the others go; missed truths go.

Shapes: D detections, G truths, K classes.
"""

from __future__ import annotations

import numpy as np

from rayseg.evaluation.numbers import RECALLS
from rayseg.evaluation.records import Records
from rayseg.kernels import ranking
from rayseg.kernels.matching import BACKGROUND, BOTH, CLASS, DUPLICATE, PLACE

KINDS: dict[str, int] = {
    "class": CLASS,
    "localisation": PLACE,
    "both": BOTH,
    "duplicate": DUPLICATE,
    "background": BACKGROUND,
}
MISSED = "missed"


def error_kinds(records: Records, classes: int, order: np.ndarray) -> dict[str, dict[str, float | int | None]]:
    """For each kind its `count` and `ap_cost`, None where no class has truths; "missed" last.

    `order` (I,) int64 is each image's place in the COCO API's order of images.
    """
    oracle = _Oracle(records, classes, order)
    kinds = {
        name: {"count": int((oracle.kinds == code).sum()), "ap_cost": oracle.cost(code)} for name, code in KINDS.items()
    }
    return {**kinds, MISSED: {"count": int(oracle.missed().sum()), "ap_cost": oracle.cost_of_missed()}}


class _Oracle:
    """AP at IoU .50 with one kind of error put right."""

    def __init__(self, records: Records, classes: int, order: np.ndarray) -> None:
        detections, found = records.detections, records.found[records.primary]
        self._classes, self._order, self._detections = classes, order, detections
        self.kinds, self.targets = detections.kinds, detections.targets
        self._hit = (found.matched[:, 0] & 1).astype(bool)
        self._ignored = (found.ignored[:, 0] & 1).astype(bool)
        self._counted = ~found.hidden[:, 0]
        self._truth_classes = records.truths.classes
        self._used = np.zeros(len(records.truths), bool)
        self._used[found.truths[found.truths >= 0]] = True
        self._sorted = self._ranking(np.arange(len(detections)), detections.classes)
        everything = np.ones(len(detections), bool)
        self._base = self._ap(everything, self._hit, detections.classes, self._counted)

    def missed(self) -> np.ndarray:
        """Truths (G,) bool that nothing hits, nor would with another class or place."""
        claimed = self._used.copy()
        claimed[self.targets[np.isin(self.kinds, (CLASS, PLACE))]] = True
        return self._counted & ~claimed

    def cost(self, kind: int) -> float | None:
        """The AP that detections of `kind` cost."""
        of_kind = self.kinds == kind
        kept, hit, labels = ~of_kind, self._hit, self._detections.classes
        if kind in (CLASS, PLACE):
            best = self._best_claims(of_kind)
            hit, kept = hit.copy(), kept.copy()
            hit[best], kept[best] = True, True
            if kind == CLASS:
                labels = labels.copy()
                labels[best] = self._truth_classes[self.targets[best]]
        return self._gain(self._ap(kept, hit, labels, self._counted))

    def cost_of_missed(self) -> float | None:
        """The AP that missed truths cost."""
        everything = np.ones(len(self.kinds), bool)
        return self._gain(self._ap(everything, self._hit, self._detections.classes, self._counted & ~self.missed()))

    def _best_claims(self, of_kind: np.ndarray) -> np.ndarray:
        """Of the detections that would hit a free truth with another class or place, the best for each: those `of_kind`."""
        rows = np.flatnonzero(np.isin(self.kinds, (CLASS, PLACE)))
        rows = rows[~self._used[self.targets[rows]]]
        rows = rows[np.argsort(-self._detections.scores[rows], kind="stable")]
        _, first = np.unique(self.targets[rows], return_index=True)
        best = rows[first]
        return best[of_kind[best]]

    def _ranking(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """`rows` by class as `labels` (D,) has it, and falling score."""
        detections = self._detections
        images = self._order[detections.images[rows]]
        return rows[np.lexsort((detections.places[rows], images, -detections.scores[rows], labels[rows]))]

    def _gain(self, value: float | None) -> float | None:
        return None if value is None or self._base is None else value - self._base

    def _ap(self, kept: np.ndarray, hit: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> float | None:
        counting = kept & ~self._ignored
        if labels is self._detections.classes:
            rows = self._sorted[counting[self._sorted]]
        else:
            rows = self._ranking(np.flatnonzero(counting), labels)
        truths = np.bincount(self._truth_classes[counted], minlength=self._classes).astype(np.float64)
        averages = ranking.average_precisions(
            np.searchsorted(labels[rows], np.arange(self._classes + 1)).astype(np.int64),
            np.zeros(len(rows), np.int32),
            hit[rows].astype(np.uint16),
            np.zeros(len(rows), np.uint16),
            np.ones(1),
            truths,
            RECALLS,
            1,
        )[0]
        return float(averages[averages >= 0].mean()) if (averages >= 0).any() else None
