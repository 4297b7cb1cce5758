"""One XML annotation of VOC: its elements to the record's, and back.

Boxes are 1-based and inclusive in VOC: `xmin` 1 is the left edge of the first pixel, `xmax` W the right edge of the last.
So x1 = xmin - 1 and x2 = xmax in continuous coordinates; fractions are kept, in decimal, without rounding.

    difficult truncated occluded   bool attributes
    pose                           a str attribute; tools break where this or one of the first two is missing, so it is
                                   written even then, marked default="yes", and passed over when read
    attributes/attribute           name and value of any other, as datumaro and CVAT have them; a value that is not plain
                                   text is JSON, and so is text that would read as JSON
    rayseg                         JSON of what VOC has no place for: the object's `instance` in SegmentationObject (others
                                   go by the order), `crowd`, `score`, `group`, `box` false where only a mask came, and
                                   other formats' `extras`
    anything else                  kept as it is under extras["voc"]["elements"], as [tag, text or elements, XML attributes]
"""

from __future__ import annotations

import decimal
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from rayseg.annotations import Annotation, Box
from rayseg.formats.instance_notes import extras_in
from rayseg.formats.shapes import COORDINATE_MAX

FLAGS = ("difficult", "truncated", "occluded")
_EXPECTED = {"pose": "Unspecified", "truncated": "0", "difficult": "0"}
_DEFAULT = {"default": "yes"}
_YES, _NO = {"1", "true", "yes"}, {"0", "false", "no", ""}
_DECIMAL = decimal.Context(prec=60)
_NUMBER_CHARS = 80
_LEAST = 1e-40  # pixels; less is 0
_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_TAG = re.compile(r"[^\W\d][\w.:-]*")
_DEPTH_MAX = 32
NOTE = "rayseg"
_OBJECT_TAGS = {"name", "bndbox", "attributes", "pose", NOTE, *FLAGS}
_IMAGE_TAGS = {"filename", "size", "segmented", "object", "attributes", NOTE}


class BadBox(ValueError):
    """A `bndbox` that is none."""


class Thing(NamedTuple):
    """One `object`: its class, its annotation (category 0, no shape) and the number it gives itself."""

    name: str
    annotation: Annotation
    instance: int | None
    has_box: bool = True


def speakable(text: str) -> bool:
    """Whether XML can hold the text so that it reads back the same."""
    return bool(text) and text == text.strip() and not _UNSPEAKABLE.search(text) and "\r" not in text


def spoken(text: str) -> str:
    """The text with what XML cannot hold replaced or cut, never empty."""
    return _UNSPEAKABLE.sub("\ufffd", text).replace("\r", " ").strip() or "\ufffd"


# ---- reading; what is wrong is a ValueError that says what was expected and found


def text_of(parent: Element, tag: str) -> str:
    """The text of a child without the space around it; "" where there is no such child."""
    child = parent.find(tag)
    return "" if child is None else (child.text or "").strip()


def size_of(root: Element) -> tuple[int, int] | None:
    """The image's (H, W); None where it is missing or 0, as some tools write it."""
    size = root.find("size")
    if size is None:
        return None
    height, width = (_number(text_of(size, tag) or "0", f"size/{tag}") for tag in ("height", "width"))
    if not float(height).is_integer() or not float(width).is_integer():
        raise ValueError(f"expected size in whole pixels, found {width} x {height}")
    return (int(height), int(width)) if height and width else None


def thing_of(element: Element) -> Thing:
    """One `object` element."""
    name = text_of(element, "name")
    if not name:
        raise ValueError("expected a name, found none")
    box, note = element.find("bndbox"), note_of(element)
    annotation = Annotation(
        0,
        None if box is None else box_of(box),
        crowd=note.get("crowd") is True,
        score=_number_or_none(note.get("score"), 0.0, 1.0),
        group=_whole_or_none(note.get("group")),
        attributes=_flags(element) | attributes_of(element),
        extras={**extras_in(note), **extras_of(element, _OBJECT_TAGS)},
    )
    return Thing(name, annotation, _whole_or_none(note.get("instance")), note.get("box") is not False)


def note_of(element: Element) -> dict[str, Any]:
    """What stands in the `rayseg` element; {} where there is none, or none of rayseg's."""
    text = text_of(element, NOTE)
    value = _value(text) if text else None
    return value if isinstance(value, dict) else {}


def attributes_of(element: Element) -> dict[str, Any]:
    """What stands under `attributes`."""
    found = {}
    for attribute in element.findall("attributes/attribute"):
        name, value = text_of(attribute, "name"), attribute.find("value")
        if name and value is not None:
            found[name] = _value(value.text or "")
    return found


def extras_of(element: Element, known: Iterable[str] = _IMAGE_TAGS) -> dict[str, dict[str, Any]]:
    """Children that are not `known`, and the element's own XML attributes, as extras; {} where there are none."""
    others: dict[str, Any] = {}
    kept = [_plain(child) for child in element if child.tag not in known]
    if kept:
        others["elements"] = kept
    if element.attrib:
        others["xml"] = dict(element.attrib)
    return {"voc": others} if others else {}


def box_of(element: Element) -> Box:
    """A `bndbox` in continuous coordinates. Raises `BadBox`."""
    try:
        left, top, right, bottom = (_number(text_of(element, tag), tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise BadBox(str(error)) from None
    one = decimal.Decimal(1)
    box = (float(_DECIMAL.subtract(left, one)), float(_DECIMAL.subtract(top, one)), float(right), float(bottom))
    if box[0] > box[2] or box[1] > box[3]:
        raise BadBox(f"expected xmin <= xmax and ymin <= ymax, found {left}, {top}, {right}, {bottom}")
    return box


def _number(text: str, tag: str) -> decimal.Decimal:
    try:
        value = decimal.Decimal(text) if len(text) <= _NUMBER_CHARS else decimal.Decimal("nan")
    except decimal.InvalidOperation:
        value = decimal.Decimal("nan")
    if not value.is_finite() or abs(value) > COORDINATE_MAX:
        raise ValueError(f"expected {tag} as a finite number, found {text[:_NUMBER_CHARS]!r}")
    return value


def _flags(element: Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in element:
        text = (child.text or "").strip()
        if child.attrib == _DEFAULT:
            continue
        if child.tag in FLAGS:
            found[child.tag] = True if text.lower() in _YES else False if text.lower() in _NO else text
        elif child.tag == "pose":
            found["pose"] = text
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _plain(element: Element) -> list[Any]:
    content: Any = [_plain(child) for child in element] if len(element) else (element.text or "").strip()
    return [element.tag, content, dict(element.attrib)] if element.attrib else [element.tag, content]


# ---- writing


def document(root: Element) -> bytes:
    """The file of an `annotation` element."""
    indent(root, "\t")
    return tostring(root, encoding="utf-8") + b"\n"


def add_size(root: Element, image_hw: tuple[int, int]) -> None:
    """The `size` element."""
    size = SubElement(root, "size")
    for tag, value in (("width", image_hw[1]), ("height", image_hw[0]), ("depth", 3)):
        SubElement(size, tag).text = str(value)


def add_thing(root: Element, name: str, annotation: Annotation, box: Box, instance: int | None) -> None:
    """An `object` element; its attributes must be such as `holds` names, its extras such as JSON holds."""
    element = SubElement(root, "object", _xml_attributes(annotation.extras))
    SubElement(element, "name").text = name
    attributes = dict(annotation.attributes)
    pose = attributes.get("pose")
    if isinstance(pose, str) and (not pose or speakable(pose)):
        SubElement(element, "pose").text = attributes.pop("pose")
    for tag in FLAGS:
        if isinstance(attributes.get(tag), bool):
            SubElement(element, tag).text = str(int(attributes.pop(tag)))
    for tag, text in _EXPECTED.items():
        if element.find(tag) is None:
            SubElement(element, tag, _DEFAULT).text = text
    bounds = SubElement(element, "bndbox")
    for tag, side, shift in zip(("xmin", "ymin", "xmax", "ymax"), box, (1, 1, 0, 0), strict=True):
        SubElement(bounds, tag).text = _decimal(side, shift)
    add_note(element, _note(annotation, instance))
    add_attributes(element, attributes)
    add_extras(element, annotation.extras)


def add_note(element: Element, note: Mapping[str, Any]) -> None:
    """The `rayseg` element, where there is something to note."""
    if note:
        SubElement(element, NOTE).text = json.dumps(note)


def add_attributes(element: Element, attributes: Mapping[str, Any]) -> None:
    """The `attributes` element, where there are any."""
    if not attributes:
        return
    holder = SubElement(element, "attributes")
    for name, value in attributes.items():
        attribute = SubElement(holder, "attribute")
        SubElement(attribute, "name").text = name
        SubElement(attribute, "value").text = _text(value)


def add_extras(element: Element, extras: Mapping[str, Mapping[str, Any]]) -> None:
    """The elements that `extras_of` kept."""
    for kept in extras.get("voc", {}).get("elements", ()):
        _add_plain(element, kept)


def with_xml_attributes(root: Element, extras: Mapping[str, Mapping[str, Any]]) -> None:
    """The XML attributes that `extras_of` kept."""
    root.attrib.update(_xml_attributes(extras))


def holds(attributes: Mapping[str, Any]) -> list[str]:
    """The names of the attributes that can be written: such as XML can hold, with values that JSON can."""
    return [name for name, value in attributes.items() if speakable(name) and _is_json(value)]


def _xml_attributes(extras: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return _spoken_attributes(extras.get("voc", {}).get("xml"))


def _decimal(side: float, shift: int) -> str:
    side = 0.0 if abs(side) < _LEAST else float(side)
    exact = _DECIMAL.add(decimal.Decimal(repr(side)), decimal.Decimal(shift))
    text = format(exact, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(value: Any) -> str:
    """The value so that `_value` gives it back: JSON, or plain text that is not."""
    if isinstance(value, str) and (not value or speakable(value)) and isinstance(_value(value), str):
        return value if _value(value) == value else json.dumps(value)
    return json.dumps(value)


def _note(annotation: Annotation, instance: int | None) -> dict[str, Any]:
    note: dict[str, Any] = {} if instance is None else {"instance": instance}
    if annotation.crowd:
        note["crowd"] = True
    if annotation.score is not None:
        note["score"] = annotation.score
    if annotation.group is not None:
        note["group"] = annotation.group
    if annotation.box_xyxy is None:
        note["box"] = False
    return note | extras_note(annotation.extras)


def extras_note(extras: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Extras of other formats, as a part of a note."""
    others = {name: dict(values) for name, values in extras.items() if name != "voc" and values}
    return {"extras": others} if others else {}


def _number_or_none(value: Any, least: float, most: float) -> float | None:
    return float(value) if type(value) in (int, float) and least <= value <= most else None


def _whole_or_none(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 1 << 63 else None


def _is_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        return False


def _add_plain(parent: Element, kept: Any, depth: int = 0) -> None:
    """What `_plain` made; anything else, which someone else put there, is passed over."""
    if depth > _DEPTH_MAX or not isinstance(kept, list) or len(kept) not in (2, 3) or not _is_tag(kept[0]):
        return
    element = SubElement(parent, kept[0], _spoken_attributes(kept[2] if len(kept) > 2 else {}))
    if isinstance(kept[1], str):
        element.text = _UNSPEAKABLE.sub("\ufffd", kept[1])
    elif isinstance(kept[1], list):
        for child in kept[1]:
            _add_plain(element, child, depth + 1)


def _spoken_attributes(found: Any) -> dict[str, str]:
    items = found.items() if isinstance(found, dict) else ()
    return {tag: _UNSPEAKABLE.sub("\ufffd", text) for tag, text in items if _is_tag(tag) and isinstance(text, str)}


def _is_tag(name: Any) -> bool:
    return isinstance(name, str) and _TAG.fullmatch(name) is not None
