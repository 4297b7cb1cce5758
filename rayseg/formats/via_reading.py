"""From VIA's entries to the images of a data set: `rayseg.formats.via` says by which rules."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rayseg.annotations import AnnotatedImage, Annotation
from rayseg.errors import ImageError
from rayseg.formats import data_paths, exact_notes, json_values, orientation, shapes, via_regions
from rayseg.formats.faults import Faults, Unusable
from rayseg.formats.orientation import Raster
from rayseg.formats.via_classes import UNLABELLED, Classes
from rayseg.formats.via_files import ViaFile, regions_of
from rayseg.images.headers import Header, header

SIZE, NAME = "rayseg_size", "rayseg_name"  # file attributes
SHAPE, BOX, GROUP, SCORE, CROWD = "rayseg_shape", "rayseg_box", "rayseg_group", "rayseg_score", "rayseg_crowd"
OBJECT = "rayseg_object"
REGION_NOTES = (SHAPE, BOX, GROUP, SCORE, CROWD, OBJECT, UNLABELLED)
UNKNOWN_SIZE = -1  # as VIA writes it
_ENTRY_KEYS = {"filename", "size", "regions", "file_attributes", "base64_img_data"}
_KINDS = {"rect": "box", "polygon": "polygon", "circle": "ellipse", "ellipse": "ellipse"}
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_DATA_URL = re.compile(r"data:[^,]{0,100},")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read, the URI of the folder its names are below, and the folder that is its split."""

    file: ViaFile
    root: str
    split: str | None


class ViaImages:
    """The images of a data set, an entry at a time."""

    def __init__(
        self, sources: Sequence[Source], classes: Classes, images: str | None, faults: Faults, drawn_on: Raster | None
    ) -> None:
        self._sources, self._class, self._images, self._faults = sources, classes, images, faults
        self._drawn_on: Raster | None = drawn_on
        self._indices = {name: i for i, name in enumerate(classes.names)}
        self._options = {name: option for option, name in classes.options.items()}

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        seen: set[str] = set()
        for source in self._sources:
            for problem in source.file.problems:
                self._faults.add(source.file.uri, *problem)
            for key, entry in source.file.entries:
                try:
                    image = self._image(key, entry, source)
                    if image.name in seen:
                        raise Unusable("image", f"expected images of different names, found {image.name!r} again")
                except Unusable as error:
                    self._faults.add(source.file.uri, error.kind, repr(key[:200]), str(error))
                    continue
                seen.add(image.name)
                yield image

    def _image(self, key: str, entry: Any, source: Source) -> AnnotatedImage:
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise Unusable("image", f"expected an object with a filename, found {json_values.shown(entry)}")
        if not isinstance(entry.get("regions", []), list | dict):
            raise Unusable("image", f"expected regions as a list, found {json_values.shown(entry['regions'])}")
        attributes = entry.get("file_attributes")
        attributes = dict(attributes) if isinstance(attributes, dict) else {}
        try:
            path = _path(entry["filename"])
            data = _embedded(entry.get("base64_img_data"))
            name = data_paths.inside(attributes[NAME]) if isinstance(attributes.get(NAME), str) else None
        except ValueError as error:
            raise Unusable("image", str(error)) from None
        name = name or (path if source.split is None else f"{source.split}/{path}")
        uri, found = (None, _header(data)) if data is not None else self._find(path, name, source)
        annotations, image_hw = self._annotations(key, entry, attributes.get(SIZE), found, source)
        extras: dict[str, Any] = {name: value for name, value in entry.items() if name not in _ENTRY_KEYS}
        extras = {"entry": extras} if extras else {}
        if entry["filename"] != path:
            extras["filename"] = entry["filename"]
        if entry.get("size", UNKNOWN_SIZE) != UNKNOWN_SIZE:
            extras["size"] = entry["size"]
        if key != f"{entry['filename']}{entry.get('size', '')}":
            extras["key"] = key
        attributes = {name: value for name, value in attributes.items() if name not in (SIZE, NAME)}
        own = {"via": extras} if extras else {}
        return AnnotatedImage(name, uri, image_hw, annotations, source.split, attributes, own, data)

    def _find(self, path: str, name: str, source: Source) -> tuple[str | None, Header | None]:
        if self._images is not None:
            names = dict.fromkeys([name, path, posixpath.basename(path)])
            return data_paths.first_image(data_paths.at(self._images, one) for one in names)
        return data_paths.first_image(
            data_paths.at(source.root, one) for one in [path, *_in_default_path(path, source)]
        )

    def _annotations(
        self, key: str, entry: dict[str, Any], size: Any, found: Header | None, source: Source
    ) -> tuple[tuple[Annotation, ...], tuple[int, int] | None]:
        """Annotations in the order of their first regions, upright, and the image's size."""
        rule = self._drawn_on or "upright"
        hw = _recorded_hw(size) if self._drawn_on is None or found is None else None
        objects: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
        for item, region in regions_of(entry):
            attributes = region.get("region_attributes", {}) if isinstance(region, dict) else None
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(attributes, dict) or not isinstance(shape, dict):
                message = f"expected a region with its two kinds of attributes, found {json_values.shown(region)}"
                self._faults.add(source.file.uri, "region", f"{key[:200]!r}, {item}", message)
                continue
            mark = attributes.get(OBJECT)
            mark = item if mark is None else (type(mark).__name__, str(mark))
            objects.setdefault(mark, []).append((item, region))
        drawn = []
        for members in objects.values():
            try:
                drawn.append((self._annotation(members, found, hw), members[0][1].get("region_attributes", {})))
            except Unusable as error:
                self._faults.add(source.file.uri, error.kind, f"{key[:200]!r}, {members[0][0]}", str(error))
        try:
            turned, image_hw = orientation.upright([annotation for annotation, _ in drawn], found, hw, rule)
        except ValueError as error:
            raise Unusable("size", str(error)) from None
        return tuple(_exact(one, notes) for one, (_, notes) in zip(turned, drawn, strict=True)), image_hw

    def _annotation(
        self, members: list[tuple[str, dict[str, Any]]], found: Header | None, hw: tuple[int, int] | None
    ) -> Annotation:
        region = members[0][1]
        attributes, shape_attributes = region.get("region_attributes", {}), region["shape_attributes"]
        kind = _KINDS.get(str(shape_attributes.get("name")), "points")
        try:
            box, shape = via_regions.joined([via_regions.geometry(one["shape_attributes"]) for _, one in members])
        except ValueError as error:
            raise Unusable(kind, str(error)) from None
        fault = shapes.fault(Annotation(0, box, shape), None)
        if fault is not None:
            raise Unusable(*fault)
        name, said = self._class.of(attributes)
        extras: dict[str, Any] = {}
        if not said or attributes.get(UNLABELLED) is True:
            extras["unlabelled"] = True
        elif attributes[self._class.attribute] != self._options.get(name, name):
            extras["value"] = attributes[self._class.attribute]
        if more := via_regions.others(shape_attributes):
            extras["shape"] = more
        if more := {key: value for key, value in region.items() if not key.endswith("_attributes")}:
            extras["region"] = more
        skipped = (*REGION_NOTES, self._class.attribute)
        kept = {key: value for key, value in attributes.items() if key not in skipped}
        group, score = attributes.get(GROUP), attributes.get(SCORE)
        return Annotation(
            self._indices[name],
            box,
            shape,
            attributes.get(CROWD) is True,
            float(score) if type(score) in (int, float) and 0 <= score <= 1 else None,
            group if type(group) is int else None,
            kept,
            {"via": extras} if extras else {},
        )


def _exact(annotation: Annotation, notes: dict[str, Any]) -> Annotation:
    """The annotation with what is noted beside its first region."""
    for key, restore in ((SHAPE, exact_notes.with_shape), (BOX, exact_notes.with_box)):
        if isinstance(notes.get(key), str):
            annotation = restore(annotation, json_values.or_none(notes[key]))
    return annotation


def _path(filename: str) -> str:
    """The path that a file name means below its folder; of an address on the web the last name."""
    if re.match(r"https?://", filename):
        return data_paths.inside(posixpath.basename(filename.partition("?")[0].partition("#")[0]))
    return data_paths.inside(filename)


def _in_default_path(path: str, source: Source) -> list[str]:
    """Where a project's own folder of images puts it."""
    settings = source.file.rest.get("_via_settings")
    core = settings.get("core") if isinstance(settings, dict) else None
    folder = core.get("default_filepath") if isinstance(core, dict) else None
    try:
        return [data_paths.inside(f"{folder.rstrip('/')}/{path}")] if isinstance(folder, str) and folder else []
    except ValueError:
        return []


def _embedded(text: Any) -> bytes | None:
    if not isinstance(text, str) or not text:
        return None
    match = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[match.end() :] if match else text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected base64_img_data as an image in base64, found {text[:40]!r}: {error}") from None


def _header(data: bytes) -> Header:
    try:
        return header(data)
    except ImageError as error:
        raise Unusable("image", f"expected base64_img_data as an image, found other bytes: {error}") from None


def _recorded_hw(size: Any) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        return None
    image_hw = (int(match[2]), int(match[1]))
    if (reason := shapes.hw_fault(image_hw)) is not None:
        raise Unusable("size", reason)
    return image_hw
