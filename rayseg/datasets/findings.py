"""What an inspection finds worth a look, and the checks of one image's annotations.

A finding is information, not an error: many a data set has boxes a little over the edge and trains well.
K points of a ring, H W image pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rayseg import kernels
from rayseg.annotations import AnnotatedImage, Annotation, Box, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets.measures import ring_area
from rayseg.formats.shapes import box_of
from rayseg.kernels.ring_crossings import crosses_itself

KINDS = {
    "missing_image": "the image is not where the data set says",
    "unreadable_image": "the file is there, but is no image that can be read",
    "unlocated_image": "nothing says where the image's pixels are",
    "image_size": "the annotations say another size than the image has",
    "near_duplicates_across_splits": "images that are nearly the same, in more than one split",
    "near_duplicates": "images that are nearly the same, in one split",
    "duplicate_annotation": "an annotation with the class and the shape or box of another of its image",
    "few_points": "a polygon with a ring of fewer than 3 points",
    "no_area": "a polygon with a ring that encloses nothing, an ellipse or a mask without extent",
    "self_intersecting": "a polygon with a ring whose sides cross",
    "not_finite": "coordinates that are no finite numbers",
    "broken_mask": "an RLE that does not decode, or is not of its image's size",
    "empty_box": "a box without width or height, or with its corners the wrong way round",
    "box_outside": "a box that lies wholly outside the image",
    "box_over_edge": "a box that reaches over the image's edge by more than half a pixel",
}
MAX_EXAMPLES = 100  # of a kind; more are counted, not kept
_MIN_AREA_PX = 1e-6
_TOLERANCE_PX = 0.5


class Finding(NamedTuple):
    """One finding: `image` is its name, `item` what of it ("annotation 3", from 0), "" for all of it."""

    kind: str
    image: str
    item: str
    message: str


@dataclass(slots=True)
class Findings:
    """Counts by kind, and the first `MAX_EXAMPLES` of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        kept = self.examples.setdefault(finding.kind, [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(finding)

    def rows(self) -> list[tuple[str, int, list[Finding]]]:
        """(kind, count, examples) of the kinds found, in the order of `KINDS`."""
        return [(kind, self.counts[kind], self.examples[kind]) for kind in KINDS if self.counts[kind]]


def annotation_findings(image: AnnotatedImage, image_hw: tuple[int, int] | None) -> Iterator[Finding]:
    """Everything about the annotations of one image; `image_hw` (H, W) is its size, None where nobody knows it."""
    first: dict[Hashable, int] = {}
    for i, one in enumerate(image.annotations):
        for kind, message in _faults(one, image_hw):
            yield Finding(kind, image.name, f"annotation {i}", message)
        if (twin := first.setdefault(_identity(one), i)) != i:
            yield Finding("duplicate_annotation", image.name, f"annotation {i}", f"is like annotation {twin}")


def _faults(one: Annotation, image_hw: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is odd about one annotation."""
    if not _is_finite(one):
        yield "not_finite", "has coordinates that are no finite numbers"
        return
    if isinstance(one.shape, Polygons):
        yield from _ring_faults(one.shape)
    elif isinstance(one.shape, Ellipse) and min(one.shape.radii_xy) <= 0:
        yield "no_area", f"is an ellipse with radii {one.shape.radii_xy}"
    elif isinstance(one.shape, Mask):
        broken = list(_mask_faults(one.shape, image_hw))
        yield from broken
        if broken:
            return
    box = box_of(one)
    if box is not None:
        yield from _box_faults(box, image_hw, may_be_thin=one.box_xyxy is None)


def _ring_faults(polygons: Polygons) -> Iterator[tuple[str, str]]:
    rings = [ring for part in polygons.parts for ring in part]
    if not rings:
        yield "few_points", "is a polygon without rings"
    few = sum(len(ring) < 3 for ring in rings)
    crossing = [crosses_itself(ring) for ring in rings]
    crossed = sum(crossing)  # the two sides of a bow tie cancel in its area, which says nothing
    flat = sum(
        len(ring) >= 3 and not crosses and ring_area(ring) < _MIN_AREA_PX
        for ring, crosses in zip(rings, crossing, strict=True)
    )
    if few:
        yield "few_points", f"has under 3 points in {_rings(few, len(rings))}"
    if flat:
        yield "no_area", f"has no area in {_rings(flat, len(rings))}"
    if crossed:
        yield "self_intersecting", f"has sides that cross in {_rings(crossed, len(rings))}"


def _mask_faults(mask: Mask, image_hw: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    if image_hw is not None and tuple(mask.image_hw) != tuple(image_hw):
        yield "broken_mask", f"is an RLE of {_size(mask.image_hw)}, the image is {_size(image_hw)}"
        return
    check = kernels.check_rle(mask.counts, mask.image_hw)
    if check.reason is not None:
        yield "broken_mask", f"is an RLE that {check.reason}"
    elif check.area == 0:
        yield "no_area", "is a mask without a pixel"


def _box_faults(box: Box, image_hw: tuple[int, int] | None, *, may_be_thin: bool) -> Iterator[tuple[str, str]]:
    x1, y1, x2, y2 = box
    if not may_be_thin and (x1 >= x2 or y1 >= y2):
        yield "empty_box", f"has a box from {_point(x1, y1)} to {_point(x2, y2)}"
    elif image_hw is not None:
        height, width = image_hw
        if x2 < 0 or y2 < 0 or x1 > width or y1 > height:
            yield "box_outside", f"has a box from {_point(x1, y1)} to {_point(x2, y2)}, the image is {_size(image_hw)}"
        elif (over := max(-x1, -y1, x2 - width, y2 - height)) > _TOLERANCE_PX:
            yield "box_over_edge", f"has a box that reaches {over:.6g} pixels over the edge of {_size(image_hw)}"


def _is_finite(one: Annotation) -> bool:
    if one.box_xyxy is not None and not all(map(math.isfinite, one.box_xyxy)):
        return False
    shape = one.shape
    if isinstance(shape, Polygons):
        return all(np.isfinite(ring).all() for part in shape.parts for ring in part)
    if isinstance(shape, Polyline | Points):
        return bool(np.isfinite(shape.points).all())
    return not isinstance(shape, Ellipse) or all(map(math.isfinite, (*shape.centre_xy, *shape.radii_xy, shape.angle)))


def _identity(one: Annotation) -> Hashable:
    """Equal for annotations of one class and one shape, or, where there is no shape, one box."""
    shape = one.shape
    if isinstance(shape, Polygons):
        return one.category, tuple(tuple(ring.tobytes() for ring in part) for part in shape.parts)
    if isinstance(shape, Polyline | Points):
        return one.category, type(shape).__name__, shape.points.tobytes()
    return (one.category, shape) if shape is not None else (one.category, one.box_xyxy)


def _rings(count: int, total: int) -> str:
    return "its ring" if total == 1 else f"{count} of its {total} rings"


def _point(x: float, y: float) -> str:
    return f"({x:.6g}, {y:.6g})"


def _size(image_hw: tuple[int, int]) -> str:
    return f"{image_hw[1]} x {image_hw[0]} pixels"
