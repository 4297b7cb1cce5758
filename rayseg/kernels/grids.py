"""Mask grids to RLE, without a dense mask.

N instances, M grid side, H W image pixels.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.grid_edges import grid_edges
from rayseg.kernels.grid_strips import new_scratch, window_of
from rayseg.kernels.rle_codec import MAX_DIGITS, put_edges, reserved
from rayseg.kernels.rles import Rles, checked_hw


def paste_rle(grids: np.ndarray, boxes_xyxy: np.ndarray, image_hw: tuple[int, int], threshold: float = 0.5) -> Rles:
    """RLEs of N grids pasted into their boxes the way torchvision's Mask R-CNN does, inside where value >= threshold.

    grids (N, M, M) float32, boxes_xyxy (N, 4) float32 pixels. Bit for bit the result of `paste_masks_in_image`,
    `>= threshold` and pycocotools' encode. A box that is not finite or wholly outside gives an empty mask.
    Raises ValueError where shapes do not fit.
    """
    grids, height, width = _checked_grids(grids, image_hw)
    boxes = np.ascontiguousarray(boxes_xyxy, np.float32)
    if boxes.shape != (len(grids), 4):
        raise ValueError(f"boxes_xyxy must be ({len(grids)}, 4), one per grid, found {boxes.shape}")
    places, clips = _expanded_places(boxes, grids.shape[2]), np.empty((len(grids), 4), np.int64)
    clips[:] = 0, 0, width, height
    return _rles(grids, 1, places, clips, threshold, (height, width))


def resize_rle(
    grids: np.ndarray,
    image_hw: tuple[int, int],
    threshold: float = 0.5,
    *,
    regions_xyxy: np.ndarray | None = None,
    crops_xyxy: np.ndarray | None = None,
) -> Rles:
    """RLEs of N grids resized bilinearly (`align_corners=False`) to the image, inside where value >= threshold.

    grids (N, Mh, Mw) float32. `regions_xyxy` (N, 4) whole pixels: the rectangle each grid covers, where it is not the
    whole image. `crops_xyxy` (N, 4) floats: pixels whose centre lies outside are left out, as YOLACT crops to its box.
    Bit for bit torch's `interpolate` of one grid, `>= threshold` and pycocotools' encode.
    Raises ValueError where shapes do not fit.
    """
    grids, height, width = _checked_grids(grids, image_hw)
    whole = np.broadcast_to(np.array([0, 0, width, height], np.int64), (len(grids), 4)).copy()
    places = whole if regions_xyxy is None else np.ascontiguousarray(regions_xyxy, np.int64)
    clips = whole if crops_xyxy is None else _pixels_inside(np.asarray(crops_xyxy, np.float64), height, width)
    for name, rectangles in (("regions_xyxy", places), ("crops_xyxy", clips)):
        if rectangles.shape != (len(grids), 4):
            raise ValueError(f"{name} must be ({len(grids)}, 4), one per grid, found {rectangles.shape}")
    return _rles(grids, 0, places, clips, threshold, (height, width))


def _checked_grids(grids: np.ndarray, image_hw: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    height, width = checked_hw(image_hw)
    grids = np.ascontiguousarray(grids, np.float32)
    if grids.ndim != 3 or (len(grids) and 0 in grids.shape):
        raise ValueError(f"grids must be (N, M, M) with M >= 1, found {grids.shape}")
    return grids, height, width


def _expanded_places(boxes: np.ndarray, side: int) -> np.ndarray:
    """torchvision's `expand_boxes` for one pixel of padding, in whole pixels: x1, y1, x2, y2 (N, 4), ends left out."""
    return _placed(boxes, np.float32((side + 2) / max(side, 1)))


@kernel
def _placed(boxes, scale):
    places = np.zeros((len(boxes), 4), np.int64)
    half, far = np.float32(0.5), np.float32(2.0**40)
    for i in range(len(boxes)):
        for axis in range(2):
            low, high = boxes[i, axis], boxes[i, axis + 2]
            reach, centre = (high - low) * half * scale, (high + low) * half
            first, last = centre - reach, centre + reach
            if not (abs(first) < far and abs(last) < far) or np.int64(last) < 0:
                places[i] = 0  # not finite, or wholly before the image: nothing shows
                break
            places[i, axis] = np.int64(first)
            places[i, axis + 2] = max(np.int64(last) + 1, places[i, axis])
    return places


def _pixels_inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rectangles of the pixels whose centres lie in the boxes (left and top edge in, right and bottom out)."""
    limits = np.array([width, height, width, height])
    return np.clip(np.ceil(np.nan_to_num(boxes, nan=0.0, posinf=2.0**31, neginf=-(2.0**31)) - 0.5), 0, limits).astype(
        np.int64
    )


def _rles(
    grids: np.ndarray, padding: int, places: np.ndarray, clips: np.ndarray, threshold: float, hw: tuple[int, int]
) -> Rles:
    counts, offsets = _scan_grids(grids, padding, places, clips, np.float32(threshold), *hw)
    return Rles(counts, offsets, hw)


@kernel
def _scan_grids(grids, padding, places, clips, threshold, height, width):
    """Compressed counts and offsets (N + 1) of N grids (N, R, C), each framed by `padding` cells of zeros first."""
    n, rows, columns = grids.shape
    counts = np.empty(n * 512 + 64, np.uint8)
    offsets = np.zeros(n + 1, np.int64)
    edges = np.empty(4096, np.int64)
    scratch = new_scratch(columns + 2 * padding, rows + 2 * padding, width)
    turned = np.zeros((columns + 2 * padding, rows + 2 * padding), np.float32)
    written = 0
    for i in range(n):
        for r in range(rows):
            for c in range(columns):
                turned[np.uint64(padding + c), np.uint64(padding + r)] = grids[np.uint64(i), np.uint64(r), np.uint64(c)]
        edges, found = grid_edges(turned, window_of(places[i], clips[i]), threshold, height, scratch, edges)
        counts = reserved(counts, written, (found + 2) * MAX_DIGITS)
        written = put_edges(counts, written, edges[:found], height * width)
        offsets[i + 1] = written
    return counts[:written].copy(), offsets
