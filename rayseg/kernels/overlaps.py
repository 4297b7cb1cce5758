"""Overlaps of the detections of many images with their truths, in one call: every detection with every truth of its image.

The values are pycocotools' to the last bit (`maskUtils.iou`): against a crowd the overlap is divided by the detection's
own area. A shard's images lie one after the other: image i has detections `det_starts[i]` to `det_starts[i + 1]` and truths
likewise; its matrix (D, G) lies row by row in the flat result from `place[i]`.

Shapes: I images, D detections and G truths of all images, P pairs.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.mask_suppression import _ious, _spans
from rayseg.kernels.rle_codec import _inspect


@kernel
def pair_places(det_starts, gt_starts):
    """Where each image's matrix begins in the flat result: (I + 1,) int64."""
    places = np.zeros(len(det_starts), np.int64)
    for i in range(len(det_starts) - 1):
        pairs = (det_starts[i + 1] - det_starts[i]) * (gt_starts[i + 1] - gt_starts[i])
        places[i + 1] = places[i] + pairs
    return places


@kernel
def mask_overlaps(det_counts, det_offsets, det_starts, gt_counts, gt_offsets, gt_starts, gt_crowd, heights):
    """IoU of masks given as compressed counts, (P,) float64; `heights` (I,) of the images in pixels."""
    places = pair_places(det_starts, gt_starts)
    overlaps = np.zeros(places[-1], np.float64)
    for i in range(len(heights)):
        if places[i] == places[i + 1]:
            continue
        height = max(heights[i], 1)
        dets = _spans(det_counts, det_offsets[det_starts[i] : det_starts[i + 1] + 1], height)
        gts = _spans(gt_counts, gt_offsets[gt_starts[i] : gt_starts[i + 1] + 1], height)
        matrix = _ious(dets, gts, gt_crowd[gt_starts[i] : gt_starts[i + 1]])
        overlaps[places[i] : places[i + 1]] = matrix.ravel()
    return overlaps


@kernel
def box_overlaps(det_boxes, det_starts, gt_boxes, gt_starts, gt_crowd):
    """IoU of boxes (D, 4) and (G, 4) float64 as x, y, width, height, (P,) float64."""
    places = pair_places(det_starts, gt_starts)
    overlaps = np.zeros(places[-1], np.float64)
    for i in range(len(det_starts) - 1):
        k = places[i]
        for d in range(det_starts[i], det_starts[i + 1]):
            for g in range(gt_starts[i], gt_starts[i + 1]):
                overlaps[k] = _box_iou(det_boxes[d], gt_boxes[g], gt_crowd[g])
                k += 1
    return overlaps


@kernel
def _box_iou(det, gt, crowd):
    width = min(det[2] + det[0], gt[2] + gt[0]) - max(det[0], gt[0])
    height = min(det[3] + det[1], gt[3] + gt[1]) - max(det[1], gt[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared, area = width * height, det[2] * det[3]
    return shared / (area if crowd else area + gt[2] * gt[3] - shared)


@kernel
def lesser_where_not_crowd(overlaps, others, det_starts, gt_starts, gt_crowd):
    """Lower each of `overlaps` (P,), in place, to that of `others` (P,), but for pairs with a crowd."""
    places = pair_places(det_starts, gt_starts)
    for i in range(len(det_starts) - 1):
        k = places[i]
        for _ in range(det_starts[i], det_starts[i + 1]):
            for g in range(gt_starts[i], gt_starts[i + 1]):
                if not gt_crowd[g]:
                    overlaps[k] = min(overlaps[k], others[k])
                k += 1
    return overlaps


@kernel
def inspect_masks(counts, offsets, heights, widths):
    """Check N masks, each against its own image's sides (N,) in pixels: `rle_codec.inspect_counts` for many images."""
    n = len(offsets) - 1
    codes, areas, boxes = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, 4), np.int64)
    for i in range(n):
        codes[i] = _inspect(counts[offsets[i] : offsets[i + 1]], heights[i], widths[i], i, areas, boxes)
    return codes, areas, boxes
