"""Writing CVAT for images 1.1: `rayseg.formats.cvat` says by which rules."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.formats import cvat_labels, data_paths, exact_notes, image_files
from rayseg.formats.cvat_reading import ATTRIBUTES_NOTE, BOX_NOTE, EXTRAS_NOTE, GROUP_NOTE, IMAGES_FOLDER, SHAPE_NOTE
from rayseg.formats.cvat_shapes import attribute_lines, elements
from rayseg.formats.cvat_text import spoken, tag
from rayseg.formats.keeping import keep_extras
from rayseg.formats.losses import Losses
from rayseg.formats.shape_json import encode_shape
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.writable import Own, drop_image, is_element, is_list, is_text, is_xml, writable

ANNOTATIONS_FILE = "annotations.xml"
_GROUP_MAX = 10**17


def _is_attribute(value: Any) -> bool:
    return isinstance(value, list) and list(map(type, value)) == [str, str, bool]


def _is_bone(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"xml", "count", "attributes"}:
        return False
    is_counted = type(value["count"]) is int and value["count"] > 0
    return is_counted and is_xml(value["xml"]) and is_list(_is_attribute)(value["attributes"])


def _is_tag(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_xml(value[0]) and is_list(_is_attribute)(value[1])


def _is_rotated(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 5 and all(type(one) is float for one in value)


def _is_declaration(value: Any) -> bool:
    return is_xml(value) and bool(value.get("name"))


OWN = Own(
    "cvat",
    {"id": lambda value: type(value) is int, "xml": is_xml, "tags": is_list(_is_tag)},
    {
        "source": is_text,
        "z_order": is_text,
        "xml": is_xml,
        "rotated": _is_rotated,
        "cuboid": lambda value: value is True,
        "skeleton": is_list(_is_bone),
    },
    {"attributes": is_list(_is_declaration), "others": is_list(is_element), "parts": is_list(is_element)},
)
HELD = Held(
    "CVAT",
    "cvat",
    crowd=True,
    score=True,
    group=True,
    attributes=None,
    image_attributes=True,
    class_ids=True,
    colours=True,
    supercategories=True,
)
_IMAGE_LINE, _SHAPE_LINE, _INNER_LINE = "  ", "    ", "      "


def write_dataset(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """One `annotations.xml`. Its images are written before its `<meta>`, which has to know their attributes, is."""
    HELD.dataset(dataset, losses)
    categories = _named(dataset.categories, losses)
    writer = _Writer(categories, sink, losses)
    with tempfile.TemporaryFile() as spool:
        for image in dataset.images:
            writer.put(image, spool)
        spool.seek(0)
        rest = dataset.info.get("cvat", {}).get("meta")
        rest = rest if is_list(is_element)(rest) else None
        with sink.stream(ANNOTATIONS_FILE, last=True) as file:
            file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
            for line in cvat_labels.written_meta(rest, categories, writer.declared, writer.sizes):
                file.write(line.encode())
            shutil.copyfileobj(spool, file, 1 << 20)
            file.write(b"</annotations>\n")


def _named(categories: tuple[Category, ...], losses: Losses) -> tuple[Category, ...]:
    """The categories with names that XML can hold and that differ."""
    named: list[Category] = []
    used: set[str] = set()
    for category in categories:
        name = base = _one_line(spoken(category.name)) or "\ufffd"
        n = 2
        while name in used:
            name, n = f"{base} {n}", n + 1
        if name != category.name:
            losses.approximated("class", "its name is not one that CVAT can hold: written a little changed")
        used.add(name)
        extras = OWN.checked(category.extras, OWN.category, losses)
        named.append(dataclasses.replace(category, name=name, extras=extras))
    return tuple(named)


def _one_line(name: str) -> str:
    """The name as it is read from an element of its own."""
    return name.strip() if "\n" in name else name


class _Writer:
    """Puts the `<image>` elements, and remembers what `<meta>` has to say."""

    def __init__(self, categories: tuple[Category, ...], sink: Sink, losses: Losses) -> None:
        self._categories, self._sink, self._losses = categories, sink, losses
        self.declared = cvat_labels.Declarations(categories)
        self.sizes: dict[str | None, int] = {}  # images in each subset
        self._ids: set[tuple[str | None, int]] = set()  # each subset counts its own
        self._names: set[str] = set()

    def put(self, image: AnnotatedImage, file: BinaryIO) -> None:
        """One image with all that is on it."""
        if not data_paths.is_writable(image.name) or spoken(image.name) != image.name or image.name in self._names:
            drop_image(image, "its name is no path below a folder that XML can hold, or another has it", self._losses)
            return
        image = writable(image, OWN, self._losses)
        self._names.add(image.name)
        HELD.image(dataclasses.replace(image, extras={}), self._losses)
        self._losses.kept("image")
        extras = image.extras.get("cvat", {})
        xml = {"id": str(self._id(image.split, extras.get("id"))), "name": image.name}
        if image.split is not None:
            xml["subset"] = image.split
        image_hw = image_files.upright_hw(image)
        if image_hw is not None:
            xml |= {"width": str(image_hw[1]), "height": str(image_hw[0])}
        xml |= {key: value for key, value in extras.get("xml", {}).items() if key not in xml}
        if image.attributes:
            xml[ATTRIBUTES_NOTE] = json.dumps(dict(image.attributes))
        if others := keep_extras(image.extras, self._losses, "cvat"):
            xml[EXTRAS_NOTE] = json.dumps(others)
        lines = [_IMAGE_LINE + tag("image", xml), *self._shape_lines(image, image_hw)]
        for tag_xml, attributes in extras.get("tags", ()):
            lines += [
                _SHAPE_LINE + tag("tag", tag_xml),
                *_indented(attribute_lines(attributes)),
                _SHAPE_LINE + "</tag>",
            ]
        lines.append(_IMAGE_LINE + "</image>\n")
        file.write("\n".join(lines).encode())
        self.sizes[image.split] = self.sizes.get(image.split, 0) + 1
        image_files.tell_of_file(image, self._losses, "CVAT")
        if image.data is not None:
            self._losses.kept("image file")
            self._sink.put(f"{IMAGES_FOLDER}/{image.name}", image.data)

    def _id(self, subset: str | None, given: Any) -> int:
        number = len(self._names) - 1 if given is None else given
        while (subset, number) in self._ids:
            number += 1
        self._ids.add((subset, number))
        return number

    def _shape_lines(self, image: AnnotatedImage, image_hw: tuple[int, int] | None) -> Iterator[str]:
        groups = [one.group for one in image.annotations if one.group is not None and 0 < one.group < _GROUP_MAX]
        next_group, objects = max([*groups, 0]) + 1, 0
        for annotation in image.annotations:
            drawable = self._drawable(annotation, image_hw)
            if drawable is None:
                continue
            HELD.annotation(dataclasses.replace(annotation, extras={}), self._losses)
            extras = dict(annotation.extras.get("cvat", {}))
            drawn = list(elements(drawable, extras))
            note: dict[str, str] = {}
            group, mark = annotation.group, None
            if len(drawn) > 1:
                objects, mark = objects + 1, str(objects + 1)
                if groups.count(group or 0) != 1:
                    group, next_group = next_group, next_group + 1
            if group != annotation.group or (group is not None and group not in groups):
                note[GROUP_NOTE] = "" if annotation.group is None else str(annotation.group)
            shape = annotation.shape
            if shape is not None and (drawable.shape is not shape or exact_notes.repeats_points(shape)):
                note[SHAPE_NOTE] = json.dumps(encode_shape(shape))
            if (box := exact_notes.box_note(annotation)) is not None:
                note[BOX_NOTE] = json.dumps(box)
            if others := keep_extras(annotation.extras, self._losses, "cvat"):
                note[EXTRAS_NOTE] = json.dumps(others)
            attributes = self._attributes(annotation, mark)
            for name, geometry, inner in drawn:
                xml = self._xml(annotation, extras, group, name) | geometry | note
                note = {}
                content = [*inner, *attribute_lines(attributes)]
                yield _SHAPE_LINE + tag(name, xml, closed=not content)
                yield from _indented(content)
                if content:
                    yield f"{_SHAPE_LINE}</{name}>"

    def _xml(self, annotation: Annotation, extras: Any, group: int | None, name: str) -> dict[str, str]:
        """XML attributes that say nothing of the form."""
        xml = {"label": self._categories[annotation.category].name, "source": str(extras.get("source", "manual"))}
        occluded = annotation.attributes.get("occluded")
        if name != "skeleton" or occluded is not None:
            # CVAT asks whether it is "1"; a False that somebody has set differs from one that nobody has
            xml["occluded"] = "1" if occluded is True else "false" if occluded is False else "0"
        xml["z_order"] = str(extras.get("z_order", "0"))
        if group is not None and 0 < group < _GROUP_MAX:
            xml["group_id"] = str(group)
        return dict(extras.get("xml", {})) | xml

    def _attributes(self, annotation: Annotation, mark: str | None) -> list[list[Any]]:
        """(name, text, is JSON) of each attribute, which are declared as they come."""
        values = dict(annotation.attributes)
        if isinstance(values.get("occluded"), bool):
            del values["occluded"]
        own = {
            cvat_labels.SCORE: annotation.score,
            cvat_labels.CROWD: annotation.crowd or None,
            cvat_labels.OBJECT: mark,
        }
        found = []
        for name, value in values.items():
            if not name or spoken(name) != name or name in own:
                self._losses.dropped("attribute", "its name is not one that CVAT can hold")
                continue
            text, is_json = cvat_labels.text_and_json(value, self.declared.known(annotation.category, name))
            self.declared.note(annotation.category, name, value)
            found.append([name, text, is_json])
        for name, value in own.items():
            if value is not None:
                text = json.dumps(value) if not isinstance(value, str) else value
                self.declared.note(annotation.category, name, value)
                found.append([name, text, False])
        return found

    def _drawable(self, annotation: Annotation, image_hw: tuple[int, int] | None) -> Annotation | None:
        """The annotation as CVAT can draw it; None where there is nothing to draw."""
        losses, shape = self._losses, annotation.shape
        if shape is None:
            if annotation.box_xyxy is None:
                losses.dropped("box", "there is neither box nor shape to draw")
                return None
            losses.kept("box")
        elif isinstance(shape, Polyline | Points):
            losses.kept("polyline" if isinstance(shape, Polyline) else "points")
        elif isinstance(shape, Mask | Ellipse):
            losses.kept("mask")
            if isinstance(shape, Ellipse):
                losses.kept("ellipse")
        else:
            return self._drawable_polygons(annotation, shape, image_hw)
        return annotation

    def _drawable_polygons(
        self, annotation: Annotation, shape: Polygons, image_hw: tuple[int, int] | None
    ) -> Annotation | None:
        """A polygon of CVAT's is one ring: with holes the object is written as a mask."""
        parts = [part for part in shape.parts if part and len(part[0])]
        if not parts:
            self._losses.dropped("mask", "it has no points to draw")
            return None
        self._losses.kept("mask")
        holes = sum(len(part) - 1 for part in parts)
        for kind, count in (("part", len(parts) if len(parts) > 1 else 0), ("hole", holes)):
            if count:
                self._losses.kept(kind, count)
        if not holes and len(parts) == len(shape.parts):
            return annotation
        if image_hw is not None:
            return exact_notes.as_mask(annotation, image_hw)
        return dataclasses.replace(annotation, shape=exact_notes.as_rings(shape))


def _indented(lines: Any) -> Iterator[str]:
    for line in lines:
        yield _INNER_LINE + line
