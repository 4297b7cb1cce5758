"""Class tables of masks: which number is which class, and which file name.

classes.json may be
    {"classes": [{"id": 1, "name": "cat", ...}], ...}    as rayseg writes it, with colours, supercategories and extras
    [{"id": 1, "name": "cat"}]  ["cat", "dog"]           the second from 1 on, as 0 is the background
    {"1": "cat"}  {"cat": 1}
and classes.csv has a header and the columns `id` and `name` (or `class`); with a column `image` besides, a row speaks of one
object of one image (its name, with or without suffix). A number that no table has is an object of class number // 1000.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from rayseg import storage
from rayseg.annotations import Category
from rayseg.formats import json_values
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.listing import stem

JSON_FILE, CSV_FILE = "classes.json", "classes.csv"
PER_CLASS = 1000
_BYTES_MAX = 256 << 20
_NUMBER_MAX = 1 << 32
_LEADING, _TRAILING = re.compile(r"\d+_(.+)"), re.compile(r"(.+?)[_-]\d+")


@dataclass(slots=True)
class Table:
    """Categories, and what numbers mean.

    places    number to category; `of_image` the same for single images, by name without suffix
    named     name to category
    info      what was said of the whole data set
    """

    categories: list[Category] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    of_image: dict[str, dict[int, int]] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def append(self, category: Category) -> int:
        """One more category, whose numbers are still to be said; its place."""
        place = len(self.categories)
        self.categories.append(category)
        self.named.setdefault(category.name, place)
        return place

    def add(self, name: str, number: int) -> None:
        """Take `number` for the class `name`, which may have other numbers."""
        place = self.named.get(name)
        self.places[number] = self.append(Category(name, source_id=number)) if place is None else place

    def category_at(self, image: str, number: int) -> int | None:
        """The category of a number in the map of an image (its name without suffix); None for an unknown one."""
        own = self.of_image.get(image, {}).get(number)
        return own if own is not None else self.places.get(number, self.places.get(number // PER_CLASS))

    def category_in(self, file: str) -> int | None:
        """The category that a file's name says: `3_cat`, `cat`, `cat_3` or, by its id, `3_17`; any where there is but one."""
        text = stem(file.rpartition("/")[2])
        leading, trailing = _LEADING.fullmatch(text), _TRAILING.fullmatch(text)
        for name in (leading and leading[1], text, trailing and trailing[1]):
            if name is not None and unquote(name) in self.named:
                return self.named[unquote(name)]
        if leading and leading[1].isdecimal() and len(leading[1]) < 11 and int(leading[1]) in self.places:
            return self.places[int(leading[1])]
        return 0 if len(self.categories) == 1 else None


def table_at(uri: str) -> Table:
    """The table in classes.json or classes.csv at `uri`. Raises `BadAnnotation` with the line or key."""
    data = storage.read(uri, max_bytes=_BYTES_MAX)
    try:
        table = _from_csv(data) if uri.endswith(".csv") else _from_json(json_values.parsed(data, uri))
        "".join(category.name for category in table.categories).encode()
    except UnicodeEncodeError:
        raise BadAnnotation(uri, "expected class names as text, found half of a surrogate pair") from None
    except (ValueError, csv.Error) as error:
        raise BadAnnotation(uri, str(error)) from None
    return table


def table_of_names(files: Iterable[str]) -> Table:
    """The table where there is only what file names say, numbered from 1 in the order of the names."""
    texts = {stem(file.rpartition("/")[2]) for file in files}
    found = set()
    for text in texts:
        match = _LEADING.fullmatch(text) or _TRAILING.fullmatch(text)
        found.add(unquote(match[1] if match else text))
    table = Table()
    for number, name in enumerate(sorted(found), 1):
        table.add(name, number)
    return table


def _from_json(value: Any) -> Table:
    table = Table()
    if isinstance(value, dict) and isinstance(value.get("classes"), list):
        _add_all(table, value["classes"])
        info = value.get("info")
        table.info = info if isinstance(info, dict) and all(isinstance(said, dict) for said in info.values()) else {}
    elif isinstance(value, list):
        _add_all(table, value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                table.add(inner, number_of(key, "a number as key"))
            else:
                table.add(key, number_of(inner, f"the number of class {key!r}"))
    else:
        raise ValueError(f"expected classes as an object or a list, found {json_values.shown(value)}")
    return table


def _add_all(table: Table, entries: list[Any]) -> None:
    for i, entry in enumerate(entries):
        if isinstance(entry, str):
            table.add(entry, i + 1)
        elif isinstance(entry, dict) and isinstance(entry.get("name"), str):
            number = number_of(entry.get("id"), f"classes[{i}]: id")
            if number in table.places or entry["name"] in table.named:
                found = f"{number}: {entry['name'][:80]!r}"
                raise ValueError(f"classes[{i}]: expected an id and a name that no other class has, found {found}")
            table.places[number] = table.append(_category(entry, number))
        else:
            raise ValueError(f"classes[{i}]: expected a name, or an id and a name, found {json_values.shown(entry)}")


def _category(entry: dict[str, Any], number: int) -> Category:
    colour, extras, above = entry.get("colour"), entry.get("extras"), entry.get("supercategory")
    is_colour = isinstance(colour, list) and len(colour) == 3 and all(type(c) is int and 0 <= c < 256 for c in colour)
    is_extras = isinstance(extras, dict) and all(isinstance(values, dict) for values in extras.values())
    return Category(
        entry["name"],
        number,
        above if isinstance(above, str) else None,
        (colour[0], colour[1], colour[2]) if is_colour and colour else None,
        extras if is_extras and extras else {},
    )


def _from_csv(data: bytes) -> Table:
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = {name.strip().lower(): name for name in rows.fieldnames or () if name}
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: expected CSV in UTF-8, found other bytes") from None
    named = columns.get("name") or columns.get("class")
    if named is None or "id" not in columns:
        raise ValueError(f"line 1: expected the columns id and name, found {', '.join(columns) or 'none'}")
    table = Table()
    for row in rows:
        name = row.get(named)
        if not name:
            raise ValueError(f"line {rows.line_num}: expected a class name, found none")
        number = number_of(row.get(columns["id"]), f"line {rows.line_num}: id")
        if "image" in columns:
            place = table.named.get(name)
            place = table.append(Category(name, len(table.categories) + 1)) if place is None else place
            table.of_image.setdefault(stem(row.get(columns["image"]) or ""), {})[number] = place
        else:
            table.add(name, number)
    return table


def number_of(value: Any, what: str) -> int:
    """A number that an id map can hold. Raises `ValueError`."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        raise ValueError(f"expected {what} as a whole number of 0 or more, found {json_values.shown(value)}")
    return value
