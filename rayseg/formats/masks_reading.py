"""Reading masks, an image at a time: `rayseg.formats.masks` says by which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from rayseg.annotations import AnnotatedImage, Annotation, Mask
from rayseg.formats import data_paths, json_values, orientation
from rayseg.formats.faults import Faults
from rayseg.formats.instance_notes import annotation_of, attributes_in, extras_in, hw_in, text_in, uri_in
from rayseg.formats.item_files import BadFile, read_ids, read_object
from rayseg.formats.masks_layout import Files, Layout
from rayseg.formats.masks_tables import Table
from rayseg.kernels import Rles, encode, encode_id_map


class MaskImages:
    """The images, by name without suffix."""

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
                    raise BadFile(
                        "image", self._layout.at(_first(files)), f"expected one image {image.name!r}, found two"
                    )
            except BadFile as error:
                self._faults.add(error.uri, error.kind, f"image {key}", str(error))
                continue
            seen.add(image.name)
            yield image
        for key, name in sorted(self._layout.image_of.items(), key=lambda item: item[0].encode()):
            if name not in seen and key not in self._layout.keys:
                message = "expected a mask for each image, found none"
                self._faults.add(self._layout.images, "annotation", f"image {name}", message)

    def _image(self, key: str, files: Files) -> AnnotatedImage:
        told = self._told(files)
        uri = self._layout.at(_first(files))
        name = told.get("image", self._layout.image_of.get(key))
        if name is None:
            if self._layout.image_of:
                raise BadFile("image", uri, f"expected an image {key!r} for the mask, found none")
            name = f"{key}.png"
        if not isinstance(name, str) or not data_paths.is_writable(name):
            raise BadFile("image", uri, f"expected the name of an image, found {json_values.shown(name)}")
        there = name in self._layout.image_names
        image_uri = data_paths.at(self._layout.images, name) if there else uri_in(told)
        try:
            said_hw = hw_in(told)
            annotations, hw = self._annotations(key, files, told, said_hw)
            found = orientation.raster(image_uri) if said_hw is None else None
            annotations, image_hw = orientation.upright(annotations, found, hw)
        except ValueError as error:
            raise BadFile("size", uri, str(error)) from None
        return AnnotatedImage(
            name,
            image_uri,
            image_hw,
            tuple(annotations),
            text_in(told, "split"),
            attributes_in(told),
            extras_in(told),
        )

    def _told(self, files: Files) -> dict[str, Any]:
        """The table of an image; {} where it has none."""
        if files.table is None:
            return {}
        uri = self._layout.at(files.table)
        value = read_object(uri, "table")
        if "instances" in value and not isinstance(value["instances"], list):
            raise BadFile("table", uri, f"expected instances as a list, found {json_values.shown(value['instances'])}")
        return value if "instances" in value else {"instances": _listed(value)}

    def _annotations(
        self, key: str, files: Files, told: dict[str, Any], hw: tuple[int, int] | None
    ) -> tuple[list[Annotation], tuple[int, int] | None]:
        """All annotations, and the size of what they were drawn on."""
        masks, found_hw = self._masks(files)
        if hw is not None and found_hw is not None and hw != found_hw:
            raise ValueError(f"expected masks of {hw} (H, W) as the table says, found {found_hw}")
        annotations = []
        for i, entry in enumerate(told.get("instances", ())):
            try:
                annotations.append(self._instance(entry, i, masks))
            except ValueError as error:
                assert files.table is not None
                self._faults.add(self._layout.at(files.table), "instance", f"instances[{i}]", str(error))
        for what, mask in masks.items():
            category = self._table.category_in(what) if isinstance(what, str) else self._table.category_at(key, what)
            if category is None:
                uri = self._layout.at(what if isinstance(what, str) else _first(files))
                message = f"expected one of the classes, found {what if isinstance(what, int) else 'the file name'}"
                self._faults.add(uri, "class", f"image {key}", message)
                continue
            place = len(annotations) + 1
            extras = {"masks": {"id": what}} if isinstance(what, int) and what != place else {}
            annotations.append(Annotation(category, shape=mask, extras=extras))
        return annotations, found_hw or hw

    def _masks(self, files: Files) -> tuple[dict[int | str, Mask], tuple[int, int] | None]:
        """Masks by their number in the map, or by the file that holds them, and their size."""
        masks: dict[int | str, Mask] = {}
        hw = None
        if files.id_map is not None:
            ids = read_ids(self._layout.at(files.id_map))
            hw = (ids.shape[0], ids.shape[1])
            numbers, rles = encode_id_map(ids)
            masks.update(_by(numbers.tolist(), rles))
        for name in files.objects:
            pixels = read_ids(self._layout.at(name))
            if hw is not None and hw != pixels.shape:
                raise ValueError(f"expected masks of {hw} (H, W) as the first is, found {pixels.shape} in {name}")
            hw = (pixels.shape[0], pixels.shape[1])
            masks.update(_by([name], encode((pixels != 0)[None])))
        return masks, hw

    def _instance(self, entry: Any, place: int, masks: dict[int | str, Mask]) -> Annotation:
        """One entry of a table; its mask is taken out of `masks`."""
        if not isinstance(entry, dict):
            raise ValueError(f"expected an object, found {json_values.shown(entry)}")
        number, file = entry.get("id"), entry.get("file")
        mask = None
        if isinstance(file, str):
            mask = next((masks.pop(name) for name in list(masks) if str(name).rpartition("/")[2] == file), None)
        elif number is not None:
            mask = masks.pop(number, None) if type(number) is int else None
        if mask is None and (file is not None or number is not None):
            raise ValueError(f"expected pixels of {json_values.shown(number if file is None else file)}, found none")
        category = self._category(entry.get("class"))
        annotation = annotation_of(entry, category, mask)
        if type(number) is not int or number == place + 1:
            return annotation
        return dataclasses.replace(annotation, extras={**annotation.extras, "masks": {"id": number}})

    def _category(self, named: Any) -> int:
        place = None
        if isinstance(named, str):
            place = self._table.named.get(named)
        elif type(named) is int:
            place = self._table.places.get(named)
        if place is None:
            raise ValueError(f"expected one of the classes, found {json_values.shown(named)}")
        return place


def _first(files: Files) -> str:
    return files.id_map or files.table or files.objects[0]


def _by(keys: list[int | str], rles: Rles) -> dict[int | str, Mask]:
    return {key: Mask(counts, rles.image_hw) for key, counts in zip(keys, rles.strings(), strict=True)}


def _listed(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A table from elsewhere, {"1": "cat"}, as rayseg's."""
    return [
        {"id": int(key) if key.isdecimal() and len(key) < 11 else key, "class": name} for key, name in value.items()
    ]
