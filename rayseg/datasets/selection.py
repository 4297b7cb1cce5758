"""Part of a data set: the annotations that meet conditions (`filter`), or some of its images at random (`sample`).

What comes out is lazy: it reads the source again, and picks anew, whenever it is gone through.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rayseg.annotations import AnnotatedImage, Annotation, Dataset
from rayseg.datasets.measures import area_px
from rayseg.datasets.seeded_order import rank
from rayseg.errors import UsageError
from rayseg.formats.shapes import box_of

STANDARD_FLAGS = ("difficult", "truncated", "occluded")  # not set means False

Emptied = Literal["keep", "drop"]


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What an annotation must meet; `new_class` gives the new index of each class that stays."""

    new_class: Mapping[int, int]
    area: tuple[float | None, float | None]
    side: tuple[float | None, float | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    predicate: Callable[[Annotation, AnnotatedImage], bool] | None = None

    def met(self, annotation: Annotation, image: AnnotatedImage) -> bool:
        return (
            annotation.category in self.new_class
            and all(_attribute(annotation, name) == value for name, value in self.attributes.items())
            and self._size_met(annotation)
            and (self.predicate is None or self.predicate(annotation, image))
        )

    def _size_met(self, annotation: Annotation) -> bool:
        if self.area != (None, None) and not _within(area_px(annotation), *self.area):
            return False
        if self.side == (None, None):
            return True
        box = box_of(annotation)
        sides = None if box is None else sorted((box[2] - box[0], box[3] - box[1]))
        least, most = self.side
        return sides is not None and _within(sides[0], least, None) and _within(sides[1], None, most)


def filter(
    dataset: Dataset,
    *,
    classes: Collection[str] | None = None,
    without_classes: Collection[str] = (),
    min_area_px: float | None = None,
    max_area_px: float | None = None,
    min_side_px: float | None = None,
    max_side_px: float | None = None,
    attributes: Mapping[str, Any] | None = None,
    predicate: Callable[[Annotation, AnnotatedImage], bool] | None = None,
    emptied: Emptied = "keep",
) -> Dataset:
    """The annotations that meet every condition given, in their images.

    classes          only these, by name; `without_classes` drops some. The others leave the table of classes
    min_area_px ...  square pixels, see `measures.area_px`; lines and points have none and meet no bound
    min_side_px      pixels, of the shorter side of the box; `max_side_px` of the longer one
    attributes       values to be had; the flags difficult, truncated, occluded are False where they are not set
    predicate        called with the annotation and its image, as the source has them
    emptied          what happens to images that lose all their annotations; those that never had one stay

    Raises `UsageError` for a class that the data set does not have.
    """
    new_class = _kept_classes(dataset.class_names, classes, without_classes)
    bounds = (min_area_px, max_area_px), (min_side_px, max_side_px)
    conditions = _Conditions(new_class, *bounds, dict(attributes or {}), predicate)
    images = _Filtered(dataset.images, conditions, emptied)
    return replace(dataset, categories=tuple(dataset.categories[i] for i in new_class), images=images)


def sample(dataset: Dataset, count: int | None = None, *, share: float | None = None, seed: int = 0) -> Dataset:
    """`count` images at random, or a `share` of them, rounded, in the source's order; all, if it has no more.

    One pass decides and keeps the names of those chosen. The same seed gives the same images in whatever order they
    come, and a smaller sample is part of a larger one. Raises `UsageError` unless one of the two is given, and in range.
    """
    if (count is None) == (share is None) or (count or 0) < 0 or not 0 <= (share or 0) <= 1:
        raise UsageError(f"sample: expected a count from 0 or a share from 0 to 1, found {count} and {share}")
    if share is None:
        ranked = heapq.nsmallest(count or 0, _ranked(dataset, seed))
    else:
        ranked = sorted(_ranked(dataset, seed))
        ranked = ranked[: round(share * len(ranked))]
    return replace(dataset, images=_Named(dataset.images, frozenset(name for _, name in ranked), len(ranked)))


def _ranked(dataset: Dataset, seed: int) -> Iterator[tuple[int, str]]:
    return ((rank(seed, image.name), image.name) for image in dataset.images)


def _kept_classes(names: tuple[str, ...], only: Collection[str] | None, without: Collection[str]) -> dict[int, int]:
    """Old index to new index of the classes that stay."""
    if isinstance(only, str) or isinstance(without, str):
        raise UsageError(
            f"classes: expected a list of names, found the text {only if isinstance(only, str) else without!r}"
        )
    for name in (*(only or ()), *without):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names[:20])}"
            raise UsageError(f"class {name!r} is not in the data set; {hint}")
    kept = [i for i, name in enumerate(names) if (only is None or name in only) and name not in without]
    return {old: new for new, old in enumerate(kept)}


def _within(value: float | None, least: float | None, most: float | None) -> bool:
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _attribute(annotation: Annotation, name: str) -> Any:
    return annotation.attributes.get(name, False if name in STANDARD_FLAGS else None)


class _Filtered:
    """Images with the annotations that meet the conditions."""

    def __init__(self, source: Iterable[AnnotatedImage], conditions: _Conditions, emptied: Emptied) -> None:
        self._source = source
        self._conditions = conditions
        self._emptied = emptied

    def __iter__(self) -> Iterator[AnnotatedImage]:
        new_class = self._conditions.new_class
        for image in self._source:
            kept = tuple(
                one if new_class[one.category] == one.category else replace(one, category=new_class[one.category])
                for one in image.annotations
                if self._conditions.met(one, image)
            )
            if kept or not image.annotations or self._emptied == "keep":
                yield replace(image, annotations=kept)


class _Named:
    """The images of certain names."""

    def __init__(self, source: Iterable[AnnotatedImage], names: frozenset[str], count: int) -> None:
        self._source = source
        self._names = names
        self._count = count

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return (image for image in self._source if image.name in self._names)

    def __len__(self) -> int:
        return self._count
