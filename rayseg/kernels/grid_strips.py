"""Edges of one strip: the image's columns that lie between the same two columns of a grid.

A grid (C, R) float32 is given column by column, C columns and R rows. Cell r lies between its rows r and r + 1 and holds
the image rows `starts[r]` to `starts[r + 1]`. Row r lies at image row `bases[r] + fractions[r]`.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.bilinear import blend_two, pixel_value
from rayseg.kernels.compilation import kernel
from rayseg.kernels.intrinsics import fma

LANES = 8  # columns that go through the arithmetic together: one AVX2 register of float32

# Bounds on float32 rounding with a margin of about 4: of a blended value, relative to the grid's largest; of a source
# position, relative to the grid's rows.
VALUE_ERROR = 1e-6
POSITION_ERROR = 1e-6


@kernel
def cell_crossings(grid, left, r, weights, begin, columns, row_pixels, threshold, margin, base, fraction, out):
    """Image rows at which `columns` columns change inside cell r, -1 for a column that does not.

    Writes them to `out`, in whole groups of `LANES`. Returns False where one of them is not sure: a corner or a pixel lies
    within rounding of the threshold.
    """
    right, below = min(left + 1, grid.shape[0] - 1), min(r + 1, grid.shape[1] - 1)
    a, b, c, d = grid[left, r], grid[right, r], grid[left, below], grid[right, below]
    one, zero, none = np.float32(1), np.float32(0), np.int32(-1)
    position_error = np.float32(POSITION_ERROR) * np.float32(grid.shape[1]) * row_pixels
    value_error = margin * row_pixels
    unsure = np.int32(0)
    for group in range(0, columns, LANES):
        for lane in range(LANES):
            wx = weights[begin + group + lane]
            vx = one - wx
            over = threshold - fma(a, vx, b * wx)
            under = threshold - fma(c, vx, d * wx)
            changes = (over < zero) != (under < zero)
            slope = one / (over - under)
            crossing = fraction + over * slope * row_pixels
            doubt = position_error + value_error * abs(slope)
            near = abs(crossing - np.rint(crossing)) <= doubt
            vague = (abs(over) <= margin) | (abs(under) <= margin) | (changes & near)
            unsure |= np.int32(vague) & np.int32(group + lane < columns)
            out[group + lane] = base + np.int32(np.ceil(crossing)) if changes else none
    return unsure == 0
