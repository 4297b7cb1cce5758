"""Kernels: suppression, grid-to-RLE, dense-to-RLE. numpy and numba only; a name is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayseg.kernels.dense import encode as encode
    from rayseg.kernels.grids import paste_rle as paste_rle
    from rayseg.kernels.grids import resize_rle as resize_rle
    from rayseg.kernels.suppression import batched_nms as batched_nms
    from rayseg.kernels.suppression import nms as nms
    from rayseg.kernels.rles import RleCheck as RleCheck
    from rayseg.kernels.rles import Rles as Rles
    from rayseg.kernels.rles import check_rle as check_rle

_HOMES = {
    "RleCheck": "rles",
    "Rles": "rles",
    "batched_nms": "suppression",
    "check_rle": "rles",
    "encode": "dense",
    "nms": "suppression",
    "paste_rle": "grids",
    "resize_rle": "grids",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
