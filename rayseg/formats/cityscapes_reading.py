"""Reading Cityscapes, an image at a time: `rayseg.formats.cityscapes` says by which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Mask
from rayseg.formats import cityscapes_polygons, data_paths, id_maps, json_values, orientation
from rayseg.formats.cityscapes_labels import Table
from rayseg.formats.cityscapes_layout import IMAGE_ENDING, INSTANCES, LABELS, POLYGONS, Files, Layout
from rayseg.formats.cityscapes_numbers import names_of, numbers_for
from rayseg.formats.faults import Faults
from rayseg.formats.instance_notes import annotation_of, attributes_in, extras_in, hw_in, text_in, uri_in
from rayseg.formats.item_files import BadFile, read_ids, read_object
from rayseg.formats.listing import suffix
from rayseg.kernels import encode_id_map

NOTE = "rayseg"
SIZE_KEYS = ("imgHeight", "imgWidth")


class CityscapesImages:
    """The images, by split, city and base."""

    def __init__(self, layout: Layout, table: Table, faults: Faults) -> None:
        self._layout, self._table, self._faults = layout, table, faults

    def __len__(self) -> int:
        return len(self._layout.keys)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        seen: set[str] = set()
        for key, files in self._layout.keys.items():
            try:
                image = self._image(key, files)
                if image.name in seen:
                    raise BadFile("image", self._uri(files), f"expected one image {image.name!r}, found two")
            except BadFile as error:
                self._faults.add(error.uri, error.kind, f"image {key}", str(error))
                continue
            seen.add(image.name)
            yield image

    def _uri(self, files: Files) -> str:
        """The file to name in a fault."""
        return self._layout.at(next(files.names[kind] for kind in (POLYGONS, INSTANCES, LABELS) if kind in files.names))

    def _image(self, key: str, files: Files) -> AnnotatedImage:
        content = self._content(files)
        note = content.get(NOTE) if isinstance(content.get(NOTE), dict) else {}
        assert isinstance(note, dict)
        place = self._layout.image_of.get(key)
        usual = f"{files.city}/{files.base}{IMAGE_ENDING}.{suffix(place) if place else 'png'}".removeprefix("/")
        name = note.get("image", usual)
        if not isinstance(name, str) or not data_paths.is_writable(name):
            raise BadFile("image", self._uri(files), f"expected the name of an image, found {json_values.shown(name)}")
        image_uri = data_paths.at(self._layout.images, place) if place else uri_in(note)
        try:
            said_hw = hw_in(content, *SIZE_KEYS)
            ids = self._ids(files, content, said_hw)
            hw = (ids.shape[0], ids.shape[1])
            if said_hw is not None and said_hw != hw:
                raise ValueError(f"expected masks of {said_hw} (H, W) as the polygons' file says, found {hw}")
            annotations = self._annotations(files, ids, note)
            extras = self._extras(content, annotations, hw, np.unique(ids))
            found = orientation.raster(image_uri) if place and suffix(place) != "png" and not note else None
            turned, image_hw = orientation.upright(annotations, found, hw)
        except ValueError as error:
            raise BadFile("size", self._uri(files), str(error)) from None
        split = text_in(note, "split") if "split" in note else files.split
        return AnnotatedImage(
            name, image_uri, image_hw, tuple(turned), split, attributes_in(note), {**extras_in(note), **extras}
        )

    def _content(self, files: Files) -> dict[str, Any]:
        """What the file of polygons says; {} where there is none."""
        if POLYGONS not in files.names:
            return {}
        uri = self._layout.at(files.names[POLYGONS])
        value = read_object(uri, "polygons")
        if not isinstance(value.get("objects"), list):
            raise BadFile(
                "polygons", uri, f"expected an object with a list of objects, found {json_values.shown(value)}"
            )
        return value

    def _ids(self, files: Files, content: dict[str, Any], hw: tuple[int, int] | None) -> np.ndarray:
        """The id map (H, W): instanceIds, else what the polygons draw, else labelIds."""
        for kind in (INSTANCES, LABELS):
            if kind in files.names and (kind == INSTANCES or not content):
                return read_ids(self._layout.at(files.names[kind]))
        if hw is None or hw[0] * hw[1] > id_maps.MAX_PIXELS:
            raise ValueError(f"expected imgHeight and imgWidth of at most {id_maps.MAX_PIXELS:,} pixels, found {hw}")
        return cityscapes_polygons.drawn(content["objects"], hw, self._table, self._uri(files), self._faults)

    def _annotations(self, files: Files, ids: np.ndarray, note: dict[str, Any]) -> list[Annotation]:
        """One annotation per number; in the note's order, where there is a note, then as numbers rise."""
        numbers, rles = encode_id_map(ids)
        masks = {n: Mask(rle, rles.image_hw) for n, rle in zip(numbers.tolist(), rles.strings(), strict=True)}
        found: list[tuple[Annotation, int | None]] = []
        entries = note.get("instances")
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                found.append(self._noted(entry, masks))
            except ValueError as error:
                self._faults.add(self._uri(files), "instance", f"{NOTE}.instances[{i}]", str(error))
        for number, mask in masks.items():
            place = self._table.place_of(number)
            if place is None:
                message = f"expected numbers of labels that the table has, found {number}"
                self._faults.add(self._uri(files), "class", f"number {number}", message)
                continue
            found.append((Annotation(place, shape=mask, crowd=self._table.is_crowd(number, place)), number))
        expected = numbers_for([annotation for annotation, _ in found], self._table)
        return [
            annotation if number in (None, usual) else _with_number(annotation, number)
            for (annotation, number), usual in zip(found, expected, strict=True)
        ]

    def _noted(self, entry: Any, masks: dict[int, Mask]) -> tuple[Annotation, int | None]:
        """One entry of the note, and its number; its mask is taken out of `masks`."""
        if not isinstance(entry, dict):
            raise ValueError(f"expected an object, found {json_values.shown(entry)}")
        number = entry.get("id")
        if number is None:
            place = self._table.named(str(entry.get("label")))
            if place is None:
                raise ValueError(f"expected a label of the table, found {json_values.shown(entry.get('label'))}")
            return annotation_of(entry, place[0], None), None
        place = self._table.place_of(number) if type(number) is int else None
        if type(number) is not int or number not in masks or place is None:
            raise ValueError(f"expected the number of an object with pixels, found {json_values.shown(number)}")
        annotation = annotation_of(entry, place, masks.pop(number))
        crowd = annotation.crowd or self._table.is_crowd(number, place)
        return dataclasses.replace(annotation, crowd=crowd), number

    def _extras(
        self, content: dict[str, Any], annotations: list[Annotation], hw: tuple[int, int], numbers: np.ndarray
    ) -> dict[str, Any]:
        """The polygons, unless they are what would be written for these annotations anyway."""
        kept = {key: value for key, value in content.items() if key not in (*SIZE_KEYS, NOTE)}
        masked = [annotation for annotation in annotations if annotation.shape is not None]
        if not content or (len(kept) == 1 and _are_own(kept["objects"], masked, self._table, hw)):
            return {}
        return {"cityscapes": {"polygons": kept, "numbers": names_of(numbers, self._table)}}


def _are_own(objects: list[Any], annotations: list[Annotation], table: Table, hw: tuple[int, int]) -> bool:
    """Whether these are the objects that would be written for the annotations; labels first, as they are soon compared."""
    labels = [cityscapes_polygons.label_of(annotation, table) for annotation in annotations]
    if labels != [entry.get("label") if isinstance(entry, dict) else None for entry in objects]:
        return False
    return all(
        entry == cityscapes_polygons.object_of(annotation, table, hw)
        for entry, annotation in zip(objects, annotations, strict=True)
    )


def _with_number(annotation: Annotation, number: int | None) -> Annotation:
    return dataclasses.replace(annotation, extras={**annotation.extras, "cityscapes": {"id": number}})
