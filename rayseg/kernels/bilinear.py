"""Bilinear interpolation with `align_corners=False`, to the last bit of torch's float32 CPU kernels.

torch has two, and this follows both, fused multiply-adds included (as compiled for CPUs with FMA, so any x86 since 2013
and every arm64): an output of up to `SMALL_OUTPUT` pixels in width + height weighs its four neighbours at once, a
larger one blends along x, then along y.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from rayseg.kernels.compilation import kernel

SMALL_OUTPUT = 128


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@kernel
def source_position(size_in, size_out, index, small):
    """Where output pixel `index` lies on the input's axis, in input pixels, not below 0 (float32)."""
    half = np.float32(0.5)
    scale = np.float32(size_in) / np.float32(size_out)
    centre = np.float32(index) + half
    position = fma(scale, centre, -half) if small else scale * centre - half
    return max(position, np.float32(0))


@kernel
def neighbour(size_in, size_out, index, small):
    """First neighbour (int64) of output pixel `index` and the weight (float32) of the one after it."""
    if size_in == size_out:
        return np.int64(index), np.float32(0)
    position = source_position(size_in, size_out, index, small)
    first = min(np.int64(position), size_in - 1)
    return first, min(max(position - np.float32(first), np.float32(0)), np.float32(1))


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
