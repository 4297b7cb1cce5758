"""Greedy non-maximum suppression, with torchvision's kept set and order."""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

# torchvision.ops.batched_nms shifts each class by an offset and runs one NMS up to this many coordinates on the CPU,
# and goes class by class above. The shift rounds coordinates, which can change what is kept, so it is repeated here.
_COORDINATE_TRICK_LIMIT = 4000


def nms(boxes_xyxy: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices of the boxes that stay, int64, best score first, ties by lower index.

    A box goes when its IoU with a better one that stayed is above `iou_threshold`.
    boxes_xyxy (N, 4) and scores (N,) floats; the result is torchvision.ops.nms', bit for bit of its float32 arithmetic.
    Raises ValueError where the shapes do not fit.
    """
    boxes, scores = _checked(boxes_xyxy, scores)
    order = _descending(scores)
    return order[_greedy(boxes[order], float(iou_threshold))]


def batched_nms(boxes_xyxy: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """`nms` within each class: indices that stay, int64, best score first, ties by lower index.

    boxes_xyxy (N, 4), scores (N,), classes (N,) ints of any value. The result is torchvision.ops.batched_nms' on the
    CPU, whichever of its two ways it takes for this number of boxes. Raises ValueError where the shapes do not fit.
    """
    boxes, scores = _checked(boxes_xyxy, scores)
    labels = np.ascontiguousarray(classes)
    if labels.shape != scores.shape:
        raise ValueError(f"classes must be ({len(scores)},), one per box, found {labels.shape}")
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    if boxes.size <= _COORDINATE_TRICK_LIMIT:
        shift = labels.astype(np.float32) * (boxes.max() + np.float32(1))
        return nms(boxes + shift[:, None], scores, iou_threshold)
    kept = np.zeros(len(boxes), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    stay = np.flatnonzero(kept)
    return stay[_descending(scores[stay])]


def _checked(boxes_xyxy: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.ascontiguousarray(boxes_xyxy, np.float32)
    values = np.ascontiguousarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes_xyxy must be (N, 4), found {boxes.shape}")
    if values.shape != (len(boxes),):
        raise ValueError(f"scores must be ({len(boxes)},), one per box, found {values.shape}")
    return boxes, values


def _descending(scores: np.ndarray) -> np.ndarray:
    """Stable order, greatest first; NaN counts as greatest, as in torch.sort."""
    return np.lexsort((-scores, ~np.isnan(scores)))


@kernel
def _greedy(boxes, iou_threshold):
    """Positions that stay of boxes (N, 4) sorted best first."""
    n = len(boxes)
    gone = np.zeros(n, np.bool_)
    kept = np.empty(n, np.int64)
    count = 0
    zero = np.float32(0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(n):
        if gone[i]:
            continue
        kept[count] = i
        count += 1
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        for j in range(i + 1, n):
            # the comparisons' order decides what NaN does; it is std::max's and std::min's
            left = boxes[j, 0] if x1 < boxes[j, 0] else x1
            top = boxes[j, 1] if y1 < boxes[j, 1] else y1
            right = boxes[j, 2] if boxes[j, 2] < x2 else x2
            bottom = boxes[j, 3] if boxes[j, 3] < y2 else y2
            w = right - left if zero < right - left else zero
            h = bottom - top if zero < bottom - top else zero
            inter = w * h
            if np.float64(inter / (areas[i] + areas[j] - inter)) > iou_threshold:
                gone[j] = True
    return kept[:count].copy()
