"""Where a bilinearly enlarged grid crosses a threshold, found per source cell instead of per pixel.

The image's columns between two columns of the grid are a strip. Along a column the surface is linear inside each grid
cell, so a cell holds at most one crossing, and a cell whose four corners lie on one side of the threshold holds none in
the whole strip: those are passed over. A crossing is computed directly, for all columns of a strip at once; only where it
falls too close to a pixel's centre to be sure of the float32 rounding are pixels evaluated with torch's exact formula.
So the work grows with the outline's length, and the result is that of the dense computation, bit for bit.

An edge is a flat column-major index (x * H + y) at which the mask changes; two equal ones cancel (`rle_codec.put_edges`).
A grid (C, R) float32 is given column by column, C columns and R rows.
"""

from __future__ import annotations

import math

import numpy as np

from rayseg.kernels.bilinear import neighbour, neighbours, value_between
from rayseg.kernels.compilation import kernel
from rayseg.kernels.grid_cells import VALUE_ERROR
from rayseg.kernels.grid_strips import walk_strips
from rayseg.kernels.rle_codec import reserved


@kernel
def grid_edges(grid, window, threshold, image_height, scratch, edges):
    """Edges of one mask. Returns `edges` (int64), or a longer array where they did not fit, and their number."""
    if window.x1 >= window.x2 or window.y1 >= window.y2:
        return edges, 0
    begin, end = window.x1 - window.left, window.x2 - window.left
    neighbours(grid.shape[0], window.width, begin, end, window.small, scratch.firsts, scratch.weights)
    largest = _largest(grid)
    if not largest < np.inf or 10 * grid.shape[1] > 9 * window.height:
        return _dense_edges(grid, window, threshold, image_height, scratch, edges)
    margin = VALUE_ERROR * max(largest, abs(threshold))
    _mark_corners(grid, threshold, 2 * margin, scratch.above, scratch.below)
    _place_rows(grid.shape[1], window, scratch.starts, scratch.bases, scratch.fractions)
    return walk_strips(grid, window, threshold, margin, image_height, scratch, edges)


@kernel
def _largest(grid):
    """The largest absolute value, inf or NaN where one is. Compared as integers, in vector registers: the order is the same."""
    bits = grid.reshape(-1).view(np.int32)
    largest = np.zeros(1, np.int32)
    for k in range(np.uint64(len(bits))):
        largest[0] = max(largest[0], np.int32(bits[k] & np.int32(0x7FFFFFFF)))
    return largest.view(np.float32)[0]


@kernel
def _mark_corners(grid, threshold, margin, above, below):
    """Set the bits of corners that may lie above, and of those that may lie below the threshold."""
    high, low = threshold - margin, threshold + margin
    rows = grid.shape[1]
    for c in range(grid.shape[0]):
        for word in range(above.shape[1]):
            up, down = np.uint64(0), np.uint64(0)
            for r in range(64 * word, min(64 * word + 64, rows)):
                value = grid[np.uint64(c), np.uint64(r)]
                up |= np.uint64(value >= high) << np.uint64(r % 64)
                down |= np.uint64(value < low) << np.uint64(r % 64)
            above[c, word], below[c, word] = up, down


@kernel
def _place_rows(rows, window, starts, bases, fractions):
    """Fill in where each grid row lies in the image and which image rows, of those that show, each cell holds."""
    row_pixels = window.height / rows
    for r in range(rows):
        centre = (r + 0.5) * row_pixels - 0.5
        base = math.floor(centre)
        bases[r] = base + window.top
        fractions[r] = centre - base
        y = min(max(np.int64(bases[r]), window.y1), window.y2)
        while y > window.y1 and neighbour(rows, window.height, np.int32(y - 1 - window.top), window.small)[0] >= r:
            y -= 1
        while y < window.y2 and neighbour(rows, window.height, np.int32(y - window.top), window.small)[0] < r:
            y += 1
        starts[r] = y
    starts[rows] = window.y2


@kernel
def _dense_edges(grid, window, threshold, image_height, scratch, edges):
    """Edges of a mask pixel by pixel, for a grid that is not enlarged or holds infinite or NaN values."""
    shown = window.y2 - window.y1
    tops, weights = np.empty(shown, np.int32), np.empty(shown, np.float32)
    begin, end = window.y1 - window.top, window.y2 - window.top
    neighbours(grid.shape[1], window.height, begin, end, window.small, tops, weights)
    count = 0
    for column in range(window.x2 - window.x1):
        edges = reserved(edges, count, shown + 2)
        left, wx = np.int64(scratch.firsts[column]), scratch.weights[column]
        right = left if grid.shape[0] == window.width or left + 1 == grid.shape[0] else left + 1
        origin, inside = (window.x1 + column) * image_height + window.y1, False
        for k in range(shown):
            r = np.int64(tops[k])
            value = value_between(grid, left, right, wx, r, weights[k], window.height, window.small)
            edges[np.uint64(count)] = origin + k
            changes = (value >= threshold) != inside
            count += changes
            inside ^= changes
        edges[np.uint64(count)] = origin + shown
        count += inside
    return edges, count
