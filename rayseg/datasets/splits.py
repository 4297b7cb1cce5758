"""Splitting a data set into train, val ...: at random, with every class in its share, or by groups that stay together.

    parts = stratified_split(dataset, {"train": 0.8, "val": 0.2}, seed=1)
    parts["train"]      a Dataset of its images, each with `split` set
    parts.whole         the data set it was made from, with `split` set on each image

One pass over the images decides, keeping their names and classes but no annotations; what comes out reads the source
again whenever it is gone through. The same names and the same seed give the same split, in whatever order they come.
An image is known by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from rayseg.annotations import AnnotatedImage, Dataset
from rayseg.datasets.seeded_order import rank
from rayseg.datasets.stratification import Item, share_out
from rayseg.errors import UsageError

Key = Callable[[AnnotatedImage], Hashable]
_NO_INSTANCE = -1  # the label of images without annotations, which are to be shared out as well


class Splits(Mapping[str, Dataset]):
    """The parts of a data set by the names of the splits, in the order of the shares."""

    def __init__(
        self, source: Dataset, splits: Iterable[str], split_of: Mapping[str, str], image_names: Iterable[str]
    ) -> None:
        self._source = source
        self._names = tuple(splits)
        self._split_of = split_of
        self._counts = Counter(split_of[name] for name in image_names)

    def __getitem__(self, split: str) -> Dataset:
        if split not in self._names:
            raise KeyError(split)
        return replace(self._source, images=_Part(self._source.images, self._split_of, split, self._counts[split]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def whole(self) -> Dataset:
        """All images, in the source's order, each with its `split`."""
        return replace(self._source, images=_Part(self._source.images, self._split_of, None, self._counts.total()))

    @property
    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        return {name: self._counts[name] for name in self._names}


def random_split(dataset: Dataset, shares: Mapping[str, float], seed: int = 0) -> Splits:
    """Images at random. Sizes are the shares rounded; an added image moves at most one other for each split.

    Raises `UsageError` unless the shares are positive and add up to 1.
    """
    _check_shares(shares)
    image_names = [image.name for image in dataset.images]
    names = sorted(set(image_names), key=lambda name: (rank(seed, name), name))
    split_of, begin, share_so_far = {}, 0, 0.0
    for split, share in shares.items():
        share_so_far += share
        end = round(share_so_far * len(names))
        split_of.update(dict.fromkeys(names[begin:end], split))
        begin = end
    return Splits(dataset, shares, split_of, image_names)


def stratified_split(dataset: Dataset, shares: Mapping[str, float], seed: int = 0) -> Splits:
    """Images at random, but so that of each class's images every split gets its share, the rare classes first.

    Images without annotations are shared out as a class of their own. See `rayseg.datasets.stratification`.
    Raises `UsageError` unless the shares are positive and add up to 1.
    """
    return _split_groups(dataset, shares, seed, lambda image: image.name, stratify=True)


def grouped_split(
    dataset: Dataset, shares: Mapping[str, float], key: Key, seed: int = 0, *, stratify: bool = False
) -> Splits:
    """Images of one `key` all go to one split: `name_prefix("_")`, `folder`, `attribute("site")`, any function.

    Sizes come as near to the shares as whole groups allow; with `stratify` so do the classes.
    Raises `UsageError` unless the shares are positive and add up to 1, and for an image of which the key is None.
    """
    return _split_groups(dataset, shares, seed, key, stratify=stratify)


# ---- keys


def folder(image: AnnotatedImage) -> str:
    """The folder part of the image's name, "" for none."""
    return image.name.rpartition("/")[0]


def name_prefix(separator: str = "_") -> Key:
    """The image's name up to the first `separator` in its last part: "a/walk3_0001.jpg" gives "a/walk3"."""

    def prefix(image: AnnotatedImage) -> str:
        above, slash, last = image.name.rpartition("/")
        return above + slash + last.partition(separator)[0]

    return prefix


def name_pattern(pattern: str) -> Key:
    """What the first bracket of a regular expression finds in the image's name, or all of it; None where it finds nothing.

    Raises `UsageError` for a pattern that is none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"pattern {pattern!r}: expected a regular expression: {error}") from None

    def found(image: AnnotatedImage) -> str | None:
        match = compiled.search(image.name)
        return None if match is None else match[1 if compiled.groups else 0]

    return found


def attribute(name: str) -> Key:
    """The image's attribute of that name; None where it has none."""

    def value(image: AnnotatedImage) -> Hashable:
        held = image.attributes.get(name)
        return held if isinstance(held, Hashable) else repr(held)

    return value


# ---- how


@dataclass(slots=True)
class _Group:
    """The images of one key: their names, and in how many of them each class is."""

    names: list[str]
    classes: Counter[int]


def _split_groups(dataset: Dataset, shares: Mapping[str, float], seed: int, key: Key, *, stratify: bool) -> Splits:
    _check_shares(shares)
    groups = sorted(_groups(dataset, key, stratify), key=lambda group: min((rank(seed, n), n) for n in group.names))
    items = [Item(len(group.names), group.classes) for group in groups]
    places, names = share_out(items, list(shares.values()), seed), tuple(shares)
    split_of = {name: names[place] for group, place in zip(groups, places, strict=True) for name in group.names}
    return Splits(dataset, shares, split_of, [name for group in groups for name in group.names])


def _groups(dataset: Dataset, key: Key, stratify: bool) -> Iterable[_Group]:
    groups: dict[Hashable, _Group] = {}
    seen: dict[str, Hashable] = {}
    for image in dataset.images:
        value = key(image)
        if value is None:
            raise UsageError(f"image {image.name!r}: the key that is to group it gives None")
        if seen.setdefault(image.name, value) != value:
            raise UsageError(f"image {image.name!r} is there twice, in the groups {seen[image.name]!r} and {value!r}")
        group = groups.setdefault(value, _Group([], Counter()))
        group.names.append(image.name)
        if stratify:
            group.classes.update({one.category for one in image.annotations} or {_NO_INSTANCE})
    return groups.values()


def _check_shares(shares: Mapping[str, float]) -> None:
    if not shares or not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(f"shares {dict(shares)}: expected positive numbers that add up to 1")


class _Part:
    """The images of one split, or of all, as the source gives them."""

    def __init__(
        self, source: Iterable[AnnotatedImage], split_of: Mapping[str, str], split: str | None, count: int
    ) -> None:
        self._source = source
        self._split_of = split_of
        self._split = split
        self._count = count

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for image in self._source:
            split = self._split_of.get(image.name)
            if split is None:
                raise UsageError(f"image {image.name!r} came after the data set was split: split it again")
            if self._split in (None, split):
                yield replace(image, split=split)

    def __len__(self) -> int:
        return self._count
