"""The label table of Cityscapes, and how it grows for classes that it does not have.

The table's facts are those of cityscapesScripts (`helpers/labels.py`). Other classes get ids from 34 on, and `labels.json`
at the top then lists the data set's classes in order, which only rayseg reads:
    {"labels": [{"name": "cat", "id": 34, "hasInstances": true, "category": "animal", "color": [r, g, b]}, ...]}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rayseg.annotations import Category
from rayseg.formats import json_values
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.instance_notes import json_bytes

FILE = "labels.json"
PER_LABEL = 1000  # an object's number is its label's id * 1000 + n
GROUP = "group"
_ID_MAX = 1 << 20


class Label(NamedTuple):
    """One label: `train_id` 255 is left out of training, `has_instances` that objects are told apart."""

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool
    ignored: bool
    colour: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, 255, "void", False, True, (0, 0, 0)),
    Label("ego vehicle", 1, 255, "void", False, True, (0, 0, 0)),
    Label("rectification border", 2, 255, "void", False, True, (0, 0, 0)),
    Label("out of roi", 3, 255, "void", False, True, (0, 0, 0)),
    Label("static", 4, 255, "void", False, True, (0, 0, 0)),
    Label("dynamic", 5, 255, "void", False, True, (111, 74, 0)),
    Label("ground", 6, 255, "void", False, True, (81, 0, 81)),
    Label("road", 7, 0, "flat", False, False, (128, 64, 128)),
    Label("sidewalk", 8, 1, "flat", False, False, (244, 35, 232)),
    Label("parking", 9, 255, "flat", False, True, (250, 170, 160)),
    Label("rail track", 10, 255, "flat", False, True, (230, 150, 140)),
    Label("building", 11, 2, "construction", False, False, (70, 70, 70)),
    Label("wall", 12, 3, "construction", False, False, (102, 102, 156)),
    Label("fence", 13, 4, "construction", False, False, (190, 153, 153)),
    Label("guard rail", 14, 255, "construction", False, True, (180, 165, 180)),
    Label("bridge", 15, 255, "construction", False, True, (150, 100, 100)),
    Label("tunnel", 16, 255, "construction", False, True, (150, 120, 90)),
    Label("pole", 17, 5, "object", False, False, (153, 153, 153)),
    Label("polegroup", 18, 255, "object", False, True, (153, 153, 153)),
    Label("traffic light", 19, 6, "object", False, False, (250, 170, 30)),
    Label("traffic sign", 20, 7, "object", False, False, (220, 220, 0)),
    Label("vegetation", 21, 8, "nature", False, False, (107, 142, 35)),
    Label("terrain", 22, 9, "nature", False, False, (152, 251, 152)),
    Label("sky", 23, 10, "sky", False, False, (70, 130, 180)),
    Label("person", 24, 11, "human", True, False, (220, 20, 60)),
    Label("rider", 25, 12, "human", True, False, (255, 0, 0)),
    Label("car", 26, 13, "vehicle", True, False, (0, 0, 142)),
    Label("truck", 27, 14, "vehicle", True, False, (0, 0, 70)),
    Label("bus", 28, 15, "vehicle", True, False, (0, 60, 100)),
    Label("caravan", 29, 255, "vehicle", True, True, (0, 0, 90)),
    Label("trailer", 30, 255, "vehicle", True, True, (0, 0, 110)),
    Label("train", 31, 16, "vehicle", True, False, (0, 80, 100)),
    Label("motorcycle", 32, 17, "vehicle", True, False, (0, 0, 230)),
    Label("bicycle", 33, 18, "vehicle", True, False, (119, 11, 32)),
    Label("license plate", -1, -1, "vehicle", False, True, (0, 0, 142)),
)
STANDARD = {label.name: label for label in LABELS if label.id > 0}  # those that pixels can have
FIRST_FREE = 34


@dataclass(frozen=True, slots=True)
class Table:
    """The categories of a data set, and for each of them its id and whether its objects are told apart."""

    categories: tuple[Category, ...]
    ids: tuple[int, ...]
    has_instances: tuple[bool, ...]

    def place_of(self, number: int) -> int | None:
        """The category of a number in an id map."""
        label_id = number // PER_LABEL if number >= PER_LABEL else number
        return self.ids.index(label_id) if label_id in self.ids else None

    def is_crowd(self, number: int, place: int) -> bool:
        """Whether the number stands for a group: the bare id of a label whose objects are told apart."""
        return number < PER_LABEL and self.has_instances[place]

    def named(self, label: str) -> tuple[int, bool] | None:
        """The category of a label in a file of polygons, and whether it is a group ("cargroup"); None for an unknown."""
        names = [category.name for category in self.categories]
        if label in names:
            return names.index(label), False
        single = label.removesuffix(GROUP)
        return (names.index(single), True) if single != label and single in names else None


def standard_table() -> Table:
    """Cityscapes' own labels, as far as pixels can have them."""
    return _table([(_category(label), label.id, label.has_instances) for label in STANDARD.values()])


def table_for(categories: Sequence[Category], *, came_so: bool) -> Table:
    """Labels for any categories: standard ones where names match, once each; ids from 34 on for all others.

    `came_so`: the categories were read from this format, so that their own ids hold.
    """
    entries, used = [], set()
    for category in categories:
        standard = STANDARD.get(category.name)
        if standard is not None and standard.id not in used:
            used.add(standard.id)
            entries.append((category, standard.id, standard.has_instances))
        else:
            own = category.source_id if came_so else None
            is_free = own is not None and FIRST_FREE <= own < _ID_MAX and own not in used
            entries.append((category, own if is_free else None, True))
            used.add(own if is_free else None)
    free = (number for number in range(FIRST_FREE, _ID_MAX) if number not in used)
    return _table([(category, next(free) if number is None else number, apart) for category, number, apart in entries])


def is_standard(table: Table) -> bool:
    """Whether this is Cityscapes' own table, so that no file of labels is needed."""
    own = standard_table()
    mine = [(one.name, one.supercategory, one.colour) for one in table.categories]
    return mine == [(one.name, one.supercategory, one.colour) for one in own.categories] and table.ids == own.ids


def text_of(table: Table) -> bytes:
    """The file of labels."""
    labels = []
    for category, label_id, apart in zip(table.categories, table.ids, table.has_instances, strict=True):
        entry: dict[str, Any] = {"name": category.name, "id": label_id, "hasInstances": apart}
        if category.supercategory is not None:
            entry["category"] = category.supercategory
        if category.colour is not None:
            entry["color"] = list(category.colour)
        labels.append(entry)
    return json_bytes({"labels": labels}, indent=1)


def table_in(data: bytes, uri: str) -> Table:
    """The table of a file of labels. Raises `BadAnnotation` with the line or the label."""
    value = json_values.parsed(data, uri)
    labels = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(labels, list):
        raise BadAnnotation(uri, "expected an object with labels, found none")
    entries, used = [], set()
    for i, label in enumerate(labels):
        name, number = (label.get("name"), label.get("id")) if isinstance(label, dict) else (None, None)
        if not isinstance(name, str) or name != name.encode("utf-8", "replace").decode():
            raise BadAnnotation(uri, f"labels[{i}]: expected a name, found {json_values.shown(name)}")
        if type(number) is not int or not 0 < number < _ID_MAX or number in used:
            raise BadAnnotation(
                uri, f"labels[{i}]: expected an id of its own, above 0, found {json_values.shown(number)}"
            )
        if name in {category.name for category, _, _ in entries}:
            raise BadAnnotation(uri, f"labels[{i}]: expected each name once, found {name[:80]!r} again")
        used.add(number)
        above, apart = label.get("category"), label.get("hasInstances") is not False
        category = Category(name, number, above if isinstance(above, str) else None, _colour(label.get("color")))
        entries.append((category, number, apart))
    return _table(entries)


def _table(entries: Iterable[tuple[Category, int, bool]]) -> Table:
    categories, ids, apart = zip(*entries, strict=True) if (entries := list(entries)) else ((), (), ())
    return Table(tuple(categories), tuple(ids), tuple(apart))


def _category(label: Label) -> Category:
    return Category(label.name, label.id, label.category, label.colour)


def _colour(value: Any) -> tuple[int, int, int] | None:
    if isinstance(value, list) and len(value) == 3 and all(type(c) is int and 0 <= c < 256 for c in value):
        return value[0], value[1], value[2]
    return None
