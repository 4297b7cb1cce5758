"""From what a COCO file says of a category, an image, an annotation to the common record.

Keys of COCO become fields of the record: `name`, `id`, `supercategory`, `color` of a category; `file_name`, `height`,
`width`, `attributes` of an image; `segmentation`, `bbox`, `iscrowd`, `score`, `attributes`, `group_id` of an annotation.
All others ride along in `extras["coco"]`. What rayseg itself wrote under "rayseg" is taken back, see `coco_writing`.

Functions raise `Unusable` for what cannot be taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Box, Category, Mask, Points, Polygons, Polyline, Shape
from rayseg.formats import data_paths, orientation, shapes
from rayseg.formats.coco_index import RawAnnotation, is_id
from rayseg.formats.faults import Unusable
from rayseg.formats.json_values import number, shown, side
from rayseg.formats.shape_json import decode_shape
from rayseg.images.headers import Header
from rayseg.kernels import Rles

NAME = "coco"
OWN = "rayseg"  # the key under which COCO files hold what COCO has no words for

_MORE_KEYPOINTS = "_kpts"  # how COCO-WholeBody names those of faces, hands and feet
_CATEGORY_KEYS = {"id", "name", "supercategory", OWN}
_IMAGE_KEYS = {"file_name", "height", "width", OWN}


def category_of(value: Any) -> Category:
    """One of the file's `categories`."""
    if not isinstance(value, dict) or not is_id(value.get("id")) or not isinstance(value.get("name"), str):
        raise Unusable("category", f"expected an object with an id and a name, found {shown(value)}")
    extras = {key: one for key, one in value.items() if key not in _CATEGORY_KEYS}
    source_id = value["id"] if isinstance(value["id"], int) else None
    if source_id is None:
        extras["id"] = value["id"]
    colour = _colour(extras.get("color"))
    if colour is not None:
        del extras["color"]
    above = value.get("supercategory")
    if above is not None and not isinstance(above, str):
        extras["supercategory"], above = above, None
    return Category(value["name"], source_id, above, colour, _extras(extras, value.get(OWN)))


def image_of(value: Any, split: str | None) -> AnnotatedImage:
    """One of the file's `images`, without annotations; its name is a path below the folder of the images."""
    if not isinstance(value, dict):
        raise Unusable("image", f"expected an object, found {shown(value)}")
    name = value.get("file_name")
    try:
        path = data_paths.inside(name if isinstance(name, str) else "")
        height, width = side(value.get("height"), "height"), side(value.get("width"), "width")
    except ValueError as error:
        raise Unusable("image", f"{error}; its file_name is {shown(name)}") from None
    image_hw = None if height is None or width is None else (height, width)
    if image_hw and (reason := shapes.hw_fault(image_hw)):
        raise Unusable("image", reason)
    extras = {key: one for key, one in value.items() if key not in _IMAGE_KEYS}
    attributes = extras.pop("attributes") if isinstance(extras.get("attributes"), dict) else {}
    if path != name:
        extras["file_name"] = name
    return AnnotatedImage(path, None, image_hw, (), split, attributes, _extras(extras, value.get(OWN)))


def annotation_of(raw: RawAnnotation, classes: Mapping[Any, int], image_hw: tuple[int, int] | None) -> Annotation:
    """One annotation, in an image of the size that the file records. `classes` by ids; `raw.values` is used up."""
    if not isinstance(raw.values, dict):
        raise Unusable("annotation", f"expected an object, found {shown(raw.values)}")
    take = raw.values.pop
    category = _class(take("category_id", None), classes)
    segmentation, box = take("segmentation", None), _box(take("bbox", None))
    crowd, own = bool(take("iscrowd", 0)), take(OWN, None)
    shape = Polygons(tuple((ring,) for ring in raw.rings)) if raw.rings else _shape(segmentation, image_hw)
    take("image_id", None)
    extras = raw.values
    if isinstance(own, dict):
        shape, box = _own_shape(own, shape, image_hw), _own_box(own, box)
        made = own["made"] if isinstance(own.get("made"), list) else ()
        if shape is not None and "bbox" in made:
            box = None
        if "area" in made:
            extras.pop("area", None)
    if shape is None and box is None:
        raise Unusable("annotation", "expected a segmentation or a bbox, found neither")
    score = _score(take("score")) if "score" in extras else None
    attributes = take("attributes") if isinstance(extras.get("attributes"), dict) else {}
    group = take("group_id") if type(extras.get("group_id")) is int else None
    annotation = Annotation(category, box, shape, crowd, score, group, attributes, _extras(extras, own))
    if not raw.rings and (fault := shapes.fault(annotation, image_hw)):
        raise Unusable(*fault)
    return annotation


def with_upright_keypoints(annotation: Annotation, found: Header) -> Annotation:
    """The annotation with its keypoints turned upright, where they were drawn on the raw raster.

    COCO's keypoints are pixels counted from 0, so that the first pixel's centre is 0, 0; what was not labelled is 0, 0, 0.
    """
    extras = annotation.extras.get(NAME, {})
    turned = {
        key: _turned_keypoints(value, found)
        for key, value in extras.items()
        if (key == "keypoints" or key.endswith(_MORE_KEYPOINTS)) and _are_keypoints(value)
    }
    return replace(annotation, extras={**annotation.extras, NAME: {**extras, **turned}}) if turned else annotation


def _are_keypoints(value: Any) -> bool:
    """Whether it is x, y, visibility again and again."""
    most = shapes.COORDINATE_MAX
    is_list = isinstance(value, list) and len(value) % 3 == 0
    return is_list and all(type(one) in (int, float) and -most <= one <= most for one in value)


def _turned_keypoints(value: list[Any], found: Header) -> list[Any]:
    triples = np.array(value, np.float64).reshape(-1, 3)
    labelled = triples.any(axis=1)
    triples[labelled, :2] = orientation.points_upright(triples[labelled, :2] + 0.5, found) - 0.5
    return [int(new) if type(old) is int else new for old, new in zip(value, triples.reshape(-1).tolist(), strict=True)]


def _class(source_id: Any, classes: Mapping[Any, int]) -> int:
    try:
        return classes[source_id]
    except (KeyError, TypeError):
        raise Unusable("category", f"expected the id of a category, found {shown(source_id)}") from None


def _extras(extras: dict[str, Any], own: Any) -> dict[str, dict[str, Any]]:
    """COCO's extras, and those of other formats that rayseg wrote."""
    all_extras = {NAME: extras} if extras else {}
    if isinstance(own, dict) and isinstance(own.get("extras"), dict):
        all_extras.update({key: one for key, one in own["extras"].items() if isinstance(one, dict) and key != NAME})
    return all_extras


def _score(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return number(value, "score")
    except ValueError as error:
        raise Unusable("score", str(error)) from None


def _colour(value: Any) -> tuple[int, int, int] | None:
    if isinstance(value, list) and len(value) == 3 and all(type(one) is int and 0 <= one <= 255 for one in value):
        return value[0], value[1], value[2]
    return None


def _box(value: Any) -> Box | None:
    """(x1, y1, x2, y2) of a `bbox`; None for none, null and an empty list."""
    if value is None or value == []:
        return None
    try:
        x, y, width, height = value
        x, y, width, height = x + 0.0, y + 0.0, width + 0.0, height + 0.0
    except (TypeError, ValueError, OverflowError):
        raise Unusable("box", f"expected bbox as four numbers x, y, width, height, found {shown(value)}") from None
    most = shapes.COORDINATE_MAX
    if -most <= x <= most and -most <= y <= most and 0 <= width <= most and 0 <= height <= most:
        return x, y, x + width, y + height
    raise Unusable("box", f"expected finite numbers, width and height from 0, found bbox {shown(value)}")


# ---- segmentations


def _shape(value: Any, image_hw: tuple[int, int] | None) -> Shape | None:
    """A `segmentation` that is not simply polygons; None for none, null and an empty list."""
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        return _mask(value, image_hw)
    if not isinstance(value, list) or not all(isinstance(ring, list) for ring in value):
        raise Unusable("polygon", f"expected a list of lists of numbers or an RLE, found {shown(value)}")
    for ring in value:
        if len(ring) % 2 or not all(type(one) in (int, float) for one in ring):
            raise Unusable("polygon", f"expected an even number of coordinates, found {shown(ring)}")
        if len(ring) < 6:
            raise Unusable("polygon", f"expected a ring of at least 3 points, found {len(ring) // 2}")
    try:
        return Polygons(tuple((np.array(ring, np.float64).reshape(-1, 2),) for ring in value))
    except OverflowError:
        raise Unusable("polygon", "expected finite coordinates, found one that is not") from None


def _mask(value: dict[str, Any], image_hw: tuple[int, int] | None) -> Mask:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(one) is int for one in size):
        raise Unusable("mask", f"expected an RLE with size [height, width], found {shown(size)}")
    hw = (size[0], size[1])
    if reason := shapes.hw_fault(hw):
        raise Unusable("mask", reason)
    if image_hw is not None and hw != image_hw:
        raise Unusable("mask", f"expected an RLE of {list(image_hw)} as its image has, found size {size}")
    try:
        return Mask(_compressed(counts, hw), hw)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise Unusable("mask", f"expected RLE counts of {size} pixels, found {shown(counts)}: {error}") from None


def _compressed(counts: Any, hw: tuple[int, int]) -> bytes:
    """Compressed, canonical counts. Raises `ValueError` for what is no mask of `hw`."""
    if isinstance(counts, str):
        rles = Rles.from_strings([counts], hw)
        reason = rles.check()[0]
        if reason is None:
            return rles.strings()[0]
        if "length 0" not in reason:
            raise ValueError(reason)
        runs = rles.runs()[0]
    else:
        runs = np.array(counts)
        if not isinstance(counts, list) or runs.dtype != np.int64:
            raise ValueError("they are neither a string nor a list of whole numbers")
    if not len(runs) or runs.min() < 0 or int(runs.sum()) != hw[0] * hw[1]:
        raise ValueError("its runs do not cover the image")
    if len(runs) > 1 and runs[1:].min() == 0:
        runs = _without_empty(runs)
    return Rles.from_runs(runs, np.array([0, len(runs)]), hw).strings()[0]


def _without_empty(runs: np.ndarray) -> np.ndarray:
    """The same pixels without runs of length 0 after the first: what such a run parts is one run."""
    ends = np.cumsum(runs)
    inside = np.arange(len(runs)) % 2
    there = runs > 0
    inside, ends = inside[there], ends[there]
    last = np.append(inside[1:] != inside[:-1], True)
    inside, ends = inside[last], ends[last]
    runs = np.diff(np.concatenate([[0], ends]))
    return np.concatenate([[0], runs]) if len(inside) and inside[0] == 1 else runs


# ---- what rayseg wrote beside COCO's own


def _own_box(own: dict[str, Any], box: Box | None) -> Box | None:
    """The exact box, where the `bbox` is it but for rounding."""
    exact = own.get("box")
    if box is None or not isinstance(exact, list) or len(exact) != 4:
        return box
    if all(type(one) is float and abs(one - near) < 1e-6 for one, near in zip(exact, box, strict=True)):
        return exact[0], exact[1], exact[2], exact[3]
    return box


def _own_shape(own: dict[str, Any], shape: Shape | None, hw: tuple[int, int] | None) -> Shape | None:
    """The shape that COCO's `segmentation` stands for, unless somebody has changed that since."""
    if "shape" not in own:
        return shape
    try:
        exact = decode_shape(own["shape"])
        annotation = Annotation(0, None, exact)
        if shapes.fault(annotation, hw) is not None:
            return shape
        if isinstance(exact, Polyline | Points):
            return exact if shape is None else shape
        if isinstance(shape, Mask) and shapes.rle_of(annotation, shape.image_hw).strings()[0] == shape.counts:
            return exact
    except ValueError:
        return shape
    return shape
