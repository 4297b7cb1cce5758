"""RLE to polygons and back.

A mask's polygons are a list of parts, a part is a list of rings, its outline first and then its holes, and a ring is an
array (K, 2) of x, y in pixels, without the first point repeated. Coordinates are continuous: a pixel at (x, y) is the
square from (x, y) to (x + 1, y + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.outlines import mask_rings, simplified
from rayseg.kernels.rle_codec import MAX_DIGITS, put_edges, reserved
from rayseg.kernels.rles import Rles, checked_hw

Part = list[np.ndarray]


def to_polygons(rles: Rles, tolerance: float = 0.0) -> list[list[Part]]:
    """For each mask its parts, exactly along pixel edges; rings int32, clockwise on the screen, holes the other way.

    `from_polygons` gives back the same mask, bit for bit. With a `tolerance` in pixels, vertices are left out that lie no
    farther than that from the ring that remains (Douglas-Peucker); a ring keeps at least 3. Parts touch at most at corners.
    Raises ValueError for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more pixels, found {tolerance}")
    runs, offsets = rles.runs()
    masks = []
    for i in range(len(rles)):
        points, ring_offsets, parts = mask_rings(runs[offsets[i] : offsets[i + 1]], max(rles.image_hw[0], 1))
        if tolerance > 0:
            points, ring_offsets = simplified(points, ring_offsets, float(tolerance))
        masks.append(_nested(points, ring_offsets.tolist(), parts.tolist()))
    return masks


def from_polygons(masks: Sequence[Sequence[Sequence[np.ndarray]]], image_hw: tuple[int, int]) -> Rles:
    """RLEs of masks given as parts of rings: a pixel is inside where its centre is.

    Within a part the even-odd rule holds, so its holes may run either way; a mask is the union of its parts. Edges take
    centres on their left or top, not on their right or bottom. What lies outside the image is cut off.
    Raises ValueError where a ring is not (K, 2) finite numbers.
    """
    height, width = checked_hw(image_hw)
    rings = [_checked_ring(ring) for parts in masks for rings in parts for ring in rings]
    points = np.concatenate([np.empty((0, 2)), *rings])
    ring_offsets = _offsets([len(ring) for ring in rings])
    part_offsets = _offsets([len(part) for parts in masks for part in parts])
    mask_offsets = _offsets([len(parts) for parts in masks])
    counts, offsets = _fill(points, ring_offsets, part_offsets, mask_offsets, height, width)
    return Rles(counts, offsets, (height, width))


def _nested(points: np.ndarray, ring_offsets: list[int], parts: list[int]) -> list[Part]:
    """Rings of one mask as lists by part."""
    nested: list[Part] = []
    for k, part in enumerate(parts):
        if part == len(nested):
            nested.append([])
        nested[part].append(points[ring_offsets[k] : ring_offsets[k + 1]])
    return nested


def _checked_ring(ring: np.ndarray) -> np.ndarray:
    values = np.asarray(ring, np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        raise ValueError(f"a ring must be (K, 2) finite numbers, found shape {values.shape}")
    return values


def _offsets(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@kernel
def _fill(points, ring_offsets, part_offsets, mask_offsets, height, width):
    """Counts and offsets of all masks."""
    counts, offsets = np.empty(4096, np.uint8), np.zeros(len(mask_offsets), np.int64)
    edges = np.empty(4096, np.int64)
    begins = np.empty(len(part_offsets), np.int64)
    for i in range(len(mask_offsets) - 1):
        first, last = mask_offsets[i], mask_offsets[i + 1]
        found = 0
        for part in range(first, last):
            begins[part - first] = found
            for ring in range(part_offsets[part], part_offsets[part + 1]):
                ring_points = points[ring_offsets[ring] : ring_offsets[ring + 1]]
                edges, found = _ring_edges(ring_points, height, width, edges, found)
            edges[begins[part - first] : found].sort()
        begins[last - first] = found
        if last - first > 1:
            found = _unite(edges, begins[: last - first + 1])
        counts = reserved(counts, offsets[i], (found + 2) * MAX_DIGITS)
        offsets[i + 1] = put_edges(counts, offsets[i], edges[:found], height * width)
    return counts[: offsets[-1]].copy(), offsets


@kernel
def _ring_edges(points, height, width, edges, found):
    """Append where the sides of one ring cross the columns' centres. Returns `edges`, or a longer array, and their number."""
    for k in range(len(points)):
        xa, ya = points[k - 1, 0], points[k - 1, 1]
        xb, yb = points[k, 0], points[k, 1]
        if xa > xb:
            xa, ya, xb, yb = xb, yb, xa, ya
        begin = max(math.ceil(max(xa, -1.0) - 0.5), 0)
        end = min(math.ceil(min(xb, width + 1.0) - 0.5), width)
        edges = reserved(edges, found, max(end - begin, 0))
        for x in range(begin, end):
            y = ya + (x + 0.5 - xa) / (xb - xa) * (yb - ya)
            row = math.ceil(min(max(y, 0.0), height + 1.0) - 0.5)
            edges[found] = x * height + min(max(row, 0), height)
            found += 1
    return edges, found


@kernel
def _unite(edges, begins):
    """Turn the sorted edges of several parts, from `begins[p]` to `begins[p + 1]`, into those of their union, in place."""
    found = begins[-1]
    steps = np.empty(found, np.int64)
    for part in range(len(begins) - 1):
        for k in range(begins[part], begins[part + 1]):
            steps[k] = 1 - 2 * ((k - begins[part]) % 2)
    order = np.argsort(edges[:found], kind="mergesort")
    places, count, depth, k = edges[:found][order], 0, 0, 0
    while k < found:
        place, before = places[k], depth
        while k < found and places[k] == place:
            depth += steps[order[k]]
            k += 1
        if (before > 0) != (depth > 0):
            edges[count] = place
            count += 1
    return count
