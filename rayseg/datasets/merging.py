"""Several data sets as one: classes of one name become one class, images keep their names or get new ones."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rayseg.annotations import AnnotatedImage, Category, Dataset
from rayseg.errors import UsageError

Clashes = Literal["refuse", "rename"]
_NAMED = 5  # clashes that a refusal lists


def merge(datasets: Sequence[Dataset], *, clashes: Clashes = "refuse") -> Dataset:
    """All images of the data sets, one after the other, read anew whenever they are gone through.

    Classes are joined by name, in the order in which they first come; of one that several have, supercategory, colour
    and extras are those of the first that gives them, and a number (`source_id`) that another class has already is left
    out. What the sets say of themselves (`info`) is kept by format, the first one's where several speak. One pass over
    the images looks for names that are taken: such a clash is refused, or the later image is renamed ("a.jpg" to
    "a-2.jpg"), which changes its name only, not where its pixels are.

    Raises `UsageError` for no data set, and for clashing names that are not to be renamed.
    """
    if not datasets:
        raise UsageError("merge: expected at least one data set, found none")
    if clashes not in ("refuse", "rename"):
        raise UsageError(f"clashes {clashes!r}: expected refuse or rename")
    categories = _joined([category for dataset in datasets for category in dataset.categories])
    new_class = {category.name: i for i, category in enumerate(categories)}
    class_maps = [[new_class[name] for name in dataset.class_names] for dataset in datasets]
    new_names, count = _renamed(datasets, clashes)
    info = {key: value for dataset in reversed(datasets) for key, value in dataset.info.items()}
    faults = MergedFaults(tuple(dataset.faults for dataset in datasets if dataset.faults is not None))
    return Dataset(
        categories, _Merged(datasets, class_maps, new_names, count), info, faults if faults.sources else None
    )


@dataclass(frozen=True, slots=True)
class MergedFaults:
    """The faults of several data sets, added up when they are asked for."""

    sources: tuple[Any, ...]

    @property
    def on_error(self) -> str:
        """ "raise" if any of them raises."""
        return "raise" if any(faults.on_error == "raise" for faults in self.sources) else "skip"

    @property
    def counts(self) -> Counter[str]:
        return sum((faults.counts for faults in self.sources), Counter())

    @property
    def messages(self) -> list[str]:
        return [message for faults in self.sources for message in faults.messages]


def _joined(categories: list[Category]) -> tuple[Category, ...]:
    joined: dict[str, Category] = {}
    for category in categories:
        known = joined.get(category.name)
        if known is None:
            joined[category.name] = category
            continue
        joined[category.name] = replace(
            known,
            supercategory=known.supercategory or category.supercategory,
            colour=known.colour or category.colour,
            extras={**category.extras, **known.extras},
        )
    taken: set[int | None] = {None}
    for name, category in joined.items():
        if category.source_id in taken:
            joined[name] = replace(category, source_id=None)
        taken.add(category.source_id)
    return tuple(joined.values())


def _renamed(datasets: Sequence[Dataset], clashes: Clashes) -> tuple[Mapping[tuple[int, str], str], int]:
    """New names by (data set, name) for those that are taken, and the number of all images."""
    owner: dict[str, int] = {}
    clashing: dict[tuple[int, str], int] = {}
    count = 0
    for i, dataset in enumerate(datasets):
        for image in dataset.images:
            count += 1
            if (first := owner.setdefault(image.name, i)) != i:
                clashing[i, image.name] = first
    if clashing and clashes == "refuse":
        listed = [f"{name!r} (data sets {first + 1} and {i + 1})" for (i, name), first in clashing.items()][:_NAMED]
        more = f" and {len(clashing) - _NAMED:,} more" if len(clashing) > _NAMED else ""
        raise UsageError(
            f"images of one name: {', '.join(listed)}{more}; use clashes='rename' to rename the later ones"
        )
    taken = set(owner)
    return {key: _free_name(key[1], taken) for key in clashing}, count


def _free_name(name: str, taken: set[str]) -> str:
    """`name` with the first number before its suffix that makes it new; it is then taken."""
    above, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not stem:
        stem, dot, suffix = last, "", ""
    for number in itertools.count(2):
        new = f"{above}{slash}{stem}-{number}{dot}{suffix}"
        if new not in taken:
            taken.add(new)
            return new
    raise AssertionError("numbers end")


class _Merged:
    """The images of all data sets, with their new names and classes."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        class_maps: Sequence[Sequence[int]],
        new_names: Mapping[tuple[int, str], str],
        count: int,
    ) -> None:
        self._datasets = tuple(datasets)
        self._class_maps = class_maps
        self._new_names = new_names
        self._count = count

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for i, dataset in enumerate(self._datasets):
            new_class = self._class_maps[i]
            for image in dataset.images:
                annotations = tuple(
                    one if new_class[one.category] == one.category else replace(one, category=new_class[one.category])
                    for one in image.annotations
                )
                name = self._new_names.get((i, image.name), image.name)
                yield replace(image, name=name, annotations=annotations)

    def __len__(self) -> int:
        return self._count
