"""One detection at a time into rows: the checks that every source of predictions shares.

Whether an RLE decodes is found later, for many at once (`measured`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from rayseg.evaluation.columns import Rows
from rayseg.evaluation.truth import NO_BOX, Truth
from rayseg.formats.faults import Faults
from rayseg.formats.shapes import hw_fault
from rayseg.kernels import Rles


class Bad(ValueError):
    """A detection that cannot be taken; `kind` as in `Faults`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class DetectionRows:
    """Detections being gathered, each checked as it comes."""

    def __init__(self, source: str, truth: Truth, faults: Faults) -> None:
        self._source, self._truth, self._faults = source, truth, faults
        self._hws = [tuple(hw) for hw in truth.image_hws.tolist()]
        self.rows = Rows()

    def add(self, rank: int, class_id: int, score: Any, box: Any, segmentation: Any, item: int) -> None:
        """One detection: `box` x, y, width, height or None, `segmentation` in any of COCO's forms or None."""
        try:
            value = checked_score(score)
            box_xywh = NO_BOX if box is None else checked_box(box)
            rle = b"" if segmentation is None else self._rle(rank, segmentation)
            if box is None and segmentation is None:
                raise Bad("prediction", "expected a segmentation or a bbox, found neither")
        except Bad as error:
            self.fault(rank, item, error)
            return
        self.rows.add(rank, class_id, box_xywh, rle, area=math.nan, score=value, item=item)

    def _rle(self, rank: int, segmentation: Any) -> bytes:
        rle = checked_rle(segmentation, self._hws[rank])
        if not self._hws[rank][0] and isinstance(segmentation, Mapping):  # the ground truth does not say, so this is it
            self._hws[rank] = height, width = tuple(segmentation["size"])
            self._truth.image_hws[rank] = height, width
        return rle

    def fault(self, rank: int, item: int, error: Bad) -> None:
        """Tell of a detection that cannot be taken."""
        where = f"results[{item}] (image {self._truth.images.names[rank]})"
        self._faults.add(self._source, error.kind, where, str(error))


def checked_score(value: Any) -> float:
    """A finite number, or `Bad`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not math.isfinite(value):
        raise Bad("score", f"expected a finite score, found {value!r}")
    return float(value)


def checked_box(box: Any) -> tuple[float, float, float, float]:
    """Four finite numbers, width and height not negative, or `Bad`."""
    try:
        x, y, width, height = (float(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        raise Bad("box", f"expected bbox as four numbers x, y, width, height, found {str(box)[:100]}") from None
    if not (math.isfinite(x + y + width + height) and width >= 0 and height >= 0):
        raise Bad("box", f"expected finite numbers, width and height from 0, found {[x, y, width, height]}")
    return x, y, width, height


def checked_rle(segmentation: Any, image_hw: tuple[int, ...]) -> bytes:
    """The compressed RLE of a segmentation, whose size must be the image's where that is known, or `Bad`."""
    if isinstance(segmentation, list):
        return _polygons_rle(segmentation, image_hw)
    if not isinstance(segmentation, Mapping):
        raise Bad("mask", f"expected an RLE or polygons, found {str(segmentation)[:100]}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, Sequence) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise Bad("mask", f"expected an RLE with size [height, width], found {size!r}")
    hw = (size[0], size[1])
    if reason := hw_fault(hw):
        raise Bad("mask", reason)
    if any(image_hw) and hw != image_hw:
        raise Bad("mask", f"expected an RLE of {list(image_hw)} as its image has, found size {list(hw)}")
    if isinstance(counts, list):
        return canonical(counts, hw)
    if not isinstance(counts, str | bytes) or not counts:
        raise Bad("mask", f"expected RLE counts, found {str(counts)[:100]!r}")
    return counts.encode("utf-8") if isinstance(counts, str) else counts


def canonical(runs: Sequence[Any], hw: tuple[int, int]) -> bytes:
    """Run lengths, some of which may be 0, as the compressed counts that the COCO API would write, or `Bad`."""
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != hw[0] * hw[1]:
        raise Bad("mask", f"expected run lengths that cover {list(hw)} pixels, found others")
    merged = [0]
    for k, run in enumerate(runs):
        if (len(merged) - 1) % 2 == k % 2:
            merged[-1] += run
        elif run:
            merged.append(run)
    return Rles.from_coco([{"size": list(hw), "counts": merged}]).strings()[0]


def _polygons_rle(rings: list[Any], image_hw: tuple[int, ...]) -> bytes:
    if not any(image_hw):
        raise Bad("mask", "polygons need the size of the image, which is not known")
    numbers = all(
        isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0 and all(type(v) in (int, float) for v in ring)
        for ring in rings
    )
    if not rings or not numbers or not all(math.isfinite(value) for ring in rings for value in ring):
        raise Bad("mask", "expected polygons of at least 3 points of finite numbers")
    pieces = coco_mask.frPyObjects(rings, *image_hw)
    merged: Any = coco_mask.merge(pieces) if len(pieces) > 1 else pieces[0]
    return merged["counts"]
