"""The two ways through one cell of a grid: its crossings for many columns at once, and its pixels one by one.

A grid (C, R) float32 is given column by column, C columns and R rows. Cell r lies between its rows r and r + 1.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.bilinear import blend_two, pixel_value
from rayseg.kernels.compilation import kernel
from rayseg.kernels.intrinsics import fma

NO_CHANGE, UNSURE = np.int32(-1), np.int32(-2)

# Bounds on float32 rounding: of a blended value and what is computed from it here, relative to the grid's largest; of a
# source position, relative to the grid's rows, and of a crossing computed here, relative to a cell's height in pixels.
VALUE_ERROR, POSITION_ERROR, CROSSING_ERROR = np.float32(1e-6), np.float32(2.5e-7), np.float32(5e-7)


@kernel
def cell_crossings(corners, weights, begin, columns, row_pixels, doubt, margin, place, out, at):
    """Where each of `columns` columns changes inside one cell: its first image row after the change, into `out` int32
    from index `at`.

    `NO_CHANGE` for a column that does not, `UNSURE` where a corner or a pixel lies within rounding of the threshold.
    Returns whether any is unsure.
    corners  of the cell less the threshold: top left, top right, bottom left, bottom right
    weights  float32, of the right corners, from index `begin`
    doubt    in pixels, of a crossing; `margin` is that of a value
    place    image row of the top corners as a whole number and a fraction, and the cell's first and end row
    """
    a, b, c, d = corners
    base, fraction, start, end = place
    one, zero = np.float32(1), np.float32(0)
    value_doubt = margin * row_pixels
    any_unsure = np.int32(0)
    for j in range(columns):
        wx = weights[np.uint64(begin) + np.uint64(j)]  # unsigned: no test for an index from the end, so it vectorises
        vx = one - wx
        over, under = fma(a, vx, b * wx), fma(c, vx, d * wx)
        slope = one / (over - under)
        crossing = fraction + over * slope * row_pixels
        changes = (over < zero) != (under < zero)
        near = abs(crossing - np.rint(crossing)) <= doubt + value_doubt * abs(slope)
        unsure = (abs(over) <= margin) | (abs(under) <= margin) | (changes & near)
        row = np.int32(base + np.int32(np.ceil(crossing)))
        row = start if row < start else (end if row > end else row)
        row = row if changes else NO_CHANGE
        out[np.uint64(at) + np.uint64(j)] = UNSURE if unsure else row
        any_unsure |= np.int32(unsure)
    return any_unsure != 0


@kernel
def cell_pixels(grid, left, r, wx, window, threshold, rows, inside, origin, edges, count):
    """Edges of one column in cell r, pixel by pixel, `inside` being its state before. Returns their count so far.

    rows    the cell's first and end row in the image
    origin  flat index of the column's row 0
    """
    right = left + 1 if left + 1 < grid.shape[0] else left
    for y in range(rows[0], rows[1]):
        value = pixel_value(grid, left, right, wx, window.height, y - window.top, window.small)
        if (value >= threshold) != inside:
            edges[count] = origin + y
            count += 1
            inside = not inside
    low = r + 1 if r + 1 < grid.shape[1] else r
    end = blend_two(grid[left, low], grid[right, low], wx)
    sure = abs(end - threshold) > VALUE_ERROR * max(abs(end), abs(threshold))
    if sure and (end >= threshold) != inside:
        edges[count] = origin + rows[1]  # it changes between this cell's last pixel and the next cell
        count += 1
    return count
