"""Single machine instructions that numba has no name for."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def _trailing_zeros(typingctx: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64, as int64; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


fma: Any = intrinsic(_fma)
trailing_zeros: Any = intrinsic(_trailing_zeros)
