"""Which object of an XML is which number of SegmentationObject.

Shapes: N numbers found in the map, K objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayseg.annotations import Box

_LEAST_INSIDE = 0.5
_LEAST_IOU = 0.5


def tie(
    numbers: Sequence[int], boxes: np.ndarray, own: Sequence[int | None], given: Sequence[Box | None]
) -> list[int | None]:
    """For each of N numbers the place of its object, or None.

    numbers   N numbers of the map
    boxes     (N, 4) float64, their tight boxes xyxy
    own       K numbers that objects give themselves, None where they give none
    given     K boxes of the objects
    """
    told = {number: place for place, number in enumerate(own) if number is not None}
    tied: list[int | None] = [told.get(number) for number in numbers]
    if told:
        return tied
    overlaps = _overlaps(boxes, given)  # (N, K, 2): share of the tight box, IoU
    for i, number in enumerate(numbers):
        if 1 <= number <= len(given) and overlaps[i, number - 1, 0] >= _LEAST_INSIDE:
            tied[i] = number - 1
    free = [k for k in range(len(given)) if k not in tied]
    pairs = [(overlaps[i, k, 1], i, k) for i in range(len(numbers)) if tied[i] is None for k in free]
    for value, i, k in sorted(pairs, key=lambda pair: -pair[0]):
        if value >= _LEAST_IOU and tied[i] is None and k in free:
            tied[i] = k
            free.remove(k)
    return tied


def _overlaps(boxes: np.ndarray, given: Sequence[Box | None]) -> np.ndarray:
    """(N, K, 2) float64: how much of each tight box lies in each object's box, and the IoU of the two."""
    others = np.array([box or (0, 0, 0, 0) for box in given], np.float64).reshape(-1, 4)
    corners = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = np.clip(corners, 0, None).prod(axis=2)
    area, other_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area[:, None] + other_area[None, :] - shared
    return np.stack([shared / np.maximum(area[:, None], 1e-9), shared / np.maximum(union, 1e-9)], axis=2)
