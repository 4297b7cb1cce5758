"""Several images at once: kernels release the GIL, so plain threads share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def map_images(function: Callable[..., Result], *arguments: Iterable[Any], threads: int = 1) -> list[Result]:
    """`function(*one_of_each)` for every image, in order, on up to `threads` threads.

    For example `map_images(paste_rle, grids, boxes, image_hws, threads=4)` for a batch. What `function` raises for an image
    is raised here. Raises ValueError for fewer than 1 thread, or arguments of different lengths.
    """
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, found {threads}")
    calls = list(zip(*arguments, strict=True))
    if threads == 1 or len(calls) < 2:
        return [function(*call) for call in calls]
    with ThreadPoolExecutor(min(threads, len(calls)), thread_name_prefix="rayseg-kernels") as pool:
        return list(pool.map(lambda call: function(*call), calls))
