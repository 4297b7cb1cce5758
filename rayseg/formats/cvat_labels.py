"""The `<meta>` of CVAT's XML: labels, what attributes they have, and what else it says of a task or project.

A label's attributes are declared: `checkbox` values are read as bools, `number` values as numbers, all others as text. A
value that its declaration does not give back as it was carries `json="1"`, which CVAT passes over, and is JSON.
Source: CVAT's "XML annotation format" and `dataset_manager/bindings.py` (what it puts under `meta`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

from rayseg.annotations import Category
from rayseg.formats import shapes
from rayseg.formats.cvat_text import escaped, spoken

SCORE, CROWD, OBJECT = "rayseg_score", "rayseg_crowd", "rayseg_object"  # declared attributes, so that CVAT keeps them
OWN = "rayseg"  # an element in a label, for what CVAT's labels do not have
_NUMBER = re.compile(r"-?\d{1,18}(\.\d+)?([eE][+-]?\d{1,3})?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_SPEC_KEYS = ("name", "mutable", "input_type", "default_value", "values")
_LABEL_TAGS = {"name", "color", "attributes", OWN}
_MODE = (["mode", "annotation"], ["overlap", "0"], ["flipped", "False"])
_PLAIN_TASK = (["task", [["id", "0"], ["name", "rayseg"], ["size", ""], *_MODE, ["subset", ""]]],)


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a video: `size` frames from `start`, `step` apart, each of `image_hw`; None where that is not said."""

    id: str
    size: int | None = None
    start: int = 0
    step: int = 1
    image_hw: tuple[int, int] | None = None
    subset: str | None = None


@dataclass(slots=True)
class Meta:
    """What a file says of itself; `rest` is all of `<meta>` but its labels, as [tag, text or such pairs]."""

    categories: list[Category] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    rest: list[Any] = field(default_factory=list)


def meta_of(element: Element | None) -> Meta:
    """Read a `<meta>` element. Raises `ValueError` that says what is wrong."""
    if element is None:
        return Meta()
    labels = next(element.iter("labels"), None)
    found = [] if labels is None else list(labels.iterfind("label"))
    parents = {text_of(label, "parent") for label in found}
    categories = [_category(label, found, parents) for label in found if not text_of(label, "parent")]
    names = [category.name for category in categories]
    if len(set(names)) < len(names):
        raise ValueError(
            f"expected labels of different names, found {next(n for n in names if names.count(n) > 1)!r} twice"
        )
    tasks = [_task(task) for tag in ("task", "job") for task in element.iter(tag)]
    return Meta(categories, tasks, _nested(element))


def text_of(element: Element, tag: str) -> str:
    """The text of a child; "" where there is none. Space around it counts only where it stands on one line."""
    text = element.findtext(tag) or ""
    return text.strip() if "\n" in text else text


def specs_of(category: Category) -> dict[str, dict[str, str]]:
    """A category's declared attributes by name."""
    specs = category.extras.get("cvat", {}).get("attributes", ())
    return {spec["name"]: dict(spec) for spec in specs}


def value_of(text: str, spec: dict[str, str] | None, is_json: bool) -> Any:
    """An attribute's value out of its text."""
    if is_json:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    kind = spec.get("input_type") if spec else None
    if kind == "checkbox" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind == "number" and (match := _NUMBER.fullmatch(text)):
        return float(text) if match[1] or match[2] else int(text)
    return text


def text_and_json(value: Any, spec: dict[str, str] | None) -> tuple[str, bool]:
    """The text for a value, and whether it is JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    back = value_of(text, spec, False)
    if type(back) is type(value) and back == value and spoken(text) == text:
        return text, False
    return json.dumps(value), True


class Declarations:
    """The attributes that labels have, as far as annotations were written."""

    def __init__(self, categories: tuple[Category, ...]) -> None:
        self._known = [specs_of(category) for category in categories]
        self._seen: list[dict[str, set[type]]] = [{} for _ in categories]
        self._extremes: dict[tuple[int, str], tuple[int, int]] = {}

    def known(self, category: int, name: str) -> dict[str, str] | None:
        """The declaration that came with the data set."""
        return self._known[category].get(name)

    def note(self, category: int, name: str, value: Any) -> None:
        """One value that is written."""
        if name not in self._known[category]:
            self._seen[category].setdefault(name, set()).add(type(value))
            if type(value) is int:
                low, high = self._extremes.get((category, name), (value, value))
                self._extremes[category, name] = min(low, value), max(high, value)

    def of(self, category: int) -> Iterator[dict[str, str]]:
        """All declarations of a label: those that came, then one for each new name by the types of its values."""
        yield from self._known[category].values()
        for name, types in self._seen[category].items():
            kind, default, values = "text", "", ""
            if types == {bool}:
                kind, default, values = "checkbox", "false", "false"
            elif types == {int}:
                low, high = self._extremes[category, name]
                kind, default, values = "number", str(low), f"{low}\n{high}\n1"
            yield dict(zip(_SPEC_KEYS, (name, "True", kind, default, values), strict=True))


def written_meta(
    rest: list[Any] | None, categories: tuple[Category, ...], declared: Declarations, sizes: dict[str | None, int]
) -> Iterator[str]:
    """The lines of `<meta>`: the `rest` that came, or a plain one, with labels and numbers as they are.

    `sizes` is the number of images in each subset. A plain one is that of a task, or of a project where there are subsets.
    """
    subsets = [subset for subset in sizes if subset is not None]
    rest = list(rest or (_plain_project(sizes) if subsets else _PLAIN_TASK))
    whole = next((pair for pair in rest if pair[0] in ("task", "project", "job") and isinstance(pair[1], list)), None)
    if whole is None:
        rest.insert(0, whole := ["task", []])
    own = ["subsets", "\n".join(subsets)] if whole[0] == "project" else ["size", str(sum(sizes.values()))]
    yield "  <meta>\n"
    for pair in rest:
        if pair is not whole:
            yield from _lines(pair, 2)
            continue
        yield f"    <{pair[0]}>\n"
        for child in pair[1] if any(child[0] == own[0] for child in pair[1]) else [*pair[1], own]:
            yield from _lines(own if child[0] == own[0] else child, 3)
        yield "      <labels>\n"
        for i, category in enumerate(categories):
            for label in _label(category, list(declared.of(i))):
                yield from _lines(label, 4)
        yield f"      </labels>\n    </{pair[0]}>\n"
    yield "  </meta>\n"


def _plain_project(sizes: dict[str | None, int]) -> list[Any]:
    tasks = [
        ["task", [["id", str(i)], ["name", subset or "default"], ["size", str(size)], *_MODE, ["subset", subset or ""]]]
        for i, (subset, size) in enumerate(sizes.items())
    ]
    return [["project", [["id", "0"], ["name", "rayseg"], ["tasks", tasks]]]]


def _category(label: Element, all_labels: list[Element], parents: set[str]) -> Category:
    name = text_of(label, "name")
    if not name:
        raise ValueError("expected labels with a name, found one without")
    specs = [{key: text_of(spec, key) for key in _SPEC_KEYS} for spec in label.iterfind("attributes/attribute")]
    extras: dict[str, Any] = {"attributes": specs} if specs else {}
    others = [_pair(child) for child in label if child.tag not in _LABEL_TAGS and _pair(child) != ["type", "any"]]
    if others:
        extras["others"] = others
    if name in parents:
        extras["parts"] = [_pair(other) for other in all_labels if text_of(other, "parent") == name]
    colour = text_of(label, "color")
    rgb = (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)) if _COLOUR.fullmatch(colour) else None
    try:
        own = json.loads(text_of(label, OWN) or "{}")
        source_id, above = own.get("source_id"), own.get("supercategory")
    except (ValueError, AttributeError, RecursionError):
        source_id = above = None
    return Category(
        name,
        source_id if type(source_id) is int else None,
        above if isinstance(above, str) else None,
        rgb,
        {"cvat": extras} if extras else {},
    )


def _label(category: Category, specs: list[dict[str, str]]) -> Iterator[list[Any]]:
    """The `label` pairs of one category: its own, and those of a skeleton's points."""
    extras = category.extras.get("cvat", {})
    label: list[Any] = [["name", spoken(category.name)]]
    if category.colour is not None:
        label.append(["color", "#{:02x}{:02x}{:02x}".format(*category.colour)])
    others = extras.get("others", [])
    label += others if any(pair[0] == "type" for pair in others) else [["type", "any"], *others]
    label.append(["attributes", [["attribute", [[key, spec.get(key, "")] for key in _SPEC_KEYS]] for spec in specs]])
    own = {"source_id": category.source_id, "supercategory": category.supercategory}
    own = {key: value for key, value in own.items() if value is not None}
    if own:
        label.append([OWN, json.dumps(own)])
    yield ["label", label]
    yield from extras.get("parts", ())


def _task(task: Element) -> Task:
    size, start = (_whole(text_of(task, tag)) for tag in ("size", "start_frame"))
    step = re.search(r"step\s*=\s*(\d{1,9})", text_of(task, "frame_filter"))
    height, width = (_whole(text_of(task, f"original_size/{tag}")) for tag in ("height", "width"))
    image_hw = (height, width) if height and width else None
    if image_hw and (reason := shapes.hw_fault(image_hw)):
        raise ValueError(reason)
    stride = max(int(step[1]), 1) if step else 1
    return Task(text_of(task, "id"), size, start or 0, stride, image_hw, text_of(task, "subset") or None)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


def _nested(element: Element) -> list[Any]:
    return [_pair(child) for child in element if child.tag != "labels"]


def _pair(element: Element) -> list[Any]:
    if len(element):
        return [element.tag, _nested(element)]
    return [element.tag, (element.text or "") if (element.text or "").strip() else ""]


def _lines(pair: Any, depth: int) -> Iterator[str]:
    tag, content = pair
    space = "  " * depth
    if isinstance(content, str):
        yield f"{space}<{tag}>{escaped(content)}</{tag}>\n"
        return
    yield f"{space}<{tag}>\n"
    for child in content:
        yield from _lines(child, depth + 1)
    yield f"{space}</{tag}>\n"
