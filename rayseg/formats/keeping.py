"""What a format that holds everything tells the losses: each thing kept, but for values that JSON cannot hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rayseg.annotations import Annotation, Polygons, Polyline
from rayseg.formats import shapes
from rayseg.formats.losses import Losses


def kind_of(annotation: Annotation) -> str:
    """The kind under which losses tell of an annotation's shape: "mask", "box", "polyline" or "points"."""
    if shapes.has_mask(annotation):
        return "mask"
    if annotation.shape is None:
        return "box"
    return "polyline" if isinstance(annotation.shape, Polyline) else "points"


def keep_annotation(annotation: Annotation, losses: Losses) -> None:
    """Tell of shape, holes, parts, crowd flag, group and score; attributes and extras are for `keep_values`."""
    losses.kept(kind_of(annotation))
    if isinstance(annotation.shape, Polygons):
        holes = sum(len(part) - 1 for part in annotation.shape.parts)
        if holes:
            losses.kept("hole", holes)
        if len(annotation.shape.parts) > 1:
            losses.kept("part", len(annotation.shape.parts))
    for kind, given in (
        ("crowd flag", annotation.crowd),
        ("group", annotation.group is not None),
        ("score", annotation.score is not None),
    ):
        if given:
            losses.kept(kind)


def keep_values(values: Mapping[str, Any], kind: str, losses: Losses) -> dict[str, Any]:
    """Those of `values` that JSON can hold; each is told of."""
    found = {}
    for key, value in values.items():
        if is_json(value):
            found[key] = value
            losses.kept(kind)
        else:
            losses.dropped(kind, f"JSON cannot hold {key!r}")
    return found


def keep_extras(extras: Mapping[str, Mapping[str, Any]], losses: Losses, own: str) -> dict[str, Any]:
    """The extras of other formats than `own`, all of them or, where JSON cannot hold them, none."""
    found = {name: dict(values) for name, values in extras.items() if name != own and values}
    if not found:
        return {}
    if is_json(found):
        losses.kept("extra")
        return found
    losses.dropped("extra", "JSON cannot hold it")
    return {}


def is_json(value: Any) -> bool:
    """Whether `value` is one that JSON gives back: numbers, text, lists and objects, down to the last."""
    if value is None or isinstance(value, str | int | float):
        return True
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
