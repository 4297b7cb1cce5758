"""Overlap of masks and their suppression, on run lengths: nothing is decoded.

A mask is a rising list of spans, flat column-major ranges of pixels. Two masks are walked together over the columns that
both cover; pairs whose boxes or areas rule the threshold out are not walked at all.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.ordering import descending_order
from rayseg.kernels.rle_codec import decompress_counts
from rayseg.kernels.rles import Rles
from rayseg.kernels.suppression import checked_classes


class Spans(NamedTuple):
    """Masks as spans: mask i has `begins` and `ends` (flat int64) from `offsets[i]` to `offsets[i + 1]`."""

    begins: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    areas: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (N, 4) int64, x1 y1 x2 y2, ends left out


def mask_ious(first: Rles, second: Rles, crowd: np.ndarray | None = None) -> np.ndarray:
    """IoU of every mask of `first` (N) with every one of `second` (K): (N, K) float64, pycocotools.mask.iou's values.

    Where `crowd` (K,) bool is set, the overlap is divided by the first mask's area alone.
    Raises ValueError where the image sizes or the length of `crowd` differ.
    """
    if first.image_hw != second.image_hw:
        raise ValueError(f"masks are of different images: {first.image_hw} and {second.image_hw} pixels")
    crowds = np.zeros(len(second), bool) if crowd is None else np.asarray(crowd, bool)
    if crowds.shape != (len(second),):
        raise ValueError(f"crowd must be ({len(second)},), one per mask of the second record, found {crowds.shape}")
    height = max(first.image_hw[0], 1)
    return _ious(_spans(first.counts, first.offsets, height), _spans(second.counts, second.offsets, height), crowds)


def mask_nms(
    rles: Rles,
    scores: np.ndarray,
    threshold: float,
    *,
    classes: np.ndarray | None = None,
    measure: Literal["iou", "containment"] = "iou",
) -> np.ndarray:
    """Indices of the masks that stay, int64, best score first, ties by lower index.

    A mask goes when a better one that stayed (of its class, where `classes` (N,) are given) overlaps it by more than
    `threshold`: by IoU, or by the share of its own area that lies inside the better one ("containment").
    Raises ValueError for shapes that do not fit or another measure.
    """
    values = np.ascontiguousarray(scores, np.float32)
    if values.shape != (len(rles),):
        raise ValueError(f"scores must be ({len(rles)},), one per mask, found {values.shape}")
    if measure not in ("iou", "containment"):
        raise ValueError(f"measure must be 'iou' or 'containment', found {measure!r}")
    labels = np.zeros(len(rles), np.int64) if classes is None else checked_classes(classes, len(rles))
    height = max(rles.image_hw[0], 1)
    return _mask_nms(rles.counts, rles.offsets, height, values, labels, float(threshold), measure == "containment")


@kernel
def _spans(counts, count_offsets, height):
    """`Spans` of compressed masks."""
    runs, run_offsets = decompress_counts(counts, count_offsets)
    n = len(run_offsets) - 1
    begins, ends = np.empty(len(runs), np.int64), np.empty(len(runs), np.int64)
    offsets, areas, boxes = np.zeros(n + 1, np.int64), np.zeros(n, np.int64), np.zeros((n, 4), np.int64)
    count = 0
    for i in range(n):
        position = np.int64(0)
        top, bottom = height, np.int64(0)
        for k in range(run_offsets[i], run_offsets[i + 1]):
            if (k - run_offsets[i]) % 2 == 1 and runs[k] > 0:
                begins[count], ends[count] = position, position + runs[k]
                areas[i] += runs[k]
                y = position % height
                top, bottom = min(top, y), max(bottom, min(y + runs[k], height))
                if y + runs[k] > height:
                    top, bottom = np.int64(0), height
                count += 1
            position += runs[k]
        if areas[i] > 0:
            boxes[i, 0], boxes[i, 1] = begins[offsets[i]] // height, top
            boxes[i, 2], boxes[i, 3] = (ends[count - 1] - 1) // height + 1, bottom
        offsets[i + 1] = count
    return Spans(begins, ends, offsets, areas, boxes)


@kernel
def _ious(first, second, crowd):
    """See `mask_ious`."""
    ious = np.zeros((len(first.areas), len(second.areas)), np.float64)
    for i in range(len(first.areas)):
        for j in range(len(second.areas)):
            if _box_overlap(first.boxes, i, second.boxes, j) == 0:
                continue
            shared = _overlap(first.begins, first.ends, first.offsets, i, second.begins, second.ends, second.offsets, j)
            union = first.areas[i] if crowd[j] else first.areas[i] + second.areas[j] - shared
            if shared > 0:
                ious[i, j] = shared / union
    return ious


@kernel
def _mask_nms(counts, count_offsets, height, scores, classes, threshold, containment):
    """See `mask_nms`."""
    spans = _spans(counts, count_offsets, height)
    begins, ends, offsets, areas, boxes = spans.begins, spans.ends, spans.offsets, spans.areas, spans.boxes
    order = descending_order(scores)
    gone = np.zeros(len(order), np.bool_)
    kept, count = np.empty(len(order), np.int64), 0
    for place in range(len(order)):
        i = order[place]
        if gone[i]:
            continue
        kept[count] = i
        count += 1
        for j in order[place + 1 :]:
            if gone[j] or classes[i] != classes[j]:
                continue
            most = min(_box_overlap(boxes, i, boxes, j), areas[i], areas[j])
            if most == 0 or most / (areas[j] if containment else areas[i] + areas[j] - most) <= threshold:
                continue
            shared = _overlap(begins, ends, offsets, i, begins, ends, offsets, j)
            gone[j] = shared / (areas[j] if containment else areas[i] + areas[j] - shared) > threshold
    return kept[:count].copy()


@kernel
def _box_overlap(boxes_a, i, boxes_b, j):
    """Pixels that two boxes share."""
    w = min(boxes_a[i, 2], boxes_b[j, 2]) - max(boxes_a[i, 0], boxes_b[j, 0])
    h = min(boxes_a[i, 3], boxes_b[j, 3]) - max(boxes_a[i, 1], boxes_b[j, 1])
    return w * h if w > 0 and h > 0 else np.int64(0)


@kernel
def _overlap(begins_a, ends_a, offsets_a, i, begins_b, ends_b, offsets_b, j):
    """Pixels that two masks, neither empty, share."""
    a, last_a = offsets_a[i], offsets_a[i + 1]
    b, last_b = offsets_b[j], offsets_b[j + 1]
    a = _skip(ends_a, a, last_a, begins_b[b])
    if a < last_a:
        b = _skip(ends_b, b, last_b, begins_a[a])
    shared = np.int64(0)
    while a < last_a and b < last_b:
        end_a, end_b = ends_a[np.uint64(a)], ends_b[np.uint64(b)]
        length = min(end_a, end_b) - max(begins_a[np.uint64(a)], begins_b[np.uint64(b)])
        shared += length if length > 0 else 0
        a += end_a <= end_b  # no branch: which one ends first cannot be guessed
        b += end_b <= end_a
    return shared


@kernel
def _skip(ends, low, high, begin):
    """The first of the rising `ends` from index low to high that lies behind `begin`."""
    while low < high:
        middle = (low + high) // 2
        if ends[middle] <= begin:
            low = middle + 1
        else:
            high = middle
    return low
