"""Writing labelme's JSON files: `rayseg.formats.labelme` says by which rules."""

from __future__ import annotations

import base64
import dataclasses
import json
import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rayseg.annotations import AnnotatedImage, Annotation, Ellipse, Mask, Points, Polygons, Polyline, Shape
from rayseg.formats import data_paths, exact_notes, image_files, labelme_shapes, orientation, shapes
from rayseg.formats.keeping import keep_extras
from rayseg.formats.labelme_reading import CROWD_FLAG, NOTE, VERSION
from rayseg.formats.losses import Losses
from rayseg.formats.shape_json import encode_shape
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.writable import Own, drop_image, is_list, is_object, is_text, writable
from rayseg.images.headers import Header

HELD = Held("labelme", "labelme", crowd=True, score=True, group=True, attributes=None, image_attributes=True)
OWN = Own("labelme", {"file": is_text}, {"parts": is_list(is_object)}, others=True)
_DRAWN = ("label", "points", "group_id", "shape_type", "mask", NOTE)
_WRITTEN = ("file", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth", NOTE)


class Writer:
    """Puts one image after the other, and remembers the names it used."""

    def __init__(self, class_names: Sequence[str], sink: Sink, losses: Losses) -> None:
        self._class_names, self._sink, self._losses = class_names, sink, losses
        self._used: set[str] = set()
        self.categories: set[int] = set()  # those that occur

    def put(self, image: AnnotatedImage) -> None:
        """The image where it can be had, and its JSON."""
        if not data_paths.is_writable(image.name) or image.name in self._used:
            drop_image(image, "its name is no path below a folder, or another image has it", self._losses)
            return
        image = writable(image, OWN, self._losses)
        self._used.add(image.name)
        data, found = self._pixels(image)
        image_hw = image.image_hw or (found.image_hw if found else _hw_of_masks(image))
        embedded = found if image.data is not None else None
        content: dict[str, Any] = {"version": VERSION, "flags": {}, "shapes": self._entries(image, image_hw, embedded)}
        name = self._json_name(image)
        content["imagePath"] = posixpath.relpath(image.name, posixpath.dirname(name))
        content["imageData"] = base64.b64encode(data).decode("ascii") if embedded and data else None
        raster_hw = (embedded.height, embedded.width) if embedded else image_hw
        content["imageHeight"], content["imageWidth"] = raster_hw or (None, None)
        self._add_rest(image, content)
        if data is not None and not embedded:
            self._sink.put(image.name, data)
        self._sink.put(name, _encoded(content))
        self._losses.kept("image")

    def _pixels(self, image: AnnotatedImage) -> tuple[bytes | None, Header | None]:
        """The image as a file has it, and its header."""
        data = image_files.encoded(image)
        found = image_files.header_of(data)
        if data is None:
            self._losses.dropped("image file", "it cannot be had; labelme does not open a JSON without it")
        elif image.data is not None and found is None:
            self._losses.dropped("image file", "what is embedded is no image")
            data = None
        else:
            self._losses.kept("image file")
        return data, found

    def _json_name(self, image: AnnotatedImage) -> str:
        given = image.extras.get("labelme", {}).get("file")
        stem = posixpath.splitext(image.name)[0]
        names = [given] if isinstance(given, str) and given.lower().endswith(".json") else []
        names += [f"{stem}.json", f"{image.name}.json", *(f"{stem}~{n}.json" for n in range(2, 1000))]
        name = next(name for name in names if data_paths.is_writable(name) and name not in self._used)
        self._used.add(name)
        return name

    def _add_rest(self, image: AnnotatedImage, content: dict[str, Any]) -> None:
        """Flags, the other keys that came, and the note."""
        content["flags"] = {name: value for name, value in image.attributes.items() if isinstance(value, bool)}
        more = {name: value for name, value in image.attributes.items() if not isinstance(value, bool)}
        note: dict[str, Any] = {"attributes": more} if more else {}
        if image.split != data_paths.split_of(image.name):
            note["split"] = image.split
        if others := keep_extras(image.extras, self._losses, "labelme"):
            note["extras"] = others
        extras = image.extras.get("labelme", {})
        content.update({key: value for key, value in extras.items() if key not in _WRITTEN})
        if note:
            content[NOTE] = note
        HELD.image(dataclasses.replace(image, extras={}), self._losses)

    def _entries(
        self, image: AnnotatedImage, image_hw: tuple[int, int] | None, embedded: Header | None
    ) -> list[dict[str, Any]]:
        groups = _Groups(image.annotations)
        written = []
        for annotation in image.annotations:
            drawable = self._drawable(annotation, image_hw)
            if drawable is None:
                continue
            HELD.annotation(dataclasses.replace(annotation, extras={}), self._losses)
            self.categories.add(annotation.category)
            on_raster = orientation.to_raw(drawable, embedded) if embedded else drawable  # embedded shows as stored
            drawn = list(labelme_shapes.entries(on_raster))
            shape = annotation.shape
            exact = {} if shape is None or _is_exact(shape, on_raster, drawn) else {"shape": encode_shape(shape)}
            group_id, note = groups.place(annotation, len(drawn))
            if (box := exact_notes.box_note(annotation)) is not None:
                note["box"] = box
            if others := keep_extras(annotation.extras, self._losses, "labelme"):
                note["extras"] = others
            written += self._dressed(annotation, drawn, group_id, note | exact)
        return written

    def _dressed(
        self, annotation: Annotation, drawn: list[dict[str, Any]], group_id: int | None, note: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The shapes of one annotation with all that belongs to it besides."""
        extras = dict(annotation.extras.get("labelme", {}))
        parts = extras.pop("parts", None)
        own = _own_fields(annotation, extras)
        if not isinstance(parts, list) or len(parts) != len(drawn) - 1:
            parts = [own] * (len(drawn) - 1)
        label = self._class_names[annotation.category]
        whole = []
        for shape, fields in zip(drawn, [own, *parts], strict=False):
            entry = {"label": label, "points": shape["points"], "group_id": group_id, "description": ""}
            entry |= {"shape_type": shape["shape_type"], "flags": {}, "mask": shape.get("mask")}
            kind = fields.get("shape_type")
            if kind in labelme_shapes.FOUR_CORNERS and shape["shape_type"] == "polygon" and len(shape["points"]) == 4:
                entry["shape_type"] = kind
            entry |= {key: value for key, value in fields.items() if key not in _DRAWN}
            whole.append(entry)
        if note and whole:
            whole[0][NOTE] = note
        return whole

    def _drawable(self, annotation: Annotation, image_hw: tuple[int, int] | None) -> Annotation | None:
        """The annotation as labelme can draw it; None where there is nothing to draw."""
        losses, shape = self._losses, annotation.shape
        if isinstance(shape, Polygons):
            return self._drawable_polygons(annotation, shape, image_hw)
        if shape is None:
            if annotation.box_xyxy is None:
                losses.dropped("box", "there is neither box nor shape to draw")
                return None
            losses.kept("box")
        elif isinstance(shape, Polyline | Points):
            losses.kept("polyline" if isinstance(shape, Polyline) else "points")
        else:
            losses.kept("mask")
        if isinstance(shape, Ellipse):
            losses.kept("ellipse")
            return annotation if labelme_shapes.is_circle(shape) else _undrawable(annotation, shape, image_hw)
        return annotation

    def _drawable_polygons(
        self, annotation: Annotation, shape: Polygons, image_hw: tuple[int, int] | None
    ) -> Annotation | None:
        losses = self._losses
        parts = [part for part in shape.parts if part and len(part[0])]
        if not parts:
            losses.dropped("mask", "it has no points to draw")
            return None
        losses.kept("mask")
        holes = sum(len(part) - 1 for part in parts)
        for kind, count in (("part", len(parts) if len(parts) > 1 else 0), ("hole", holes)):
            if count:
                losses.kept(kind, count)
        return _undrawable(annotation, shape, image_hw) if holes or len(parts) < len(shape.parts) else annotation


class _Groups:
    """Which `group_id` the shapes of each annotation of an image get, so that reading finds the same objects again."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self._claims = Counter((one.category, one.group) for one in annotations if _has_area(one))
        self._next = max([one.group for one in annotations if one.group is not None] + [0]) + 1

    def place(self, annotation: Annotation, shape_count: int) -> tuple[int | None, dict[str, Any]]:
        """The number for the annotation's shapes, and a note of its own where that is another one."""
        group = annotation.group
        alone = group is not None and self._claims[annotation.category, group] == 1
        if not _has_area(annotation) or alone or (group is None and shape_count < 2):
            return group, {}
        if shape_count < 2:
            return None, {"group": group}
        self._next += 1
        return self._next - 1, {"group": group}


def _encoded(content: dict[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False, indent=2).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only JSON's own escapes can hold
        return json.dumps(content, indent=2).encode()


def _own_fields(annotation: Annotation, extras: dict[str, Any]) -> dict[str, Any]:
    """All but label, geometry and group of an annotation, under the keys they are read from."""
    flags, more, fields = {}, {}, {}
    for name, value in annotation.attributes.items():
        if isinstance(value, bool) and name != CROWD_FLAG:
            flags[name] = value
        elif name == "description" and isinstance(value, str) and value:
            fields["description"] = value
        else:
            more[name] = value
    if annotation.crowd:
        flags[CROWD_FLAG] = True
    fields["flags"] = flags
    if more:
        fields["attributes"] = more
    if annotation.score is not None:
        fields["score"] = annotation.score
    return fields | extras


def _has_area(annotation: Annotation) -> bool:
    return annotation.shape is None or shapes.has_mask(annotation)


def _is_exact(shape: Shape, on_raster: Annotation, drawn: list[dict[str, Any]]) -> bool:
    """Whether reading what is drawn gives the very shape; a circle's point may be a rounding off."""
    if isinstance(on_raster.shape, Ellipse):
        return labelme_shapes.geometry(drawn[0], None)[1] == shape
    return on_raster.shape is shape and not exact_notes.repeats_points(shape)


def _undrawable(annotation: Annotation, shape: Polygons | Ellipse, image_hw: tuple[int, int] | None) -> Annotation:
    """What labelme has no form for, as a mask of the same pixels; as rings where the image's size is not known."""
    if image_hw is not None:
        return exact_notes.as_mask(annotation, image_hw)
    return dataclasses.replace(annotation, shape=exact_notes.as_rings(shape))


def _hw_of_masks(image: AnnotatedImage) -> tuple[int, int] | None:
    return next((one.shape.image_hw for one in image.annotations if isinstance(one.shape, Mask)), None)
