"""Which number each annotation of an image has in `instanceIds`, unless it brings its own.

Where objects of a label are told apart: id * 1000 + n, n counting from 0, and the bare id for groups. Else the bare id for
the only object of its label, and numbers as above where there are several, which keeps them apart; cityscapesScripts and
detectron2 take such numbers for the label all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rayseg.annotations import Annotation
from rayseg.formats.cityscapes_labels import PER_LABEL, Table


def numbers_for(annotations: Sequence[Annotation], table: Table) -> list[int | None]:
    """The number of each annotation; None for one that has no mask, and for more than 1000 objects of one label."""
    masked = [annotation for annotation in annotations if annotation.shape is not None]
    alone = {place for place, count in Counter(one.category for one in masked).items() if count == 1}
    counts: Counter[int] = Counter()
    numbers: list[int | None] = []
    for annotation in annotations:
        place = annotation.category
        is_bare = annotation.crowd if table.has_instances[place] else place in alone
        if annotation.shape is None or (not is_bare and counts[place] == PER_LABEL):
            numbers.append(None)
        elif is_bare:
            numbers.append(table.ids[place])
        else:
            numbers.append(table.ids[place] * PER_LABEL + counts[place])
            counts[place] += 1
    return numbers


def own_numbers(annotations: Sequence[Annotation], table: Table) -> list[int | None] | None:
    """The numbers that the annotations with a mask bring along; None where these do not fit labels and groups."""
    usual, numbers = numbers_for(annotations, table), []
    for annotation, expected in zip(annotations, usual, strict=True):
        own = annotation.extras.get("cityscapes", {}).get("id", expected)
        if own is not None and (type(own) is not int or own <= 0 or not _fits(own, annotation, table)):
            return None
        numbers.append(own if annotation.shape is not None else None)
    known = [number for number in numbers if number is not None]
    return numbers if len(set(known)) == len(known) else None


def names_of(numbers: np.ndarray, table: Table) -> list[list[Any]]:
    """The numbers (N,) of a map but 0, each with the name of its class, None for an unknown one."""
    places = [(number, table.place_of(number)) for number in numbers.tolist() if number > 0]
    return [[number, None if place is None else table.categories[place].name] for number, place in places]


def _fits(number: int, annotation: Annotation, table: Table) -> bool:
    if table.place_of(number) != annotation.category:
        return False
    place = annotation.category
    return not table.has_instances[place] or table.is_crowd(number, place) == annotation.crowd
