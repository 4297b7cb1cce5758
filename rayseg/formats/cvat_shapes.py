"""One shape element of CVAT's XML, to and from what the record holds of it.

`box` (with `rotation` in degrees, clockwise, about its centre), `polygon`, `mask` (run lengths row by row within its
rectangle, the first of what is outside), `ellipse`, `polyline`, `points`; `skeleton` and `cuboid` as their points.
Source: CVAT's `dataset_manager/formats/cvat.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from rayseg.annotations import Annotation, Box, Ellipse, Mask, Points, Polygons, Polyline, Shape
from rayseg.formats import shapes
from rayseg.formats.crops import crop_of, mask_of
from rayseg.formats.cvat_text import escaped, number, plain, points, points_text, tag, whole
from rayseg.formats.safe_xml import line_of

TAGS = ("box", "polygon", "mask", "ellipse", "polyline", "points", "skeleton", "cuboid")
_BOX = ("xtl", "ytl", "xbr", "ybr")
_CUBOID = tuple(f"{axis}{corner}{face}" for face in "12" for corner in ("tl", "bl", "tr", "br") for axis in "xy")
_GEOMETRY = {
    "box": (*_BOX, "rotation"),
    "mask": ("rle", "left", "top", "width", "height"),
    "ellipse": ("cx", "cy", "rx", "ry", "rotation"),
    "skeleton": (),
    "cuboid": _CUBOID,
}
_MASK_PIXELS_MAX = 100_000_000


class Item(NamedTuple):
    """An element as plain values, which a file on disk can hold: tag, XML attributes, (name, text, is JSON) of each
    `attribute`, child items, and its line."""

    tag: str
    xml: dict[str, str]
    attributes: list[list[Any]]
    children: list[Any]
    line: int


def item_of(element: Element) -> Item:
    """A shape or tag element as an `Item`."""
    found = element.iterfind("attribute")
    attributes: list[list[Any]] = [[e.get("name", ""), e.text or "", e.get("json") == "1"] for e in found]
    children = [item_of(child) for child in element if child.tag in TAGS]
    return Item(element.tag, dict(element.attrib), attributes, children, line_of(element))


def geometry(item: Item, image_hw: tuple[int, int] | None) -> tuple[Box | None, Shape | None, dict[str, Any]]:
    """Box, shape and what else must be kept of an element's form; a `mask` needs its image's size. Raises `ValueError`."""
    xml = item.xml
    if item.tag == "box":
        x1, y1, x2, y2 = box = _box(xml)
        angle = number(xml.get("rotation", "0"), "rotation")
        if angle == 0:
            return box, None, {}
        if x1 > x2 or y1 > y2:
            raise ValueError(f"expected xtl <= xbr and ytl <= ybr, found {box}")
        return None, Polygons(((rotated(box, angle),),)), {"rotated": [*box, angle]}
    if item.tag == "polygon":
        return None, shapes.rings_to_polygons([points(xml.get("points"))]), {}
    if item.tag == "mask":
        return None, _mask(xml, image_hw), {}
    if item.tag == "ellipse":
        x, y, rx, ry = (number(xml.get(key), key) for key in ("cx", "cy", "rx", "ry"))
        return None, Ellipse((x, y), (rx, ry), number(xml.get("rotation", "0"), "rotation")), {}
    if item.tag == "polyline":
        return None, Polyline(points(xml.get("points"))), {}
    if item.tag == "points":
        return None, Points(points(xml.get("points"))), {}
    if item.tag == "cuboid":
        return None, Points(np.array([number(xml.get(key), key) for key in _CUBOID]).reshape(8, 2)), {"cuboid": True}
    return _skeleton(item)


def other_xml(item: Item, known: frozenset[str]) -> dict[str, str]:
    """The XML attributes that are neither geometry nor `known`."""
    form = _GEOMETRY.get(item.tag, ("points",))
    return {key: value for key, value in item.xml.items() if key not in known and key not in form}


def elements(annotation: Annotation, extras: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Tag, XML attributes and inner lines of the elements that draw an annotation: one, but for parts of polygons.

    Polygons must have no holes. `extras` are those of `geometry`, and count while they fit the shape.
    """
    shape = annotation.shape
    if shape is None:
        if annotation.box_xyxy is not None:
            yield "box", dict(zip(_BOX, map(plain, annotation.box_xyxy), strict=True)), []
    elif isinstance(shape, Polygons):
        rotated_box = _rotated_xml(shape, extras.get("rotated"))
        if rotated_box is not None:
            yield "box", rotated_box, []
            return
        for part in shape.parts:
            yield "polygon", {"points": points_text(part[0])}, []
    elif isinstance(shape, Mask):
        yield "mask", _mask_xml(shape), []
    elif isinstance(shape, Ellipse):
        numbers = (*shape.centre_xy, *shape.radii_xy, shape.angle)
        pairs = zip(_GEOMETRY["ellipse"], map(plain, numbers), strict=True)
        yield "ellipse", {key: text for key, text in pairs if key != "rotation" or shape.angle != 0}, []
    elif isinstance(shape, Polyline):
        yield "polyline", {"points": points_text(shape.points)}, []
    else:
        yield _points_element(shape, extras)


def rotated(box: Box, angle: float) -> np.ndarray:
    """The corners (4, 2) of a box turned clockwise on the screen by `angle` degrees about its centre."""
    x1, y1, x2, y2 = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) - centre
    return corners @ np.array([[cos, sin], [-sin, cos]]) + centre


def _box(xml: dict[str, str]) -> Box:
    x1, y1, x2, y2 = (number(xml.get(key), key) for key in _BOX)
    return x1, y1, x2, y2


def _rotated_xml(shape: Polygons, kept: Any) -> dict[str, str] | None:
    if not isinstance(kept, list) or len(kept) != 5 or len(shape.parts) != 1 or len(shape.parts[0]) != 1:
        return None
    box = (kept[0], kept[1], kept[2], kept[3])
    if not np.array_equal(rotated(box, kept[4]), shape.parts[0][0]):
        return None
    return dict(zip(_GEOMETRY["box"], map(plain, kept), strict=True))


def _mask(xml: dict[str, str], image_hw: tuple[int, int] | None) -> Mask:
    if image_hw is None:
        raise ValueError("expected the size of the image, which a mask needs, found neither it nor the image")
    left, top, width, height = (whole(xml.get(key), key) for key in ("left", "top", "width", "height"))
    if left + width > image_hw[1] or top + height > image_hw[0] or width * height > _MASK_PIXELS_MAX:
        raise ValueError(
            f"expected a mask inside the image of {image_hw[1]}x{image_hw[0]} pixels, "
            f"found one of {width}x{height} at ({left}, {top})"
        )
    try:
        runs = np.array([int(run) for run in xml.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"expected rle as run lengths, found {xml.get('rle', '')[:80]!r}") from None
    if runs.min() < 0 or runs.max() > width * height or int(runs.sum()) != width * height:
        raise ValueError(f"expected rle of {width}x{height} pixels, found runs of {int(runs.sum())} in all")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return mask_of(left, top, pixels, image_hw)


def _mask_xml(mask: Mask) -> dict[str, str]:
    left, top, pixels = crop_of(mask)
    flat = pixels.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    rle = ", ".join(map(str, [0, *runs] if flat[0] else runs))
    height, width = pixels.shape
    return {"rle": rle, "left": str(left), "top": str(top), "width": str(width), "height": str(height)}


def _skeleton(item: Item) -> tuple[None, Points, dict[str, Any]]:
    """The points of all its elements, and the elements without them."""
    bones, places = [], []
    for child in (Item(*values) for values in item.children):
        if child.tag != "points":
            raise ValueError(f"expected a skeleton of points, found {child.tag!r} in it")
        found = points(child.xml.get("points"))
        xml = {key: value for key, value in child.xml.items() if key != "points"}
        bones.append({"xml": xml, "count": len(found), "attributes": child.attributes})
        places.append(found)
    if not places:
        raise ValueError("expected a skeleton of points, found none in it")
    return None, Points(np.concatenate(places)), {"skeleton": bones}


def _points_element(shape: Points, extras: dict[str, Any]) -> tuple[str, dict[str, str], list[str]]:
    bones = extras.get("skeleton")
    if extras.get("cuboid") and len(shape.points) == 8:
        return "cuboid", dict(zip(_CUBOID, map(plain, shape.points.reshape(-1).tolist()), strict=True)), []
    if not isinstance(bones, list) or sum(bone["count"] for bone in bones) != len(shape.points):
        return "points", {"points": points_text(shape.points)}, []
    lines, at = [], 0
    for bone in bones:
        xml = bone["xml"] | {"points": points_text(shape.points[at : at + bone["count"]])}
        at += bone["count"]
        lines += [tag("points", xml), *attribute_lines(bone["attributes"]), "</points>"]
    return "skeleton", {}, lines


def attribute_lines(attributes: list[list[Any]]) -> Iterator[str]:
    """`attribute` elements out of (name, text, is JSON)."""
    for name, text, is_json in attributes:
        xml = {"name": name, "json": "1"} if is_json else {"name": name}
        yield f"{tag('attribute', xml)}{escaped(text)}</attribute>"
