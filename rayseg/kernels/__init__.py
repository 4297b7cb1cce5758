"""Kernels: suppression, grids to RLE, dense masks to RLE, polygons, clean-up. numpy and numba only.

A name is loaded, and its code compiled or taken from the cache, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayseg.kernels.dense import encode as encode
    from rayseg.kernels.dense import encode_id_map as encode_id_map
    from rayseg.kernels.grids import paste_rle as paste_rle
    from rayseg.kernels.grids import resize_rle as resize_rle
    from rayseg.kernels.mask_suppression import mask_ious as mask_ious
    from rayseg.kernels.mask_suppression import mask_nms as mask_nms
    from rayseg.kernels.polygons import from_polygons as from_polygons
    from rayseg.kernels.polygons import to_polygons as to_polygons
    from rayseg.kernels.refinement import drop_islands as drop_islands
    from rayseg.kernels.refinement import fill_holes as fill_holes
    from rayseg.kernels.refinement import keep_largest as keep_largest
    from rayseg.kernels.refinement import smooth as smooth
    from rayseg.kernels.rles import RleCheck as RleCheck
    from rayseg.kernels.rles import Rles as Rles
    from rayseg.kernels.rles import check_rle as check_rle
    from rayseg.kernels.roi_crops import roi_align as roi_align
    from rayseg.kernels.soft_suppression import fast_nms as fast_nms
    from rayseg.kernels.soft_suppression import matrix_nms as matrix_nms
    from rayseg.kernels.soft_suppression import soft_nms as soft_nms
    from rayseg.kernels.suppression import batched_nms as batched_nms
    from rayseg.kernels.suppression import nms as nms
    from rayseg.kernels.threads import map_images as map_images
    from rayseg.kernels.warming import warm_up as warm_up

_MODULES = {
    "dense": ("encode", "encode_id_map"),
    "grids": ("paste_rle", "resize_rle"),
    "mask_suppression": ("mask_ious", "mask_nms"),
    "polygons": ("from_polygons", "to_polygons"),
    "refinement": ("drop_islands", "fill_holes", "keep_largest", "smooth"),
    "rles": ("RleCheck", "Rles", "check_rle"),
    "roi_crops": ("roi_align",),
    "soft_suppression": ("fast_nms", "matrix_nms", "soft_nms"),
    "suppression": ("batched_nms", "nms"),
    "threads": ("map_images",),
    "warming": ("warm_up",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
