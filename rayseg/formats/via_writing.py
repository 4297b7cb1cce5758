"""Writing VIA's files: `rayseg.formats.via` says by which rules."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

from rayseg.annotations import AnnotatedImage, Annotation, Dataset, Ellipse, Points, Polygons, Polyline
from rayseg.formats import data_paths, exact_notes, image_files, via_regions
from rayseg.formats.keeping import is_json
from rayseg.formats.losses import Losses
from rayseg.formats.shape_json import encode_shape
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.via_classes import DEFAULT_ATTRIBUTE, UNLABELLED, Classes
from rayseg.formats.via_files import ATTRIBUTES, CSV_COLUMNS, METADATA, csv_rows
from rayseg.formats.via_reading import (
    BOX,
    CROWD,
    GROUP,
    NAME,
    OBJECT,
    REGION_NOTES,
    SCORE,
    SHAPE,
    SIZE,
    UNKNOWN_SIZE,
)
from rayseg.formats.writable import Own, drop_image, is_object, is_text, writable

HELD = Held("VIA", "via", crowd=True, score=True, group=True, attributes=None, image_attributes=True)
OWN = Own(
    "via",
    {"filename": is_text, "size": lambda value: isinstance(value, int | str), "key": is_text, "entry": is_object},
    {
        "value": lambda _: True,
        "unlabelled": lambda value: value is True,
        "shape": is_object,
        "region": is_object,
    },
    {"option": is_text, "text": is_text},
)
FILES = {
    "project": "via_project.json",
    "annotations": "via_region_data.json",
    "via1": "via_region_data.json",
    "csv": "via_region_data.csv",
}
_SETTINGS = {
    "ui": {},
    "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""},
    "project": {"name": "rayseg"},
}
_VERSION = "2.0.10"
_TEXT = {"type": "text", "description": "", "default_value": ""}


def write_dataset(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """A file for each split, in the form that the data set came in, a project where it came from elsewhere."""
    categories = [
        dataclasses.replace(one, extras=OWN.checked(one.extras, OWN.category, losses)) for one in dataset.categories
    ]
    dataset = dataclasses.replace(dataset, categories=tuple(categories))
    info = dataset.info.get("via", {})
    form = str(info.get("form")) if info.get("form") in FILES else "project"
    writer = _Writer(dataset, form, sink, losses)
    if "" in dataset.class_names:
        losses.approximated("class", "VIA takes no name for no class: its regions are read as of another")
    with ExitStack() as stack:
        for image in dataset.images:
            writer.put(image, stack)
        writer.finish(stack)
    if form == "project":
        HELD.dataset(dataset, losses)
        return
    used = tuple(category for i, category in enumerate(dataset.categories) if i in writer.used)
    HELD.dataset(dataclasses.replace(dataset, categories=used), losses)
    if unused := len(dataset.categories) - len(used):
        losses.dropped("class", "no region is of it, and VIA has a list of classes in projects alone", unused)


class _Writer:
    """Puts entries into the file of their split."""

    def __init__(self, dataset: Dataset, form: str, sink: Sink, losses: Losses) -> None:
        self._dataset, self._form, self._sink, self._losses = dataset, form, sink, losses
        self._info = dataset.info.get("via", {})
        options = ((category.extras.get("via", {}).get("option"), category.name) for category in dataset.categories)
        self._class = Classes(
            str(self._info.get("class_attribute") or DEFAULT_ATTRIBUTE),
            options={option: name for option, name in options if isinstance(option, str)},
        )
        self._files: dict[str | None, IO[bytes]] = {}
        self._keys: dict[str | None, dict[str, None]] = {}
        self._names: set[str] = set()
        self._region_names: dict[str, None] = {}
        self._file_names: dict[str, None] = {}
        self.used: dict[int, None] = {}  # categories, as they came

    def put(self, image: AnnotatedImage, stack: ExitStack) -> None:
        """One image as an entry, and its pixels beside where they came embedded and the form does not embed."""
        is_broken = self._form == "csv" and not image.name.isprintable()
        if not data_paths.is_writable(image.name) or image.name in self._names or is_broken:
            drop_image(image, "its name is no path below a folder, or another image has it", self._losses)
            return
        image = writable(image, OWN, self._losses)
        self._names.add(image.name)
        split = image.split if image.split and data_paths.is_writable(image.split) and "/" not in image.split else None
        if split != image.split:
            self._losses.dropped("split", "its name is not one that a folder can have")
        HELD.image(image, self._losses)
        self._losses.kept("image")
        prefix = "" if split is None else f"{split}/"
        path = image.name.removeprefix(prefix)
        extras = image.extras.get("via", {})
        image_hw = image_files.upright_hw(image)
        notes = {} if image_hw is None else {SIZE: f"{image_hw[1]}x{image_hw[0]}"}
        if prefix + path != image.name:
            notes[NAME] = image.name
        objects = itertools.count(1)
        entry = {
            "filename": str(extras.get("filename", path)),
            "size": extras.get("size", UNKNOWN_SIZE if image.data is None else len(image.data)),
            "regions": [region for one in image.annotations for region in self._regions(one, objects)],
            "file_attributes": self._plain(image.attributes, (SIZE, NAME), self._file_names) | notes,
        }
        image_files.tell_of_file(image, self._losses, "VIA")
        if image.data is not None:
            self._losses.kept("image file")
        if image.data is not None and self._form != "via1":
            self._sink.put(f"{prefix}{path}", image.data)
        self._add(entry, image, split, stack)

    def finish(self, stack: ExitStack) -> None:
        """Write what comes after the entries; without images there is one empty file."""
        for split in list(self._files) or [None]:
            file = self._file(split, stack)
            if self._form == "project":
                given: Any = self._info.get("rest")
                rest: dict[str, Any] = {**given} if is_object(given) and is_json(given) else {}
                rest.setdefault("_via_data_format_version", _VERSION)
                rest[ATTRIBUTES] = self._declared(rest.get(ATTRIBUTES))
                rest["_via_image_id_list"] = list(self._keys.get(split, {}))
                rest.setdefault("_via_settings", _SETTINGS)
                file.write(b"\n}, " + json.dumps(rest).encode()[1:] + b"\n")
            elif self._form != "csv":
                file.write(b"\n}\n")

    def _file(self, split: str | None, stack: ExitStack) -> IO[bytes]:
        if split not in self._files:
            name = FILES[self._form] if split is None else f"{split}/{FILES[self._form]}"
            file = self._files[split] = stack.enter_context(self._sink.stream(name, last=True))
            self._keys[split] = {}
            starts = {"csv": ",".join(CSV_COLUMNS) + "\n", "project": f'{{"{METADATA}": {{'}
            file.write(starts.get(self._form, "{").encode())
        return self._files[split]

    def _add(self, entry: dict[str, Any], image: AnnotatedImage, split: str | None, stack: ExitStack) -> None:
        file = self._file(split, stack)
        if self._form == "csv":
            rows = csv_rows(entry["filename"], entry["size"], entry["file_attributes"], entry["regions"])
            file.writelines(row.encode("utf-8", "replace") for row in rows)
            return
        extras = image.extras.get("via", {})
        keys = self._keys[split]
        key = base = str(extras.get("key", f"{entry['filename']}{entry['size']}"))
        n = 2
        while key in keys:
            key, n = f"{base}~{n}", n + 1
        entry = extras.get("entry", {}) | entry
        if self._form == "via1":
            entry["regions"] = {str(i): region for i, region in enumerate(entry["regions"])}
            entry.setdefault("fileref", "")
            data = "" if image.data is None else base64.b64encode(image.data).decode("ascii")
            entry["base64_img_data"] = data
        file.write(f"{',' if keys else ''}\n{json.dumps(key)}: {json.dumps(entry)}".encode())
        keys[key] = None

    def _regions(self, annotation: Annotation, objects: Iterator[int]) -> list[dict[str, Any]]:
        """The regions of one annotation; several are numbered as one object."""
        drawn = via_regions.drawn(annotation)
        if not drawn:
            self._losses.dropped("box" if annotation.shape is None else "mask", "there is nothing of it to draw")
            return []
        HELD.annotation(annotation, self._losses)
        _tell_shape(annotation, self._losses)
        self.used[annotation.category] = None
        extras = annotation.extras.get("via", {})
        notes = _notes(annotation, drawn)
        attributes = self._attributes(annotation)
        if len(drawn) > 1:
            attributes[OBJECT] = next(objects)
        regions = []
        for shape in drawn:
            region = {"shape_attributes": extras.get("shape", {}) | shape, "region_attributes": attributes | notes}
            regions.append(region if self._form == "csv" else extras.get("region", {}) | region)
            notes = {}
        return regions

    def _attributes(self, annotation: Annotation) -> dict[str, Any]:
        """`region_attributes`: the class first, then what people set, then flags of rayseg's own."""
        category = self._dataset.categories[annotation.category]
        extras = annotation.extras.get("via", {})
        value = extras.get("value")
        if self._class.name_of(value) != category.name:
            value = category.extras.get("via", {}).get("option", category.name)
        attributes = {self._class.attribute: value}
        attributes |= self._plain(annotation.attributes, (*REGION_NOTES, self._class.attribute), self._region_names)
        own = {GROUP: annotation.group, SCORE: annotation.score, CROWD: annotation.crowd or None}
        own[UNLABELLED] = extras.get("unlabelled") or None
        return attributes | {key: one for key, one in own.items() if one is not None}

    def _plain(self, attributes: Mapping[str, Any], taken: Collection[str], names: dict[str, None]) -> dict[str, Any]:
        """The attributes that can be written, whose names a project declares."""
        kept = {}
        for name, value in attributes.items():
            if not name or name in taken:
                self._losses.dropped("attribute", f"VIA has {name!r} for something else")
                continue
            kept[name] = value
            names[name] = None
        return kept

    def _declared(self, given: Any) -> dict[str, Any]:
        """`_via_attributes`: what came, and every attribute that was written and is not in it."""
        given = given if isinstance(given, dict) else {}
        region, file = (dict(given[kind]) if is_object(given.get(kind)) else {} for kind in ("region", "file"))
        options = {
            category.extras.get("via", {}).get("option", category.name): category.extras.get("via", {}).get("text", "")
            for category in self._dataset.categories
        }
        declared = region.get(self._class.attribute)
        if isinstance(declared, dict) and not declared.get("options") and list(self.used) == list(range(len(options))):
            pass  # free text, whose classes come in the order in which they occur
        elif isinstance(declared, dict) and isinstance(declared.get("options"), dict):
            region[self._class.attribute] = {
                **declared,
                "options": {**declared["options"], **_missing(options, declared)},
            }
        else:
            chosen = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
            region = {self._class.attribute: chosen, **{k: v for k, v in region.items() if k != self._class.attribute}}
        for names, declarations in ((self._region_names, region), (self._file_names, file)):
            for name in names:
                declarations.setdefault(name, _TEXT)
        return {**given, "region": region, "file": file}


def _missing(options: dict[str, str], declared: dict[str, Any]) -> dict[str, str]:
    return {option: text for option, text in options.items() if option not in declared["options"]}


def _notes(annotation: Annotation, drawn: list[dict[str, Any]]) -> dict[str, str]:
    """What VIA's shapes do not say of an annotation's, as text."""
    notes = {}
    if annotation.shape is not None:
        _, shape = via_regions.joined([via_regions.geometry(one) for one in drawn])
        if shape != annotation.shape:
            notes[SHAPE] = json.dumps(encode_shape(annotation.shape))
    if (box := exact_notes.box_note(annotation)) is not None:
        notes[BOX] = json.dumps(box)
    return notes


def _tell_shape(annotation: Annotation, losses: Losses) -> None:
    """All shapes are kept: what VIA cannot draw as it is covers the same pixels and has a note beside it."""
    shape = annotation.shape
    if shape is None:
        losses.kept("box")
    elif isinstance(shape, Polyline | Points):
        losses.kept("polyline" if isinstance(shape, Polyline) else "points")
    else:
        losses.kept("mask")
        if isinstance(shape, Ellipse):
            losses.kept("ellipse")
    if isinstance(shape, Polygons):
        holes = sum(len(part) - 1 for part in shape.parts if part)
        for kind, count in (("part", len(shape.parts) if len(shape.parts) > 1 else 0), ("hole", holes)):
            if count:
                losses.kept(kind, count)
