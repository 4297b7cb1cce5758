"""The record that every annotation format is read to and written from: `Dataset`, its images, their annotations.

It keeps what came. Polygons stay polygons, RLE stays RLE, a box without a mask stays a box; pixels are made where someone
asks for them (`rayseg.formats.shapes`). Coordinates are continuous pixels of the *upright* image (EXIF orientation
applied), x right, y down, pixel centres at .5.

Shapes: K points of a ring or line, H W image pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


def _same(mine: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return len(mine) == len(others) and all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """A mask as the union of its parts; a part is its outline and then its holes, each a ring (K, 2) float64 of x, y.

    A ring does not repeat its first point. Which way rings run says nothing.
    """

    parts: tuple[tuple[np.ndarray, ...], ...]

    def __eq__(self, other: object) -> bool:
        """The same parts of the same rings of the same numbers, in the same order."""
        if not isinstance(other, Polygons):
            return NotImplemented
        return len(self.parts) == len(other.parts) and all(map(_same, self.parts, other.parts))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask as one COCO RLE: compressed `counts` for an image of `image_hw` (H, W), upright."""

    counts: bytes
    image_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """A filled ellipse: centre (x, y), radii along its own axes, `angle` in degrees, clockwise on the screen."""

    centre_xy: tuple[float, float]
    radii_xy: tuple[float, float]
    angle: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Polyline:
    """An open line (K, 2) float64 of x, y; it has no area."""

    points: np.ndarray

    def __eq__(self, other: object) -> bool:
        """The same points."""
        return _same([self.points], [other.points]) if isinstance(other, Polyline) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Single points (K, 2) float64 of x, y; they have no area."""

    points: np.ndarray

    def __eq__(self, other: object) -> bool:
        """The same points."""
        return _same([self.points], [other.points]) if isinstance(other, Points) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


Shape = Polygons | Mask | Ellipse | Polyline | Points


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object of an image.

    category    index into the data set's `categories`
    box_xyxy    the box as the source gives it, None where it gives none (`shapes.box_of` then finds it)
    shape       None: a box alone
    crowd       the annotation stands for a group of objects, COCO's `iscrowd`
    score       in [0, 1] for predictions, None for ground truth
    group       the source's number that ties annotations of one image together
    attributes  what people set in their tool; the standard flags are bools named `difficult`, `truncated`, `occluded`
    extras      what only one format understands, under that format's name: {"coco": {"id": 7}}
    """

    category: int
    box_xyxy: Box | None = None
    shape: Shape | None = None
    crowd: bool = False
    score: float | None = None
    group: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image and its annotations.

    name      path within the data set, with forward slashes, unique there
    uri       where the pixels are; None where that is not known
    image_hw  (H, W) after EXIF orientation; None where neither the annotations nor the image say
    split     "train", "val" ... where the source has splits
    data      the encoded image itself where the source embeds it
    """

    name: str
    uri: str | None = None
    image_hw: tuple[int, int] | None = None
    annotations: tuple[Annotation, ...] = ()
    split: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """A class: its index is its place in `Dataset.categories`, `source_id` what its format called it."""

    name: str
    source_id: int | None = None
    supercategory: str | None = None
    colour: tuple[int, int, int] | None = None
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Categories, and images that may be gone through more than once; a source of millions reads them as they are asked.

    `info` is what the source says of the whole (under its format's name, like `extras`). `faults` holds what was passed
    over on the way, once the images have been gone through: see `rayseg.formats.faults`.
    """

    categories: tuple[Category, ...]
    images: Iterable[AnnotatedImage]
    info: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    faults: Any = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of classes 0..C-1."""
        return tuple(category.name for category in self.categories)
