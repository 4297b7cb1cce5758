"""Bilinear interpolation with `align_corners=False`, to the last bit of torch's float32 CPU kernels.

torch has two, and this follows both, fused multiply-adds included (as compiled for CPUs with FMA, so any x86 since 2013
and every arm64): an output of up to `SMALL_OUTPUT` pixels in width + height weighs its four neighbours at once, a
larger one blends along x, then along y.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.intrinsics import fma

SMALL_OUTPUT = 128


@kernel
def neighbour(size_in, size_out, index, small):
    """First neighbour (int32) of output pixel `index` on an axis and the weight (float32) of the one after it."""
    if size_in == size_out:
        return np.int32(index), np.float32(0)
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    scale = np.float32(size_in) / np.float32(size_out)
    centre = np.float32(index) + half
    position = fma(scale, centre, -half) if small else scale * centre - half
    position = zero if position < zero else position
    first = np.int32(position)
    first = first if first < size_in else np.int32(size_in - 1)
    weight = position - np.float32(first)
    return first, (one if weight > one else weight)


@kernel
def neighbours(size_in, size_out, begin, end, small, firsts, weights):
    """`neighbour` of output pixels `begin` to `end`, into int32 `firsts` and float32 `weights`."""
    for index in range(begin, end):
        firsts[index - begin], weights[index - begin] = neighbour(size_in, size_out, np.int32(index), small)


@kernel
def blend_four(top_left, top_right, bottom_left, bottom_right, wx, wy):
    """The value between four neighbours in a small output."""
    one = np.float32(1)
    vx, vy = one - wx, one - wy
    value = fma(vy * vx, top_left, (vy * wx) * top_right)
    return fma(wy * wx, bottom_right, fma(wy * vx, bottom_left, value))


@kernel
def blend_two(first, second, weight):
    """The value between two neighbours in a large output, along x and then along y."""
    return fma(first, np.float32(1) - weight, second * weight)


@kernel
def pixel_value(grid, left, right, wx, size_out, y, small):
    """torch's value at output row `y`, between columns `left` and `right` of a grid (C, R) given column by column."""
    r, wy = neighbour(grid.shape[1], size_out, np.int32(y), small)
    return value_between(grid, left, right, wx, r, wy, size_out, small)


@kernel
def value_between(grid, left, right, wx, r, wy, size_out, small):
    """`pixel_value` where the row's first neighbour `r` and the weight `wy` of the one below are known."""
    rows = grid.shape[1]
    following = r if rows == size_out or r + 1 == rows else r + 1
    if small:
        return blend_four(grid[left, r], grid[right, r], grid[left, following], grid[right, following], wx, wy)
    top = blend_two(grid[left, r], grid[right, r], wx)
    return blend_two(top, blend_two(grid[left, following], grid[right, following], wx), wy)
