"""What a data set holds, in numbers that stay small however many images are added: counts and fixed histograms."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rayseg.annotations import AnnotatedImage, Annotation, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets.measures import area_px

SMALL_PX2, LARGE_PX2 = 32.0**2, 96.0**2  # COCO's bounds of small, medium and large objects, in square pixels
_MAX_SIZES = 10_000  # distinct image sizes that are counted one by one
_SHAPES = {Polygons: "polygons", Mask: "mask", Ellipse: "ellipse", Polyline: "polyline", Points: "points"}


@dataclass(slots=True)
class Histogram:
    """Counts of values from one edge to below the next, below the first edge, and from the last one up."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_right(self.edges, value)] += 1

    def rows(self) -> list[tuple[str, int]]:
        """(label, count) of the bins, without the empty ones at both ends."""
        names = [f"{edge:g}" for edge in self.edges]
        labels = [f"under {names[0]}", *map(_span, self.edges, self.edges[1:]), f"{names[-1]} and more"]
        filled = [i for i, count in enumerate(self.counts) if count]
        if not filled:
            return []
        return [(labels[i], self.counts[i]) for i in range(filled[0], filled[-1] + 1)]


def _span(low: float, high: float) -> str:
    """A bin's label; of a bin that holds one whole number, that number."""
    return f"{low:g}" if high - low == 1 else f"{low:g} - {high:g}"


@dataclass(slots=True)
class ClassCount:
    """One class: its instances, the images that have any, crowds among the instances, and sizes by COCO's bounds."""

    name: str
    instances: int = 0
    images: int = 0
    crowds: int = 0
    small: int = 0
    medium: int = 0
    large: int = 0


def _octaves(first: int, last: int) -> tuple[float, ...]:
    return tuple(float(2**k) for k in range(first, last + 1))


@dataclass(slots=True)
class Statistics:
    """Counts over the images added so far.

    side_px              histogram of the square roots of the instances' areas
    instances_per_image  histogram
    image_side_px        histogram of the images' longer sides
    sizes                images by (H, W); the first 10,000 distinct ones
    """

    classes: list[ClassCount]
    images: int = 0
    empty_images: int = 0
    instances: int = 0
    crowds: int = 0
    scored: int = 0
    with_holes: int = 0
    with_parts: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    unknown_sizes: int = 0
    side_px: Histogram = field(default_factory=lambda: Histogram(_octaves(2, 10)))
    instances_per_image: Histogram = field(default_factory=lambda: Histogram((1, 2, 3, 4, 5, 10, 20, 50, 100, 200)))
    image_side_px: Histogram = field(default_factory=lambda: Histogram(_octaves(5, 13)))

    @classmethod
    def of_classes(cls, names: Sequence[str]) -> Statistics:
        """Nothing counted yet."""
        return cls([ClassCount(name) for name in names])

    def add(self, image: AnnotatedImage, image_hw: tuple[int, int] | None) -> None:
        """Count one image, of size `image_hw` (H, W) where that is known."""
        self.images += 1
        self.empty_images += not image.annotations
        self.splits[image.split or ""] += 1
        self.instances_per_image.add(len(image.annotations))
        self._add_size(image_hw)
        for one in image.annotations:
            self._add_annotation(one)
        for category in {one.category for one in image.annotations}:
            self.classes[category].images += 1

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON takes it; sizes as [H, W, images], the most frequent first."""
        return {
            "images": self.images,
            "empty_images": self.empty_images,
            "splits": {name or "(none)": count for name, count in self.splits.items()},
            "instances": self.instances,
            "crowds": self.crowds,
            "scored": self.scored,
            "with_holes": self.with_holes,
            "with_parts": self.with_parts,
            "shapes": dict(self.shapes.most_common()),
            "attributes": dict(self.attributes.most_common()),
            "classes": [{name: getattr(one, name) for name in ClassCount.__slots__} for one in self.classes],
            "sizes_hw": [[*hw, count] for hw, count in self.sizes.most_common()],
            "unknown_sizes": self.unknown_sizes,
            "histograms": {
                name: [{"label": label, "count": count} for label, count in getattr(self, name).rows()]
                for name in ("side_px", "instances_per_image", "image_side_px")
            },
        }

    def _add_size(self, image_hw: tuple[int, int] | None) -> None:
        if image_hw is None:
            self.unknown_sizes += 1
            return
        self.image_side_px.add(max(image_hw))
        if image_hw in self.sizes or len(self.sizes) < _MAX_SIZES:
            self.sizes[image_hw] += 1

    def _add_annotation(self, one: Annotation) -> None:
        kind = self.classes[one.category]
        self.instances += 1
        kind.instances += 1
        self.scored += one.score is not None
        self.shapes[_SHAPES.get(type(one.shape), "box" if one.box_xyxy is not None else "nothing")] += 1
        self.attributes.update(map(str, one.attributes))
        if isinstance(one.shape, Polygons):
            self.with_parts += len(one.shape.parts) > 1
            self.with_holes += any(len(part) > 1 for part in one.shape.parts)
        if one.crowd:
            self.crowds += 1
            kind.crowds += 1
        area = area_px(one)
        if area is not None and math.isfinite(area):
            self.side_px.add(math.sqrt(area))
            kind.small += area < SMALL_PX2
            kind.medium += SMALL_PX2 <= area < LARGE_PX2
            kind.large += area >= LARGE_PX2
