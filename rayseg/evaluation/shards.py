"""One shard, matched: some hundred images at once, in compiled code that holds no lock, so that shards run in threads.

Shapes: I images of the shard, D detections, G truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from rayseg.evaluation.columns import CROWD, UNMEASURED, Columns
from rayseg.evaluation.measured import Measured
from rayseg.evaluation.numbers import (
    AT_50,
    BACKGROUND_IOU,
    IOU_THRESHOLDS,
    SIZE_RANGES,
    Measure,
    boundary_distance,
)
from rayseg.evaluation.records import Detections, Found, Records, Truths
from rayseg.kernels import matching, overlaps
from rayseg.kernels.boundaries import boundary_counts


@dataclass(frozen=True, slots=True)
class Shard:
    """What is to be matched.

    first       rank of its first image
    image_hws   (I, 2) int64
    truths      by image and class; all have a mask where masks are measured
    """

    first: int
    image_hws: np.ndarray
    truths: Columns
    detections: Measured

    @property
    def det_starts(self) -> np.ndarray:
        """Where each image's detections begin: (I + 1,) int64."""
        return self.detections.columns.starts(self.first, len(self.image_hws))

    @property
    def gt_starts(self) -> np.ndarray:
        """Where each image's truths begin: (I + 1,) int64."""
        return self.truths.starts(self.first, len(self.image_hws))


def truths_of(columns: Columns, image_hws: np.ndarray, first: int, *, with_masks: bool) -> Columns:
    """The truths of a shard by image and class; those without a mask get their box's, where masks are measured."""
    columns = columns.take(np.lexsort((columns.classes, columns.images)))
    bare = np.flatnonzero((columns.flags & UNMEASURED) != 0)
    if not with_masks or not len(bare):
        return columns
    strings = columns.strings(range(len(columns)))
    for row in bare.tolist():
        hw = image_hws[columns.images[row] - first].tolist()
        if all(hw):
            strings[row] = coco_mask.frPyObjects(columns.boxes_xywh[row : row + 1], *hw)[0]["counts"]  # type: ignore[call-overload]
    changes = {
        "lengths": np.array([len(one) for one in strings], np.int64),
        "counts": np.frombuffer(b"".join(strings), np.uint8).copy(),
    }
    return Columns(**{name: changes.get(name, getattr(columns, name)) for name in Columns.__dataclass_fields__})


def match_shard(shard: Shard, measures: Sequence[Measure]) -> Records:
    """Every detection of a shard against the truths of its image, by each of `measures`, of which the first tells errors."""
    dets, gts = shard.detections.columns, shard.truths
    det_starts, gt_starts = shard.det_starts, shard.gt_starts
    places = overlaps.pair_places(det_starts, gt_starts)
    found, matrices = {}, _overlaps(shard, measures)
    kinds = targets = any_class = np.empty(0)
    for measure in measures:
        crowd = _crowd(gts, measure)
        areas = shard.detections.box_areas if measure == "bbox" else shard.detections.mask_areas
        matrix = matrices[measure]
        matched, ignored, truths = matching.match(
            matrix, places, det_starts, gt_starts, dets.classes, areas, gts.classes, gts.areas, crowd,
            IOU_THRESHOLDS, SIZE_RANGES,
        )  # fmt: skip
        at_50 = truths[:, AT_50].astype(np.int64)
        hidden = crowd[:, None] | (gts.areas[:, None] < SIZE_RANGES[:, 0]) | (gts.areas[:, None] > SIZE_RANGES[:, 1])
        found[measure] = Found(matched, ignored, at_50, _ious(matrix, places, shard, at_50), hidden)
        if measure == measures[0]:
            kinds, targets = matching.error_kinds(
                matrix, places, det_starts, gt_starts, dets.classes, gts.classes, hidden[:, 0], at_50,
                (ignored[:, 0] & 1).astype(bool), BACKGROUND_IOU, float(IOU_THRESHOLDS[AT_50]),
            )  # fmt: skip
            order = np.lexsort((dets.items, -dets.scores, dets.images))
            any_class = matching.match_any_class(
                matrix, places, det_starts, gt_starts, order, crowd, float(IOU_THRESHOLDS[AT_50])
            )
    detections = Detections(
        dets.images.astype(np.int32),
        dets.classes,
        shard.detections.ranks.astype(np.int32),
        dets.scores,
        kinds,
        targets.astype(np.int64),
        any_class.astype(np.int64),
    )
    truths = Truths(gts.images.astype(np.int32), gts.classes, gts.areas, (gts.flags & CROWD) != 0)
    return Records(detections, truths, found, measures[0])


def _crowd(gts: Columns, measure: Measure) -> np.ndarray:
    """Truths that are taken as regions to be passed over: crowds, and boxes without a mask where masks are measured."""
    return (gts.flags & (CROWD if measure == "bbox" else CROWD | UNMEASURED)) != 0


def _overlaps(shard: Shard, measures: Sequence[Measure]) -> dict[Measure, np.ndarray]:
    """The flat overlap matrices by measure."""
    dets, gts = shard.detections.columns, shard.truths
    det_starts, gt_starts = shard.det_starts, shard.gt_starts
    matrices: dict[Measure, np.ndarray] = {}
    heights, widths = shard.image_hws[:, 0].copy(), shard.image_hws[:, 1].copy()
    if "segm" in measures:
        crowd = _crowd(gts, "segm")
        det_masks, gt_masks = (dets.counts, dets.offsets), (gts.counts, gts.offsets)
        matrices["segm"] = overlaps.mask_overlaps(*det_masks, det_starts, *gt_masks, gt_starts, crowd, heights)
        if "boundary" in measures:
            distances = np.array([boundary_distance(hw) for hw in shard.image_hws], np.int64)
            sides = heights, widths, distances
            det_rims = boundary_counts(*det_masks, dets.images - shard.first, *sides)
            gt_rims = boundary_counts(*gt_masks, gts.images - shard.first, *sides)
            rims = overlaps.mask_overlaps(*det_rims, det_starts, *gt_rims, gt_starts, crowd, heights)
            matrices["boundary"] = overlaps.lesser_where_not_crowd(
                matrices["segm"].copy(), rims, det_starts, gt_starts, crowd
            )
    if "bbox" in measures:
        matrices["bbox"] = overlaps.box_overlaps(
            dets.boxes_xywh, det_starts, gts.boxes_xywh, gt_starts, _crowd(gts, "bbox")
        )
    return matrices


def _ious(matrix: np.ndarray, places: np.ndarray, shard: Shard, truths: np.ndarray) -> np.ndarray:
    """The overlap of each detection with its truth (D,), NaN for none."""
    det_starts, gt_starts = shard.det_starts, shard.gt_starts
    images = shard.detections.columns.images - shard.first
    width = (gt_starts[1:] - gt_starts[:-1])[images]
    at = places[images] + (np.arange(len(images)) - det_starts[images]) * width + truths - gt_starts[images]
    ious = np.full(len(images), np.nan)
    has = truths >= 0
    ious[has] = matrix[at[has]]
    return ious
