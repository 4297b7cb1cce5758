"""Which attribute of VIA's regions is their class, and what class each region is of.

VIA has no classes, only attributes that people name. The class attribute is the one asked for; else the first of
`CLASS_NAMES`, in their order and in any case, that some region has a value for; else the one that most regions have a value
for, of these the one with the fewest different values, of these the first to occur.

A region without a value for it is of the class that another of its attributes names; else of the only class there is; else
of the class "object". Options that are numbered are called by their description; ticked boxes are joined by "+".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CLASS_NAMES = (
    "class", "label", "category", "type", "name", "object", "class_name", "classname", "object_type", "object_name", "species",
)  # fmt: skip
DEFAULT_ATTRIBUTE = "class"
DEFAULT_CLASS = "object"
UNLABELLED = "rayseg_unlabelled"  # marks regions whose class was found by the rule
_OWN_PREFIX = "rayseg_"


@dataclass(slots=True)
class Classes:
    """The class attribute, its classes in order, and the `options` that stand for some of them."""

    attribute: str
    names: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)  # option to class

    def of(self, attributes: Mapping[str, Any]) -> tuple[str, bool]:
        """The class of a region, and whether the class attribute says it."""
        name = self.name_of(attributes.get(self.attribute))
        if name is not None:
            return name, True
        others = (value for value in attributes.values() if isinstance(value, str) and value in self.names)
        return next(others, self.names[0] if len(self.names) == 1 else DEFAULT_CLASS), False

    def name_of(self, value: Any) -> str | None:
        """What a value of the class attribute names; None for no value."""
        if isinstance(value, dict):
            ticked = [str(self.name_of(key)) for key, on in value.items() if on in (True, "true", 1) and key]
            return "+".join(ticked) or None
        if isinstance(value, str):
            return self.options.get(value, value) or None
        return None if value is None else json.dumps(value)


def find(regions: Iterable[Mapping[str, Any]], declared: Mapping[str, Any], asked: str | None) -> Classes:
    """The classes of a data set, from the attributes of its `regions` and what a project `declared` of them."""
    regions = list(regions)
    classes = Classes(asked or _attribute(regions))
    classes.options = _options(declared.get(classes.attribute))
    names = dict.fromkeys(classes.options.values())
    for attributes in sorted(regions, key=lambda attributes: attributes.get(UNLABELLED) is True):  # these come last
        name = classes.name_of(attributes.get(classes.attribute))
        if name is not None:
            names[name] = None
    classes.names = list(names)
    if any(classes.of(attributes)[0] == DEFAULT_CLASS for attributes in regions) and DEFAULT_CLASS not in names:
        classes.names.append(DEFAULT_CLASS)
    return classes


def _attribute(regions: list[Mapping[str, Any]]) -> str:
    """The attribute that is the class, by the rule above."""
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for attributes in regions:
        for name, value in attributes.items():
            if value not in (None, "", {}) and name and not name.startswith(_OWN_PREFIX):
                values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
                counts[name] = counts.get(name, 0) + 1
    for wanted in CLASS_NAMES:
        for name in counts:
            if name.lower() == wanted:
                return name
    return min(counts, key=lambda name: (-counts[name], len(values[name])), default=DEFAULT_ATTRIBUTE)


def _options(declaration: Any) -> dict[str, str]:
    """Option to class, for an attribute that is chosen from a list."""
    options = declaration.get("options") if isinstance(declaration, dict) else None
    if not isinstance(options, dict):
        return {}
    return {
        option: text if option.isdecimal() and isinstance(text, str) and text else option
        for option, text in options.items()
        if option
    }
