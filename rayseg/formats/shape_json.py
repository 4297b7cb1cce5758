"""Shapes as JSON values, exactly: for files that can hold what their own form of annotations cannot.

    {"polygons": [part, ...]}   a part is its rings, outline first; a ring is x, y, x, y, ... in one list
    {"rle": counts, "size": [height, width]}
    {"ellipse": [x, y, radius_x, radius_y, angle]}
    {"polyline": [x, y, x, y, ...]}   {"points": [x, y, x, y, ...]}

JSON's numbers are float64 in full, so nothing is rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rayseg.annotations import Ellipse, Mask, Points, Polygons, Polyline, Shape


def encode_shape(shape: Shape) -> dict[str, Any]:
    """`shape` as a JSON value; `decode_shape` gives it back, number for number."""
    if isinstance(shape, Polygons):
        return {"polygons": [[_flat(ring) for ring in part] for part in shape.parts]}
    if isinstance(shape, Mask):
        return {"rle": shape.counts.decode("ascii"), "size": list(shape.image_hw)}
    if isinstance(shape, Ellipse):
        return {"ellipse": [*shape.centre_xy, *shape.radii_xy, shape.angle]}
    return {"polyline" if isinstance(shape, Polyline) else "points": _flat(shape.points)}


def decode_shape(value: Any) -> Shape:
    """The shape that `encode_shape` made `value` of. Raises `ValueError` for any other value."""
    try:
        return _decoded(value)
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"expected a shape, found {str(value)[:80]}: {error!r}") from None


def _decoded(value: Any) -> Shape:
    if "polygons" in value:
        return Polygons(tuple(tuple(_points(ring) for ring in part) for part in value["polygons"]))
    if "rle" in value:
        height, width = value["size"]
        return Mask(value["rle"].encode("ascii"), (int(height), int(width)))
    if "ellipse" in value:
        x, y, radius_x, radius_y, angle = (float(number) for number in value["ellipse"])
        return Ellipse((x, y), (radius_x, radius_y), angle)
    if "polyline" in value:
        return Polyline(_points(value["polyline"]))
    return Points(_points(value["points"]))


def _flat(points: np.ndarray) -> list[float]:
    return points.reshape(-1).tolist()


def _points(numbers: Any) -> np.ndarray:
    return np.array(numbers, np.float64).reshape(-1, 2)
