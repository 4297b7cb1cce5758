"""Suppression that lowers scores instead of, or before, dropping boxes: soft-NMS, matrix NMS and fast NMS.

Soft-NMS: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017.
Matrix NMS: Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation", NeurIPS 2020, section 3.3.
Fast NMS: Bolya et al., "YOLACT: Real-time Instance Segmentation", ICCV 2019, section 3.3.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.ordering import descending_order, group_by_class
from rayseg.kernels.suppression import checked_boxes, checked_classes, dense_classes


def soft_nms(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    method: Literal["linear", "gaussian"] = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the boxes that stay (int64) and their lowered scores (float32), best first.

    The best box is taken, and the scores of the others (of its class, where `classes` (N,) are given) are multiplied by
    exp(-IoU^2 / sigma), or by 1 - IoU where the IoU is above `iou_threshold` ("linear"); and again, until no score is
    above `score_threshold`. IoUs are float64. Raises ValueError for shapes that do not fit, another method, sigma <= 0.
    """
    boxes, values = checked_boxes(boxes_xyxy, scores)
    _check_decay(method, sigma)
    labels = np.zeros(len(values), np.int64) if classes is None else checked_classes(classes, len(values))
    dense, n_groups = dense_classes(labels)
    kept, lowered = _soft_nms(
        boxes, values, dense, n_groups, method == "gaussian", float(iou_threshold), float(sigma), float(score_threshold)
    )
    order = descending_order(lowered)
    return kept[order], lowered[order]


def matrix_nms(
    ious: np.ndarray,
    scores: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    method: Literal["linear", "gaussian"] = "gaussian",
    sigma: float = 2.0,
) -> np.ndarray:
    """Scores (N,) float32 lowered by each mask's overlaps with better ones of its class, all at once; nothing is dropped.

    ious (N, N) in any order of scores, as `mask_ious(rles, rles)` gives them. A mask's decay is the least, over better
    masks i, of f(IoU with i) / f(the greatest IoU of i with one better still), where f is 1 - IoU ("linear") or
    exp(-sigma * IoU^2). Raises ValueError for shapes that do not fit, another method, sigma <= 0.
    """
    values = np.ascontiguousarray(scores, np.float32)
    overlaps = np.ascontiguousarray(ious, np.float64)
    _check_decay(method, sigma)
    if values.ndim != 1 or overlaps.shape != (len(values), len(values)):
        raise ValueError(f"ious must be (N, N) for scores (N,), found {overlaps.shape} and {values.shape}")
    labels = np.zeros(len(values), np.int64) if classes is None else checked_classes(classes, len(values))
    return _matrix_nms(overlaps, values, labels, method == "gaussian", float(sigma))


def fast_nms(boxes_xyxy: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices of the boxes that stay, int64, best first: those whose IoU with no better box of their class is above.

    Unlike `batched_nms`, a box that went itself still suppresses others. Raises ValueError for shapes that do not fit.
    """
    boxes, values = checked_boxes(boxes_xyxy, scores)
    dense, n_groups = dense_classes(checked_classes(classes, len(values)))
    return _fast_nms(boxes, values, dense, n_groups, float(iou_threshold))


def _check_decay(method: str, sigma: float) -> None:
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method must be 'linear' or 'gaussian', found {method!r}")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, found {sigma}")


@kernel
def _iou(boxes, i, j):
    """IoU of two boxes in float64; 0 where the union is empty."""
    w = min(np.float64(boxes[i, 2]), np.float64(boxes[j, 2])) - max(np.float64(boxes[i, 0]), np.float64(boxes[j, 0]))
    h = min(np.float64(boxes[i, 3]), np.float64(boxes[j, 3])) - max(np.float64(boxes[i, 1]), np.float64(boxes[j, 1]))
    if not (w > 0 and h > 0):
        return 0.0
    area_i = (np.float64(boxes[i, 2]) - boxes[i, 0]) * (np.float64(boxes[i, 3]) - boxes[i, 1])
    area_j = (np.float64(boxes[j, 2]) - boxes[j, 0]) * (np.float64(boxes[j, 3]) - boxes[j, 1])
    return w * h / (area_i + area_j - w * h)


@kernel
def _soft_nms(boxes, scores, classes, n_groups, gaussian, iou_threshold, sigma, score_threshold):
    """Kept indices, group after group, and their lowered scores."""
    grouped, starts = group_by_class(descending_order(scores), classes, n_groups)
    kept, lowered, count = np.empty(len(scores), np.int64), np.empty(len(scores), np.float32), 0
    current = scores.astype(np.float64)
    for g in range(n_groups):
        begin, end = starts[g], starts[g + 1]
        while begin < end:
            best = begin
            for k in range(begin + 1, end):
                if current[grouped[k]] > current[grouped[best]]:
                    best = k
            i = grouped[best]
            for k in range(best, begin, -1):  # the others keep their order: ties go to the higher original score
                grouped[k] = grouped[k - 1]
            begin += 1
            if not current[i] > score_threshold:
                break
            kept[count], lowered[count] = i, current[i]
            count += 1
            for k in range(begin, end):
                overlap = _iou(boxes, i, grouped[k])
                if gaussian:
                    current[grouped[k]] *= np.exp(-(overlap * overlap) / sigma)
                elif overlap > iou_threshold:
                    current[grouped[k]] *= 1 - overlap
    return kept[:count].copy(), lowered[:count].copy()


@kernel
def _matrix_nms(ious, scores, classes, gaussian, sigma):
    """See `matrix_nms`."""
    n = len(scores)
    order = descending_order(scores)
    worst = np.zeros(n, np.float64)  # each mask's greatest IoU with a better one of its class
    lowered = np.empty(n, np.float32)
    for place in range(n):
        j = order[place]
        decay = 1.0
        for better in order[:place]:
            if classes[better] != classes[j]:
                continue
            overlap, before = ious[better, j], worst[better]
            if gaussian:
                decay = min(decay, np.exp(-sigma * (overlap * overlap - before * before)))
            elif before < 1:
                decay = min(decay, (1 - overlap) / (1 - before))
            worst[j] = max(worst[j], overlap)
        lowered[j] = scores[j] * decay
    return lowered


@kernel
def _fast_nms(boxes, scores, classes, n_groups, iou_threshold):
    """See `fast_nms`."""
    order = descending_order(scores)
    grouped, starts = group_by_class(order, classes, n_groups)
    stays = np.ones(len(scores), np.bool_)
    for g in range(n_groups):
        for k in range(starts[g], starts[g + 1]):
            for better in range(starts[g], k):
                if _iou(boxes, grouped[better], grouped[k]) > iou_threshold:
                    stays[grouped[k]] = False
                    break
    return order[stays[order]]
