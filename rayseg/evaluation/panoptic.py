"""Panoptic quality, where the data allow: Kirillov et al., "Panoptic Segmentation", 2019.

The measure is defined for segments that do not overlap. So the truths of every image must be disjoint; where two share a
pixel there is no panoptic truth and no number. Predictions, which do overlap, are made disjoint as that paper does: those of
at least a score, best first, each loses the pixels that better ones have, and goes where less than half remains.

Matching is panopticapi's: a segment and a truth of one class with IoU above 1/2, pixels of no truth (void) left out of the
union; a prediction more than half of which is void, or void and crowd of its class, is not counted. A crowd is not missed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rayseg.evaluation.columns import CROWD, UNMEASURED, Columns
from rayseg.evaluation.shards import Shard
from rayseg.kernels import Rles, mask_ious
from rayseg.kernels.disjoint import made_disjoint

SCORE = 0.5
_KEPT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PanopticSums:
    """By class (K,): sum of IoUs, hits, false ones, missed ones; pixels of all images and those of truths.

    overlapping  rank of an image in which truths overlap or have no mask, -1 for none: with one, there is no such quality
    """

    ious: np.ndarray
    hits: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    overlapping: int = -1
    pixels: int = 0
    labelled: int = 0

    @classmethod
    def none(cls, classes: int) -> PanopticSums:
        hits, false, missed = (np.zeros(classes, np.int64) for _ in range(3))
        return cls(np.zeros(classes), hits, false, missed)

    def __add__(self, other: PanopticSums) -> PanopticSums:
        return PanopticSums(
            self.ious + other.ious,
            self.hits + other.hits,
            self.false + other.false,
            self.missed + other.missed,
            max(self.overlapping, other.overlapping),
            self.pixels + other.pixels,
            self.labelled + other.labelled,
        )


def panoptic_sums(shard: Shard, classes: int, score: float) -> PanopticSums:
    """The sums over a shard's images, up to the first whose truths overlap; predictions of at least `score` count."""
    sums = PanopticSums.none(classes)
    pixels = labelled = 0
    truths, dets = shard.truths, shard.detections.columns
    gt_starts, det_starts = shard.gt_starts, shard.det_starts
    for i, (height, width) in enumerate(shard.image_hws.tolist()):
        gts = np.arange(gt_starts[i], gt_starts[i + 1])
        hw = (height, width)
        masks = _rles(truths, gts, hw)
        areas = masks.areas()
        if len(gts) and (_overlap(masks) or (truths.flags[gts] & UNMEASURED).any()):
            return replace(sums, overlapping=shard.first + i)
        pixels, labelled = pixels + height * width, labelled + int(areas.sum())
        found = np.arange(det_starts[i], det_starts[i + 1])
        found = found[dets.scores[found] >= score]
        found = found[np.argsort(-dets.scores[found], kind="stable")]
        segments, kept = made_disjoint(_rles(dets, found, hw), _KEPT_SHARE)
        crowd = (truths.flags[gts] & CROWD) != 0
        _count(sums, segments, dets.classes[found[kept]], masks, truths.classes[gts], areas, crowd)
    return replace(sums, pixels=pixels, labelled=labelled)


def _count(
    sums: PanopticSums,
    segments: Rles,
    classes: np.ndarray,
    truths: Rles,
    truth_classes: np.ndarray,
    truth_areas: np.ndarray,
    crowd: np.ndarray,
) -> None:
    """Add one image."""
    areas = segments.areas()
    shared = np.rint(mask_ious(segments, truths, np.ones(len(truths), bool)) * areas[:, None])  # (N, G) pixels
    void = areas - shared.sum(axis=1)
    union = areas[:, None] + truth_areas - shared - void[:, None]
    same = classes[:, None] == truth_classes
    ious = np.where(same & ~crowd, shared / np.maximum(union, 1), 0.0)
    hit_segments, hit_truths = np.nonzero(ious > 0.5)
    np.add.at(sums.ious, classes[hit_segments], ious[hit_segments, hit_truths])
    np.add.at(sums.hits, classes[hit_segments], 1)
    missed = ~crowd
    missed[hit_truths] = False
    np.add.at(sums.missed, truth_classes[missed], 1)
    passed_over = void + (shared * (same & crowd)).sum(axis=1)
    false = passed_over <= 0.5 * areas
    false[hit_segments] = False
    np.add.at(sums.false, classes[false], 1)


def _rles(columns: Columns, rows: np.ndarray, hw: tuple[int, int]) -> Rles:
    if not len(rows):
        return Rles.empty(hw)
    if (np.diff(rows) == 1).all():
        offsets = columns.offsets[rows[0] : rows[-1] + 2]
        return Rles(columns.counts[offsets[0] : offsets[-1]], offsets - offsets[0], hw)
    return Rles.from_strings(columns.strings(rows.tolist()), hw)


def _overlap(masks: Rles) -> bool:
    """Whether two of the masks share a pixel."""
    ious = mask_ious(masks, masks)
    np.fill_diagonal(ious, 0)
    return bool(ious.any())


def panoptic_quality(sums: PanopticSums) -> dict[str, np.ndarray]:
    """`pq`, `sq` and `rq` by class (K,), NaN where a class is neither there nor predicted."""
    tried = sums.hits + (sums.false + sums.missed) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        pq = np.where(tried > 0, sums.ious / tried, np.nan)
        sq = np.where(tried > 0, np.where(sums.hits > 0, sums.ious / sums.hits, 0.0), np.nan)
        rq = np.where(tried > 0, sums.hits / tried, np.nan)
    return {"pq": pq, "sq": sq, "rq": rq}
