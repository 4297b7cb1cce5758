"""How every kernel here is compiled: cached on disk, without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` lazily, cached on disk, GIL released, IEEE arithmetic (no fastmath)."""
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
