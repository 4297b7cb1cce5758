"""What pixels cannot say of an object, as a JSON entry beside the mask: box, flags, score, group, attributes, extras."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from rayseg.annotations import Annotation, Box, Mask
from rayseg.formats import json_values, shapes
from rayseg.formats.keeping import keep_extras, keep_values
from rayseg.formats.losses import Losses
from rayseg.storage.entry import scheme_of


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """A JSON file: UTF-8, with escapes only where text holds half a surrogate pair."""
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()


def entry_of(annotation: Annotation, losses: Losses, own: str) -> dict[str, Any]:
    """The entry without the class and the mask; `own` is the format whose extras are not written."""
    entry: dict[str, Any] = {}
    if annotation.box_xyxy is not None:
        entry["box"] = [float(side) for side in annotation.box_xyxy]
    if annotation.crowd:
        entry["crowd"] = True
    if annotation.score is not None:
        entry["score"] = float(annotation.score)
    if annotation.group is not None:
        entry["group"] = annotation.group
    return entry | rest_of(annotation.attributes, annotation.extras, losses, own)


def rest_of(
    attributes: Mapping[str, Any], extras: Mapping[str, Mapping[str, Any]], losses: Losses, own: str
) -> dict[str, Any]:
    """Attributes and extras under these names, where there are any."""
    kept, others = keep_values(attributes, "attribute", losses), keep_extras(extras, losses, own)
    return ({"attributes": kept} if kept else {}) | ({"extras": others} if others else {})


def annotation_of(entry: Mapping[str, Any], category: int, mask: Mask | None) -> Annotation:
    """The annotation of an entry. Raises `ValueError` for a broken box, and where there is neither box nor mask."""
    box, score, group = entry.get("box"), entry.get("score"), entry.get("group")
    annotation = Annotation(
        category,
        None if box is None else _box(box),
        mask,
        entry.get("crowd") is True,
        float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None,
        group if type(group) is int else None,
        attributes_in(entry),
        extras_in(entry),
    )
    fault = shapes.fault(annotation, None)
    if fault is not None or (box is None and mask is None):
        raise ValueError(fault[1] if fault else "expected a mask or a box, found neither")
    return annotation


def attributes_in(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an entry."""
    value = entry.get("attributes")
    return value if isinstance(value, dict) else {}


def extras_in(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The extras of an entry."""
    value = entry.get("extras")
    return value if isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values()) else {}


def text_in(entry: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`; None where there is none, or one that JSON can spell and nothing else can hold."""
    value = entry.get(key)
    return value if isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value else None


def uri_in(entry: Mapping[str, Any], key: str = "uri") -> str | None:
    """Where an image lies that is not beside its annotations; None for a relative path, which depends on who reads."""
    uri = text_in(entry, key)
    return uri if uri and "\0" not in uri and (scheme_of(uri) or os.path.isabs(uri)) else None


def noted_uri(uri: str) -> str:
    """The URI as `uri_in` takes it: a plain path made absolute."""
    return uri if scheme_of(uri) else os.path.abspath(uri)


def hw_in(entry: Mapping[str, Any], height: str = "height", width: str = "width") -> tuple[int, int] | None:
    """The size (H, W) of an entry; None where it has none. Raises `ValueError` for one that cannot be."""
    sides = json_values.side(entry.get(height), height), json_values.side(entry.get(width), width)
    if sides[0] is None or sides[1] is None:
        return None
    if (fault := shapes.hw_fault((sides[0], sides[1]))) is not None:
        raise ValueError(fault)
    return sides[0], sides[1]


def _box(value: Any) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected box as [x1, y1, x2, y2], found {json_values.shown(value)}")
    x1, y1, x2, y2 = (json_values.number(side, "a side of the box") for side in value)
    return x1, y1, x2, y2
