"""Polygons to RLE by the COCO API's rule, so that masks, and with them every metric, are its own to the last bit.

The rule (`rleFrPoly`, `maskApi.c` of the COCO API): corners are rounded to a grid 5 times finer; each side becomes one grid
point per step of its longer extent; where the way round passes from one grid column to the next, and that is the middle of a
pixel's column, an edge is set at the pixel row that the lower of both points comes to. Edges in column-major order are where
the mask begins and ends. A mask of several rings is their union. `kernels.from_polygons`, by contrast, asks where pixel
centres are.
"""

from __future__ import annotations

import math

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.disjoint import union_edges
from rayseg.kernels.rle_codec import MAX_DIGITS, put_edges, reserved

_FINER = 5.0


@kernel
def coco_polygon_counts(points, ring_offsets, mask_offsets, heights, widths):
    """Bytes and offsets (N + 1) of N masks, the union of rings `mask_offsets[i]` to `mask_offsets[i + 1]`.

    `points` (K, 2) float64 of all rings, ring r from `ring_offsets[r]` to `ring_offsets[r + 1]`; `heights`, `widths` (N,)
    int64 of each mask's image.
    """
    n = len(mask_offsets) - 1
    counts, offsets = np.empty(64 * n + 64, np.uint8), np.zeros(n + 1, np.int64)
    for i in range(n):
        height, width = heights[i], widths[i]
        edges = np.empty(0, np.int64)
        for r in range(mask_offsets[i], mask_offsets[i + 1]):
            ring = _ring_edges(points[ring_offsets[r] : ring_offsets[r + 1]], height, width)
            edges = union_edges(ring, edges) if r > mask_offsets[i] else ring
        counts = reserved(counts, offsets[i], (len(edges) + 2) * MAX_DIGITS)
        offsets[i + 1] = put_edges(counts, offsets[i], edges, height * width)
    return counts[: offsets[n]].copy(), offsets


@kernel
def _ring_edges(ring, height, width):
    """Rising flat indices where the inside of one ring begins and ends; equal ones cancel and are left out."""
    corners = len(ring)
    xs, ys = np.empty(corners, np.int64), np.empty(corners, np.int64)
    for k in range(corners):
        xs[k], ys[k] = int(_FINER * ring[k, 0] + 0.5), int(_FINER * ring[k, 1] + 0.5)
    edges, found = np.empty(64, np.int64), 0
    for k in range(corners):
        edges, found = _side_edges(xs[k - 1], ys[k - 1], xs[k], ys[k], height, width, edges, found)
    return _cancelled(np.sort(edges[:found]), height * width)


@kernel
def _side_edges(xa, ya, xb, yb, height, width, edges, found):
    """Append the edges of one side, a column at a time. Returns `edges`, or a longer array, and their number.

    A side is drawn from its end of lower x, or of lower y where it is steeper, as rounding depends on that. It passes the
    middle of pixel column c between the grid columns 5 c + 2 and 5 c + 3.
    """
    across = abs(xb - xa) >= abs(yb - ya)
    if xb < xa if across else yb < ya:
        xa, ya, xb, yb = xb, yb, xa, ya
    first = max(-((2 - min(xa, xb)) // 5), 0)
    last = min((max(xa, xb) - 3) // 5, width - 1)
    if last < first:
        return edges, found
    edges = reserved(edges, found, last - first + 1)
    slope = np.float64(yb - ya if across else xb - xa) / (xb - xa if across else yb - ya)
    for column in range(first, last + 1):
        left = 5 * column + 2
        if across:
            low = min(int(ya + slope * (left - xa) + 0.5), int(ya + slope * (left + 1 - xa) + 0.5))
        else:
            low = ya + _step_before(xa, slope, left, yb - ya)
        row = math.ceil(min(max((low + 0.5) / _FINER - 0.5, 0.0), np.float64(height)))
        edges[found] = column * height + np.int64(row)
        found += 1
    return edges, found


@kernel
def _step_before(x, slope, left, steps):
    """The step t of a steep side from grid column `x` after which it leaves column `left` for `left` + 1, or comes from it."""
    rising = slope > 0
    t = min(max(np.int64((left + 0.5 - x) / slope), 0), steps - 1)
    while t > 0 and (int(x + slope * t + 0.5) > left) == rising:
        t -= 1
    while t < steps - 1 and (int(x + slope * (t + 1) + 0.5) > left) != rising:
        t += 1
    return t


@kernel
def _cancelled(edges, size):
    """Rising edges without the pairs that are equal; an odd one too many closes at the end of the image."""
    kept, count, k = np.empty(len(edges) + 1, np.int64), 0, 0
    while k < len(edges):
        if k + 1 < len(edges) and edges[k + 1] == edges[k]:
            k += 2
            continue
        kept[count] = edges[k]
        count += 1
        k += 1
    if count % 2 == 1:
        kept[count] = size
        count += 1
    return kept[:count].copy()
