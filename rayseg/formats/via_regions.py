"""VIA's regions, to and from what the record holds of them.

`shape_attributes` by `name`: `rect` (x, y, width, height), `circle` (cx, cy, r), `ellipse` (cx, cy, rx, ry and, in newer
versions, theta in radians, clockwise), `polygon` and `polyline` (all_points_x, all_points_y), `point` (cx, cy).
Source: VIA's `via.js`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rayseg.annotations import Annotation, Box, Ellipse, Points, Polygons, Polyline, Shape
from rayseg.formats import exact_notes, json_values, shapes

_KEYS = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry", "theta"),
    "point": ("cx", "cy"),
    "polygon": ("all_points_x", "all_points_y"),
    "polyline": ("all_points_x", "all_points_y"),
}


def geometry(attributes: dict[str, Any]) -> tuple[Box | None, Shape | None]:
    """Box and shape of `shape_attributes`. Raises `ValueError`."""
    name = attributes.get("name")
    if name in ("polygon", "polyline"):
        points = _points(attributes)
        return None, shapes.rings_to_polygons([points]) if name == "polygon" else Polyline(points)
    if not isinstance(name, str) or name not in _KEYS:
        raise ValueError(f"expected a shape that VIA has, found {json_values.shown(name)}")
    values = [json_values.number(attributes.get(key, 0 if key == "theta" else None), key) for key in _KEYS[name]]
    x, y = values[:2]
    if name == "rect":
        return (x, y, x + values[2], y + values[3]), None
    if name == "circle":
        return None, Ellipse((x, y), (values[2], values[2]))
    if name == "ellipse":
        return None, Ellipse((x, y), (values[2], values[3]), math.degrees(values[4]))
    return None, Points(np.array([[x, y]]))


def others(attributes: dict[str, Any]) -> dict[str, Any]:
    """What `shape_attributes` have besides the shape."""
    known = _KEYS.get(str(attributes.get("name")), ())
    return {key: value for key, value in attributes.items() if key != "name" and key not in known}


def drawn(annotation: Annotation) -> list[dict[str, Any]]:
    """The `shape_attributes` of the regions that draw an annotation; none where there is nothing to draw.

    VIA has neither holes nor parts nor masks: each part is a polygon, its holes joined to it by bridges.
    """
    shape = annotation.shape
    if shape is None:
        return [] if annotation.box_xyxy is None else [_rect(annotation.box_xyxy)]
    if isinstance(shape, Ellipse):
        return [_ellipse(shape)]
    if isinstance(shape, Polyline):
        return [_many("polyline", shape.points)]
    if isinstance(shape, Points):
        return [{"name": "point", "cx": x, "cy": y} for x, y in map(_plain, shape.points.tolist())]
    return [_many("polygon", ring) for (ring,) in exact_notes.as_rings(shape).parts]


def joined(parts: list[tuple[Box | None, Shape | None]]) -> tuple[Box | None, Shape | None]:
    """One object out of its parts. Raises `ValueError` where they are neither all polygons nor all points."""
    found = [shape for _, shape in parts]
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(shape, Polygons) for shape in found):
        return None, Polygons(tuple(part for shape in found if isinstance(shape, Polygons) for part in shape.parts))
    if all(isinstance(shape, Points) for shape in found):
        return None, Points(np.concatenate([shape.points for shape in found if isinstance(shape, Points)]))
    raise ValueError("expected parts of one object to be all polygons or all points, found others among them")


def _points(attributes: dict[str, Any]) -> np.ndarray:
    xs, ys = attributes.get("all_points_x"), attributes.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        found = f"{json_values.shown(xs)} and {json_values.shown(ys)}"
        raise ValueError(f"expected all_points_x and all_points_y as lists of one length, found {found}")
    for values, name in ((xs, "all_points_x"), (ys, "all_points_y")):
        for value in values:
            json_values.number(value, f"the values of {name}")
    return np.array([xs, ys], np.float64).reshape(2, -1).T.copy()


def _plain(values: list[float]) -> list[float]:
    """Whole numbers as VIA writes them."""
    return [int(value) if float(value).is_integer() else value for value in values]


def _many(name: str, points: np.ndarray) -> dict[str, Any]:
    xs, ys = points[:, 0].tolist(), points[:, 1].tolist()
    return {"name": name, "all_points_x": _plain(xs), "all_points_y": _plain(ys)}


def _rect(box: Box) -> dict[str, Any]:
    x, y, width, height = _plain([box[0], box[1], _to(box[0], box[2]), _to(box[1], box[3])])
    return {"name": "rect", "x": x, "y": y, "width": width, "height": height}


def _to(start: float, end: float) -> float:
    """What has to be added to `start` to come to `end`, to the bit where there is such a number."""
    length = end - start
    tries = (length, math.nextafter(length, math.inf), math.nextafter(length, -math.inf))
    return next((one for one in tries if start + one == end), length)


def _ellipse(shape: Ellipse) -> dict[str, Any]:
    x, y, rx, ry = _plain([*shape.centre_xy, *shape.radii_xy])
    if rx == ry and shape.angle == 0:
        return {"name": "circle", "cx": x, "cy": y, "r": rx}
    theta = math.radians(shape.angle)
    tries = (theta, math.nextafter(theta, math.inf), math.nextafter(theta, -math.inf))
    theta = next((one for one in tries if math.degrees(one) == shape.angle), theta)
    return {"name": "ellipse", "cx": x, "cy": y, "rx": rx, "ry": ry, "theta": theta}
