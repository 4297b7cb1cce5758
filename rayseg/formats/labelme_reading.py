"""Reading labelme's JSON files: `rayseg.formats.labelme` says by which rules."""

from __future__ import annotations

import base64
import binascii
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, cast

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Mask, Polygons
from rayseg.errors import ImageError
from rayseg.formats import data_paths, exact_notes, json_values, labelme_shapes, orientation, shapes
from rayseg.formats.faults import BadAnnotation, Faults, Unusable
from rayseg.formats.labelme_shapes import Geometry
from rayseg.formats.orientation import Raster
from rayseg.formats.writable import foreign_extras
from rayseg.images.headers import Header, header

CROWD_FLAG = "iscrowd"
VERSION = "5.4.1"  # whose keys are written
NOTE = "rayseg"  # the key for what labelme has no place for
_FILE_KEYS = {"flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth", NOTE}
_SHAPE_KEYS = {"label", "points", "group_id", "shape_type", "mask", NOTE}
_READ_KEYS = {"flags", "description", "attributes", "score", "difficult"}
_KINDS = {"rectangle": "box", "circle": "ellipse", "mask": "mask", "polygon": "polygon"}
_MAX_BYTES = 1 << 30
_UNITED_PIXELS_MAX = 1 << 31  # pycocotools counts in 32 bits


def labels_of(uri: str) -> list[str]:
    """The labels in one file, as they come; none in one that is not labelme's, about which reading it will complain."""
    try:
        value = json_values.parsed(storage.read(uri, max_bytes=_MAX_BYTES), uri)
    except BadAnnotation:
        return []
    found = value.get("shapes") if isinstance(value, dict) else None
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return [entry["label"] for entry in entries if isinstance(entry.get("label"), str)]


class LabelmeImages:
    """The images of a data set, a file at a time."""

    def __init__(
        self,
        root: str,
        files: Sequence[tuple[str, str]],
        images: str | None,
        class_names: Sequence[str],
        faults: Faults,
        drawn_on: Raster | None,
    ) -> None:
        self._root, self._files, self._images, self._faults = root, files, images, faults
        self._drawn_on: Raster | None = drawn_on
        self._classes = {name: i for i, name in enumerate(class_names)}

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        seen: set[str] = set()
        for name, uri in self._files:
            try:
                image = self._image(name, uri)
                if image.name in seen:
                    raise Unusable("image", f"expected an image that no other file has, found {image.name!r}")
            except Unusable as error:
                self._faults.add(uri, error.kind, "file", str(error))
                continue
            seen.add(image.name)
            yield image

    def _image(self, file_name: str, uri: str) -> AnnotatedImage:
        content = _content(uri)
        note = _note(content)
        try:
            path = self._path(content.get("imagePath"), file_name)
            data = _embedded(content.get("imageData"))
            image_uri, found = (None, header(data)) if data is not None else self._find(path)
        except (ValueError, ImageError) as error:
            raise Unusable("image", str(error)) from None
        rule = self._drawn_on or _rule(data)
        try:
            hw = _recorded_hw(content) if self._drawn_on is None or found is None else None
            _, image_hw = orientation.upright((), found, hw, rule)
        except ValueError as error:
            raise Unusable("size", str(error)) from None
        raster_hw = hw or (found and ((found.height, found.width) if rule == "raw" else found.image_hw))
        drawn = self._annotations(content["shapes"], uri, raster_hw)
        turned, _ = orientation.upright([annotation for annotation, _ in drawn], found, hw, rule)
        annotations = tuple(
            exact_notes.with_box(exact_notes.with_shape(annotation, note.get("shape")), note.get("box"))
            for annotation, (_, note) in zip(turned, drawn, strict=True)
        )
        flags, more = content.get("flags"), note.get("attributes")
        attributes = {**(flags if isinstance(flags, dict) else {}), **(more if isinstance(more, dict) else {})}
        extras = {key: value for key, value in content.items() if key not in _FILE_KEYS}
        if extras.get("version") == VERSION:
            del extras["version"]
        if file_name != posixpath.splitext(path)[0] + ".json":
            extras["file"] = file_name
        split = note["split"] if isinstance(note.get("split", 0), str | None) else data_paths.split_of(path)
        own = ({"labelme": extras} if extras else {}) | foreign_extras(note.get("extras"), "labelme")
        return AnnotatedImage(path, image_uri, image_hw, annotations, split, attributes, own, data)

    def _path(self, path: Any, file_name: str) -> str:
        if not isinstance(path, str):
            raise ValueError(f"expected imagePath as the image's name, found {json_values.shown(path)}")
        try:
            return data_paths.inside(path, posixpath.dirname(file_name), windows=True)
        except ValueError:
            if self._images is None:
                raise
            return data_paths.inside(posixpath.basename(path.replace("\\", "/")), posixpath.dirname(file_name))

    def _find(self, path: str) -> tuple[str | None, Header | None]:
        if self._images is None:
            return data_paths.first_image([data_paths.at(self._root, path)])
        names = dict.fromkeys([path, posixpath.basename(path)])
        return data_paths.first_image(data_paths.at(self._images, name) for name in names)

    def _annotations(
        self, entries: list[Any], uri: str, raster_hw: tuple[int, int] | None
    ) -> list[tuple[Annotation, dict[str, Any]]]:
        """Annotations on the raster they were drawn on, each with the note that goes with it."""
        objects: dict[Any, list[tuple[dict[str, Any], Geometry]]] = {}
        for i, entry in enumerate(entries):
            kind = "shape"
            try:
                if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
                    raise ValueError(f"expected an object with a label, found {json_values.shown(entry)}")
                kind = _KINDS.get(str(entry.get("shape_type") or "polygon"), "shape")
                geometry = labelme_shapes.geometry(entry, raster_hw)
                key = _object_key(entry, geometry)
                found = shapes.fault(Annotation(0, *geometry), raster_hw)
                if found is not None:
                    kind = found[0]
                    raise ValueError(found[1])
                _fields(entry)
            except ValueError as error:
                self._faults.add(uri, kind, f"shapes[{i}]", str(error))
                continue
            objects.setdefault(i if key is None else key, []).append((entry, geometry))
        return [self._object(members, raster_hw) for members in objects.values()]

    def _object(
        self, members: list[tuple[dict[str, Any], Geometry]], raster_hw: tuple[int, int] | None
    ) -> tuple[Annotation, dict[str, Any]]:
        entry, _ = members[0]
        note = _note(entry)
        group = note["group"] if type(note.get("group", "")) in (int, type(None)) else entry.get("group_id")
        attributes, crowd, score, extras = _fields(entry)
        more = [_plain(other) for other, _ in members[1:]]
        if any(fields != _plain(entry) for fields in more):
            extras["parts"] = more
        box, shape = _joined([geometry for _, geometry in members], raster_hw)
        own = ({"labelme": extras} if extras else {}) | foreign_extras(note.get("extras"), "labelme")
        return Annotation(self._classes[entry["label"]], box, shape, crowd, score, group, attributes, own), note


def _content(uri: str) -> dict[str, Any]:
    try:
        content = json_values.parsed(storage.read(uri, max_bytes=_MAX_BYTES), uri)
    except BadAnnotation as error:
        raise Unusable("file", str(error).removeprefix(f"{uri}: ")) from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise Unusable("file", f"expected labelme's object with shapes, found {json_values.shown(content)}")
    return content


def _object_key(entry: dict[str, Any], geometry: Geometry) -> tuple[str, int] | None:
    """What the parts of one object have in common; None for a shape that is an object of its own."""
    group = entry.get("group_id")
    if group is not None and type(group) is not int:
        raise ValueError(f"expected group_id as a whole number, found {json_values.shown(group)}")
    has_area = geometry[1] is None or shapes.has_mask(Annotation(0, *geometry))
    return (entry["label"], group) if group is not None and has_area else None


def _rule(data: bytes | None) -> Raster:
    return "upright" if data is None else "raw"


def _note(holder: dict[str, Any]) -> dict[str, Any]:
    note = holder.get(NOTE)
    return note if isinstance(note, dict) else {}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry without label, geometry and group."""
    return {key: value for key, value in entry.items() if key not in _SHAPE_KEYS}


def _fields(entry: dict[str, Any]) -> tuple[dict[str, Any], bool, float | None, dict[str, Any]]:
    """Attributes, crowd flag, score and other keys of an entry. Raises `ValueError` for flags that are no object."""
    flags = entry.get("flags") or {}
    if not isinstance(flags, dict):
        raise ValueError(f"expected flags as an object, found {json_values.shown(flags)}")
    crowd = flags.get(CROWD_FLAG) is True
    attributes = {name: value for name, value in flags.items() if not (crowd and name == CROWD_FLAG)}
    extras = {key: value for key, value in _plain(entry).items() if key not in _READ_KEYS}
    for key in ("description", "difficult", "attributes", "score"):
        value = entry.get(key)
        if key == "attributes" and isinstance(value, dict):
            attributes.update(value)
        elif (key == "description" and isinstance(value, str)) or (key == "difficult" and isinstance(value, bool)):
            attributes.update({key: value} if value != "" else {})
        elif value is not None and not (key == "score" and _is_score(value)):
            extras[key] = value
    if entry.get("shape_type") in labelme_shapes.FOUR_CORNERS:
        extras["shape_type"] = entry["shape_type"]
    score = entry.get("score")
    return attributes, crowd, float(score) if score is not None and _is_score(score) else None, extras


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _joined(geometries: list[Geometry], raster_hw: tuple[int, int] | None) -> Geometry:
    """One object out of its parts: polygons where all are polygons or rectangles, else the union as one mask."""
    if len(geometries) == 1:
        return geometries[0]
    parts = [Annotation(0, *geometry) for geometry in geometries]
    if all(part.shape is None or isinstance(part.shape, Polygons) for part in parts):
        outlines = (shapes.polygons_of(part, (0, 0)).parts for part in parts)
        return None, Polygons(tuple(ring for part in outlines for ring in part))
    if raster_hw is None or raster_hw[0] * raster_hw[1] > _UNITED_PIXELS_MAX:
        raise ValueError(f"expected the size of the image, to join masks and circles of a group, found {raster_hw}")
    from pycocotools import mask as coco_mask

    rles: list[Any] = shapes.rles_of(parts, raster_hw).to_coco()
    return None, Mask(cast(bytes, coco_mask.merge(rles)["counts"]), raster_hw)


def _embedded(encoded: Any) -> bytes | None:
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=False)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(
            f"expected imageData as an image in base64, found {json_values.shown(encoded)}: {error}"
        ) from None


def _recorded_hw(content: dict[str, Any]) -> tuple[int, int] | None:
    height = json_values.side(content.get("imageHeight"), "imageHeight")
    width = json_values.side(content.get("imageWidth"), "imageWidth")
    if height is None or width is None:
        return None
    if (fault := shapes.hw_fault((height, width))) is not None:
        raise ValueError(fault)
    return height, width
