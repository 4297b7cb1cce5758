"""The columns of rayseg's data set form, and from records to columns and back.

One row per image: the columns of a label run, and beside them what else a record holds. Numbers are float64, so that all
comes back to the last bit; nested columns are built from flat arrays, no Python number is made for a polygon's point.

| column | of | |
|---|---|---|
| `ordinal` `uri` `height` `width` `error` | label run | `ordinal` counts the images |
| `name` `split` `attributes` `extras` `image` | image | JSON text; `image` is the encoded file where it is embedded |
| `instances.category_id` `category` `score` `bbox` `area` `rle` | label run | `bbox` x, y, w, h; `rle` of whatever has a mask |
| `instances.box` | annotation | x1, y1, x2, y2 as it came, null where none did |
| `instances.polygons` | annotation | parts, their rings, x, y, x, y, ...; null where the shape is another |
| `instances.shape` | annotation | other shapes, see `shape_json`; null where `polygons` or `rle` is it |
| `instances.crowd` `group` `attributes` `extras` | annotation | |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rayseg.annotations import AnnotatedImage, Annotation, Mask, Polygons
from rayseg.formats import shapes
from rayseg.formats.parts import ERROR_TYPE
from rayseg.formats.shape_json import decode_shape, encode_shape

NAME = "rayseg"
POLYGONS_TYPE = pa.list_(pa.list_(pa.list_(pa.float64())))
INSTANCE_TYPE = pa.struct(
    [
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("score", pa.float64()),
        ("bbox", pa.list_(pa.float64(), 4)),
        ("area", pa.int64()),
        ("rle", pa.string()),
        ("box", pa.list_(pa.float64(), 4)),
        ("polygons", POLYGONS_TYPE),
        ("shape", pa.string()),
        ("crowd", pa.bool_()),
        ("group", pa.int64()),
        ("attributes", pa.string()),
        ("extras", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("uri", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("instances", pa.list_(INSTANCE_TYPE)),
        ("error", ERROR_TYPE),
        ("name", pa.string()),
        ("split", pa.string()),
        ("attributes", pa.string()),
        ("extras", pa.string()),
        ("image", pa.binary()),
    ]
)
_NOWHERE = [0.0, 0.0, 0.0, 0.0]


# ---- records to columns


def table_of(images: Sequence[AnnotatedImage], first_ordinal: int, class_names: Sequence[str]) -> pa.Table:
    """R images as a table of `SCHEMA`; attributes and extras must be JSON values."""
    counts = [len(image.annotations) for image in images]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    instances = pa.ListArray.from_arrays(offsets, _instances(images, class_names), type=SCHEMA.field("instances").type)
    errors = [image.extras.get(NAME, {}).get("error") for image in images]
    columns = [
        pa.array(range(first_ordinal, first_ordinal + len(images)), pa.int64()),
        pa.array([image.uri for image in images], pa.string()),
        pa.array([image.image_hw and image.image_hw[0] for image in images], pa.int32()),
        pa.array([image.image_hw and image.image_hw[1] for image in images], pa.int32()),
        instances,
        pa.array(errors, ERROR_TYPE),
        pa.array([image.name for image in images], pa.string()),
        pa.array([image.split for image in images], pa.string()),
        pa.array([_text(image.attributes) for image in images], pa.string()),
        pa.array([_text(_without_error(image.extras)) for image in images], pa.string()),
        pa.array([image.data for image in images], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _instances(images: Sequence[AnnotatedImage], class_names: Sequence[str]) -> pa.StructArray:
    found = [annotation for image in images for annotation in image.annotations]
    rles, areas = _masks(images)
    polygons = [one.shape if isinstance(one.shape, Polygons) else None for one in found]
    others = [_other_shape(one, rle) for one, rle in zip(found, rles, strict=True)]
    categories = [annotation.category for annotation in found]
    columns = [
        pa.array(categories, pa.int32()),
        pa.array([class_names[category] for category in categories], pa.string()),
        pa.array([annotation.score for annotation in found], pa.float64()),
        pa.array([_bbox(annotation) for annotation in found], INSTANCE_TYPE.field("bbox").type),
        pa.array(areas, pa.int64()),
        pa.array(rles, pa.string()),
        pa.array([annotation.box_xyxy for annotation in found], INSTANCE_TYPE.field("box").type),
        _nested(polygons),
        pa.array(others, pa.string()),
        pa.array([annotation.crowd for annotation in found], pa.bool_()),
        pa.array([annotation.group for annotation in found], pa.int64()),
        pa.array([_text(annotation.attributes) for annotation in found], pa.string()),
        pa.array([_text(annotation.extras) for annotation in found], pa.string()),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(INSTANCE_TYPE))


def _masks(images: Sequence[AnnotatedImage]) -> tuple[list[str | None], list[int | None]]:
    """The RLE and area of every annotation of all images that has a mask of its image's size."""
    rles: list[str | None] = []
    areas: list[int | None] = []
    for image in images:
        masked = [i for i, one in enumerate(image.annotations) if _fits(one, image.image_hw)]
        found = shapes.rles_of([image.annotations[i] for i in masked], image.image_hw or (0, 0))
        drawn = dict(zip(masked, zip(found.strings(), found.areas().tolist(), strict=True), strict=True))
        for i in range(len(image.annotations)):
            rle, area = drawn.get(i, (None, None))
            rles.append(None if rle is None else rle.decode("ascii"))
            areas.append(area)
    return rles, areas


def _fits(annotation: Annotation, image_hw: tuple[int, int] | None) -> bool:
    if image_hw is None or not shapes.has_mask(annotation):
        return False
    return shapes.hw_fault(image_hw) is None and shapes.fault(annotation, image_hw) is None


def _other_shape(annotation: Annotation, rle: str | None) -> str | None:
    """The shape as JSON where neither `polygons` nor `rle` holds it."""
    shape = annotation.shape
    if shape is None or isinstance(shape, Polygons) or (isinstance(shape, Mask) and rle is not None):
        return None
    return json.dumps(encode_shape(shape))


def _bbox(annotation: Annotation) -> list[float]:
    x1, y1, x2, y2 = shapes.box_of(annotation) or _NOWHERE
    return [x1, y1, x2 - x1, y2 - y1]


def _nested(polygons: Sequence[Polygons | None]) -> pa.ListArray:
    """N lists of parts of rings of numbers, null where there are none."""
    parts = [part for one in polygons if one is not None for part in one.parts]
    rings = [ring.reshape(-1) for part in parts for ring in part]
    numbers = pa.array(np.concatenate([np.empty(0), *rings]))
    of_rings = pa.ListArray.from_arrays(_offsets([len(ring) for ring in rings]), numbers)
    of_parts = pa.ListArray.from_arrays(_offsets([len(part) for part in parts]), of_rings)
    counts = [0 if one is None else len(one.parts) for one in polygons]
    missing = pa.array([one is None for one in polygons], pa.bool_())
    return pa.ListArray.from_arrays(_offsets(counts), of_parts, type=POLYGONS_TYPE, mask=missing)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _text(values: Any) -> str | None:
    return json.dumps(values) if values else None


def _without_error(extras: Any) -> Any:
    own = extras.get(NAME, {})
    if own.get("error") is None:
        return extras
    rest = {key: value for key, value in own.items() if key != "error"}
    return {**{key: value for key, value in extras.items() if key != NAME}, **({NAME: rest} if rest else {})}


# ---- columns to records


@dataclass(slots=True)
class Row:
    """One image's columns by name, and those of its instances, each with its polygons' parts."""

    values: dict[str, Any]
    instances: list[tuple[dict[str, Any], tuple | None]]

    def image(self) -> AnnotatedImage:
        """The image without its annotations. Raises `ValueError` for values that are none of an image."""
        values = self.values
        image_hw = None if values["height"] is None or values["width"] is None else (values["height"], values["width"])
        if image_hw is not None and (reason := shapes.hw_fault(image_hw)):
            raise ValueError(reason)
        extras = _object(values["extras"])
        if values["error"] is not None:
            extras[NAME] = {**extras.get(NAME, {}), "error": values["error"]}
        attributes = _object(values["attributes"])
        return AnnotatedImage(
            values["name"], values["uri"], image_hw, (), values["split"], attributes, extras, values["image"]
        )


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table of `SCHEMA`."""
    instances = table["instances"].combine_chunks()
    flat = instances.flatten()
    parts = _parts(flat.field("polygons"))
    columns = _plain(flat)
    for image, (begin, end) in zip(table.drop_columns(["instances"]).to_pylist(), _spans(instances), strict=True):
        yield Row(image, list(zip(columns[begin:end], parts[begin:end], strict=True)))


def annotation_of(values: dict[str, Any], parts: tuple | None, image_hw: tuple[int, int] | None) -> Annotation:
    """One instance as an annotation. Raises `ValueError` for values that are none of an annotation."""
    if values["category_id"] is None:
        raise ValueError("expected a category_id, found null")
    shape: Any = None
    if parts is not None:
        shape = Polygons(parts)
    elif values["shape"] is not None:
        shape = decode_shape(json.loads(values["shape"]))
    elif values["rle"] is not None:
        if image_hw is None:
            raise ValueError("expected height and width beside an rle, found null")
        shape = Mask(values["rle"].encode("ascii", "replace"), image_hw)
    box = values["box"]
    if box is not None and None in box:
        raise ValueError("expected a box of four numbers, found null in it")
    return Annotation(
        values["category_id"],
        None if box is None else (box[0], box[1], box[2], box[3]),
        shape,
        bool(values["crowd"]),
        values["score"],
        values["group"],
        _object(values["attributes"]),
        _object(values["extras"]),
    )


def _plain(flat: pa.StructArray) -> list[dict[str, Any]]:
    """All fields but `polygons` as Python values."""
    names = [field.name for field in INSTANCE_TYPE if field.name != "polygons"]
    columns = [flat.field(name).to_pylist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _parts(polygons: pa.ListArray) -> list[tuple | None]:
    """N tuples of parts, None where null; rings are copies of one array's pieces."""
    of_parts, missing = polygons.flatten(), polygons.is_null().to_pylist()
    of_rings = of_parts.flatten()
    numbers = of_rings.flatten().to_numpy(zero_copy_only=False)
    rings = [numbers[a:b].reshape(-1, 2) for a, b in _spans(of_rings)]
    parts = [tuple(rings[a:b]) for a, b in _spans(of_parts)]
    return [None if none else tuple(parts[a:b]) for (a, b), none in zip(_spans(polygons), missing, strict=True)]


def _spans(lists: pa.ListArray) -> Iterator[tuple[int, int]]:
    """Where each list's values lie among those of `flatten()`, in which nulls have none."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    return zip((ends - lengths).tolist(), ends.tolist(), strict=True)


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("expected a JSON object, found one nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {text[:80]}")
    return value
