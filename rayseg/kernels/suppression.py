"""Greedy non-maximum suppression, with torchvision's kept set and order.

Boxes are sorted best first by a radix sort, laid out one coordinate after the other and, where classes matter, grouped by
class, so that a kept box meets the ones after it in whole vector registers and never one of another class.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.ordering import descending_order, group_by_class

# torchvision.ops.batched_nms shifts each class by an offset and runs one NMS up to this many coordinates on the CPU, and
# goes class by class above. The shift rounds coordinates, which can change what is kept, so it is repeated here.
_COORDINATE_TRICK_LIMIT = 4000


def nms(boxes_xyxy: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices of the boxes that stay, int64, best score first, ties by lower index.

    A box goes when its IoU with a better one that stayed is above `iou_threshold`. boxes_xyxy (N, 4) and scores (N,) are
    taken as float32; the result is torchvision.ops.nms' for them, NaN and empty boxes included.
    Raises ValueError where the shapes do not fit.
    """
    boxes, values = checked_boxes(boxes_xyxy, scores)
    return _nms(boxes, values, _float32_below(iou_threshold))


def batched_nms(boxes_xyxy: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """`nms` within each class: indices that stay, int64, best score first, ties by lower index.

    boxes_xyxy (N, 4), scores (N,), classes (N,) whole numbers of any value. The kept set is torchvision.ops.batched_nms'
    on the CPU, whichever of its two ways it takes for this many boxes; so is the order, but for equal scores among more
    than 1,000 boxes, which torchvision leaves to chance. Raises ValueError where the shapes do not fit.
    """
    boxes, values = checked_boxes(boxes_xyxy, scores)
    labels = checked_classes(classes, len(values))
    if len(labels) == 0:
        return np.empty(0, np.int64)
    threshold = _float32_below(iou_threshold)
    dense, n_groups = dense_classes(labels)
    if boxes.size > _COORDINATE_TRICK_LIMIT:
        return _grouped_nms(boxes, values, dense, n_groups, threshold)
    span = boxes.max() + np.float32(1)
    shifted = boxes + (labels.astype(np.float32) * span)[:, None]
    if threshold >= 0 and _classes_apart(boxes, labels, float(span)):  # below 0, boxes that only stand apart go too
        return _grouped_nms(shifted, values, dense, n_groups, threshold)
    return _nms(shifted, values, threshold)


def checked_boxes(boxes_xyxy: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and scores (N,) as contiguous float32, or a ValueError that says what does not fit."""
    boxes = np.ascontiguousarray(boxes_xyxy, np.float32)
    values = np.ascontiguousarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes_xyxy must be (N, 4), found {boxes.shape}")
    if values.shape != (len(boxes),):
        raise ValueError(f"scores must be ({len(boxes)},), one per box, found {values.shape}")
    return boxes, values


def checked_classes(classes: np.ndarray, count: int) -> np.ndarray:
    """Classes (N,) as contiguous int64, or a ValueError that says what does not fit."""
    labels = np.asarray(classes)
    if labels.shape != (count,):
        raise ValueError(f"classes must be ({count},), one per box, found {labels.shape}")
    return np.ascontiguousarray(labels, np.int64)


def dense_classes(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Classes renumbered from 0 for counting, and how many numbers there are (some may be unused)."""
    if len(labels) == 0:
        return labels, 0
    low, high = int(labels.min()), int(labels.max())
    if high - low < 4 * len(labels) + 1024:
        return (labels - low if low else labels), high - low + 1
    names, dense = np.unique(labels, return_inverse=True)
    return dense.astype(np.int64), len(names)


def _float32_below(threshold: float) -> np.float32:
    """The greatest float32 not above `threshold`: a float32 IoU is above the one exactly if it is above the other."""
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest


def _classes_apart(boxes: np.ndarray, labels: np.ndarray, span: float) -> bool:
    """Whether shifted boxes of two classes cannot overlap, even rounded: all coordinates >= 0 and shifts below 2**21."""
    return bool(boxes.min() >= 0) and labels.min() >= 0 and (int(labels.max()) + 1) * span < 2.0**21


@kernel
def _nms(boxes, scores, threshold):
    """Kept indices of one group; see `nms`."""
    order = descending_order(scores)
    return order[_survivors(boxes, order, np.array([0, len(order)]), threshold) == 0]


@kernel
def _grouped_nms(boxes, scores, classes, n_groups, threshold):
    """Kept indices with suppression inside the groups only; classes (N,) int64 in 0..n_groups-1."""
    order = descending_order(scores)
    grouped, starts = group_by_class(order, classes, n_groups)
    gone = _survivors(boxes, grouped, starts, threshold)
    stays = np.empty(len(order), np.bool_)
    for place in range(len(grouped)):
        stays[grouped[place]] = gone[place] == 0
    kept = np.empty(len(order), np.int64)
    count = 0
    for i in order:
        kept[count] = i
        count += stays[i]
    return kept[:count].copy()


@kernel
def _survivors(boxes, order, starts, threshold):
    """For boxes taken in `order`, in groups from `starts[g]` to `starts[g + 1]`: 0 where one stays (int32)."""
    n = len(order)
    x1, y1, x2, y2 = (
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
    )
    areas, gone = np.empty(n, np.float32), np.zeros(n, np.int32)
    for place in range(n):
        i = order[place]
        x1[place], y1[place], x2[place], y2[place] = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        areas[place] = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
    for g in range(len(starts) - 1):
        for place in range(starts[g], starts[g + 1]):
            if gone[place] == 0:
                _suppress(x1, y1, x2, y2, areas, gone, place, starts[g + 1], threshold)
    return gone


@kernel
def _suppress(x1, y1, x2, y2, areas, gone, i, end, threshold):
    """Mark the boxes after `i` and before `end` whose IoU with box `i` is above the threshold.

    Comparisons are std::max's and std::min's, operand by operand: that decides what NaN does. Indices are unsigned so
    that none is tested for counting from the end and the loop fills vector registers.
    """
    zero = np.float32(0)
    left, top, right, bottom, area = x1[i], y1[i], x2[i], y2[i], areas[i]
    for k in range(np.uint64(i + 1), np.uint64(end)):
        xa = x1[k] if left < x1[k] else left
        ya = y1[k] if top < y1[k] else top
        xb = x2[k] if x2[k] < right else right
        yb = y2[k] if y2[k] < bottom else bottom
        w, h = xb - xa, yb - ya
        w = w if zero < w else zero
        h = h if zero < h else zero
        overlap = w * h
        gone[k] |= np.int32(overlap / (area + areas[k] - overlap) > threshold)
