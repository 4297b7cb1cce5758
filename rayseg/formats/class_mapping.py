"""A small YAML that says what becomes of a data set's classes on the way to another format.

    rename: {lorry: truck}
    merge: {vehicle: [car, bus]}    # into a new class, or into one that is listed itself
    drop: [background]              # with their annotations
    order: [person, vehicle]        # the others follow in their order

Names under `rename`, `merge` and `drop` are the source's, each at most once; those under `order` are the result's.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from pydantic import Field

from rayseg.annotations import AnnotatedImage, Dataset
from rayseg.errors import UsageError
from rayseg.specs import Spec

Tally = Counter[str]


class ClassMapping(Spec):
    """What becomes of classes, see the top of this file."""

    rename: dict[str, str] = Field(default_factory=dict)
    merge: dict[str, list[str]] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    order: list[str] = Field(default_factory=list)


def with_classes(dataset: Dataset, mapping: ClassMapping) -> tuple[Dataset, Tally]:
    """`dataset` with other classes, as lazily as it was, and a tally of what was dropped: "class" and "annotation".

    The tally counts the annotations of the last time that the images were gone through. Raises `UsageError` for names the
    data set does not have, for one that is asked two things of, and where two classes would have one name.
    """
    names = dataset.class_names
    targets = _targets(names, mapping)
    kept = list(dict.fromkeys(target for target in targets if target is not None))
    _check(mapping.order, kept, "order")
    order = [*mapping.order, *(name for name in kept if name not in mapping.order)]
    sources = {name: targets.index(name) for name in order}
    for name in order:  # a class that has the name already gives its colour and the rest
        if name in names and targets[names.index(name)] == name:
            sources[name] = names.index(name)
    categories = tuple(dataclasses.replace(dataset.categories[sources[name]], name=name) for name in order)
    classes = [None if target is None else order.index(target) for target in targets]
    tally: Tally = Counter({"class": classes.count(None)} if None in classes else {})
    images = MappedImages(
        dataset.images, lambda image: _mapped(image, classes, tally), lambda: tally.pop("annotation", 0)
    )
    return dataclasses.replace(dataset, categories=categories, images=images), tally


class MappedImages:
    """Images changed one by one as they are gone through; `begin` is called first."""

    def __init__(
        self,
        images: Iterable[AnnotatedImage],
        change: Callable[[AnnotatedImage], AnnotatedImage],
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        self._images, self._change, self._begin = images, change, begin

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._begin()
        return map(self._change, self._images)

    def __len__(self) -> int:
        """Of the images beneath. Raises `TypeError` where these do not know."""
        return len(self._images)  # type: ignore[arg-type]


def _mapped(image: AnnotatedImage, classes: Sequence[int | None], tally: Tally) -> AnnotatedImage:
    annotations = []
    for annotation in image.annotations:
        category = classes[annotation.category]
        if category is None:
            tally["annotation"] += 1
        elif category == annotation.category:
            annotations.append(annotation)
        else:
            annotations.append(dataclasses.replace(annotation, category=category))
    return dataclasses.replace(image, annotations=tuple(annotations))


def _targets(names: Sequence[str], mapping: ClassMapping) -> list[str | None]:
    """The new name of each class, None where it is dropped."""
    changes: dict[str, str | None] = {}
    merged = [(old, new) for new, olds in mapping.merge.items() for old in olds]
    asked = [*mapping.rename.items(), *merged, *((old, None) for old in mapping.drop)]
    for key, olds in (("rename", mapping.rename), ("merge", [old for old, _ in merged]), ("drop", mapping.drop)):
        _check(olds, names, key)
    for old, new in asked:
        if old in changes:
            raise UsageError(f"classes: {old!r} stands there twice; a class is renamed, merged or dropped once")
        changes[old] = new
    targets = [changes.get(name, name) for name in names]
    for new in {*mapping.rename.values(), *mapping.merge}:
        sources = sorted({name for name, target in zip(names, targets, strict=True) if target == new})
        if new not in mapping.merge and len(sources) > 1:
            raise UsageError(f"classes: {' and '.join(sources)} would all be {new!r}; list them under merge")
        if new in mapping.merge and (apart := sorted(set(sources) - set(mapping.merge[new]))):
            raise UsageError(
                f"classes: {' and '.join(apart)} would be {new!r} too; list it under merge.{new} to join it"
            )
    return targets


def _check(asked: Iterable[str], names: Sequence[str], key: str) -> None:
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
            raise UsageError(f"classes: {key}: no class {name!r}; {hint}")
