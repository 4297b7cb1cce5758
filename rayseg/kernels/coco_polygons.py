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
    xs, ys = np.empty(corners + 1, np.int64), np.empty(corners + 1, np.int64)
    for k in range(corners):
        xs[k], ys[k] = int(_FINER * ring[k, 0] + 0.5), int(_FINER * ring[k, 1] + 0.5)
    xs[corners], ys[corners] = xs[0], ys[0]
    edges, found = np.empty(64, np.int64), 0
    for k in range(corners):
        dx, dy = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
        if dx == 0:
            continue  # it stays in its column
        across = abs(dx) >= abs(dy)
        steps = abs(dx) if across else abs(dy)
        backwards = dx < 0 if across else dy < 0  # a side is drawn from its lower end, on which rounding depends
        x0, y0 = (xs[k + 1], ys[k + 1]) if backwards else (xs[k], ys[k])
        slope = np.float64(ys[k] + ys[k + 1] - 2 * y0 if across else xs[k] + xs[k + 1] - 2 * x0) / steps
        last_x, last_y = xs[k], ys[k]
        for step in range(1, steps + 1):
            t = steps - step if backwards else step
            if across:
                x, y = x0 + t, int(y0 + slope * t + 0.5)
            else:
                x, y = int(x0 + slope * t + 0.5), y0 + t
            if x != last_x:
                edge = _edge(x, y, last_x, last_y, height, width)
                if edge >= 0:
                    edges = reserved(edges, found, 1)
                    edges[found] = edge
                    found += 1
            last_x, last_y = x, y
    return _cancelled(np.sort(edges[:found]), height * width)


@kernel
def _edge(x, y, last_x, last_y, height, width):
    """The flat index where a step between two grid columns crosses the middle of a pixel's column, -1 where it does not."""
    left = min(x, last_x) if x < last_x else x - 1
    column = (left + 0.5) / _FINER - 0.5
    if math.floor(column) != column or column < 0 or column > width - 1:
        return np.int64(-1)
    row = (min(y, last_y) + 0.5) / _FINER - 0.5
    row = math.ceil(min(max(row, 0.0), np.float64(height)))
    return np.int64(column) * height + np.int64(row)


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
