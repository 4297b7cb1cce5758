"""Writing masks, an image at a time: `rayseg.formats.masks` says by which rules."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.formats import data_paths, id_maps, image_files, painting, shapes
from rayseg.formats.class_names import distinct
from rayseg.formats.instance_notes import entry_of, json_bytes, noted_uri, rest_of
from rayseg.formats.keeping import keep_annotation, keep_values
from rayseg.formats.listing import stem
from rayseg.formats.losses import Losses
from rayseg.formats.masks_layout import IMAGES, INSTANCES, MASKS, TABLE_FILE
from rayseg.formats.masks_tables import JSON_FILE
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import tell_of_id
from rayseg.formats.writable import drop_image
from rayseg.kernels import Rles

_NAME_BYTES_MAX = 200
_CLASS_ID_END = 1 << 32


class Writer:
    """Puts one image after the other."""

    def __init__(self, dataset: Dataset, sink: Sink, losses: Losses) -> None:
        self._sink, self._losses = sink, losses
        self._ids = _class_ids(dataset.categories)
        self._categories = distinct(dataset.categories, losses, "classes.json")
        self._info = keep_values(
            {name: said for name, said in dataset.info.items() if said and name != "masks"}, "extra", losses
        )
        self._keys: set[str] = set()
        self._names: set[str] = set()

    def put(self, image: AnnotatedImage) -> None:
        """One image: its map or folder, and its table."""
        key = next((one for one in (stem(image.name), image.name) if one not in self._keys), None)
        if key is None or not data_paths.is_writable(image.name) or image.name in self._names:
            drop_image(image, "its name is no path below a folder, or another image has it", self._losses)
            return
        self._keys.add(key)
        self._names.add(image.name)
        self._losses.kept("image")
        image_hw = image_files.upright_hw(image) or _hw_of_masks(image)
        annotations, rles = self._drawn(image, image_hw)
        instances = [{"class": self._ids[one.category]} | entry_of(one, self._losses, "masks") for one in annotations]
        drawn = [i for i, annotation in enumerate(annotations) if annotation.shape is not None]
        folder = image_hw is not None and self._put_masks(key, annotations, drawn, rles, instances)
        table = self._table(image, image_hw, instances)
        name = f"{INSTANCES}{key}/{TABLE_FILE}" if folder else f"{MASKS}{key}.json"
        self._sink.put(name, json_bytes(table))
        if image.data is not None:
            self._losses.kept("image file")
            self._sink.put(f"{IMAGES}{image.name}", image.data)

    def finish(self) -> None:
        """classes.json, without which the rest is no data set."""
        classes = [self._class(category, number) for category, number in zip(self._categories, self._ids, strict=True)]
        content: dict[str, Any] = {"classes": classes}
        if self._info:
            content["info"] = self._info
        self._sink.put(JSON_FILE, json_bytes(content, indent=1), last=True)

    def _drawn(self, image: AnnotatedImage, image_hw: tuple[int, int] | None) -> tuple[list[Annotation], Rles]:
        """The annotations to write, those with a mask keeping their shape, and these masks."""
        places: list[int] = []
        rles = Rles.empty(image_hw or (0, 0))
        if image_hw is not None:
            places, rles = painting.drawable(image.annotations, image_hw, self._losses, "an id map")
        written = []
        for i, annotation in enumerate(image.annotations):
            one = annotation if i in places else dataclasses.replace(annotation, shape=None)
            if image_hw is None and annotation.shape is not None:
                self._losses.dropped("mask", "the image's size is not known")
            fault = shapes.fault(dataclasses.replace(one, shape=None), None)
            if fault is not None:
                self._losses.dropped(*fault)
                one = dataclasses.replace(one, box_xyxy=None)
            if one.shape is not None or one.box_xyxy is not None:
                keep_annotation(one, self._losses)
                written.append(one)
        return written, rles

    def _put_masks(
        self, key: str, annotations: list[Annotation], drawn: list[int], rles: Rles, instances: list[dict[str, Any]]
    ) -> bool:
        """The map, or the folder where masks overlap or have no pixels; completes the instances. Whether it is a folder."""
        every_id = _numbers(annotations)
        ids = np.array([every_id[i] for i in drawn], np.int64)
        painted = painting.paint(rles, ids)
        if painted.disjoint and (rles.areas() > 0).all():
            for i, number in zip(drawn, ids.tolist(), strict=True):
                instances[i]["id"] = number
            self._sink.put(f"{MASKS}{key}.png", id_maps.gray(painted.ids))
            return False
        for k, i in enumerate(drawn):
            file = self._file(i, annotations[i])
            instances[i]["file"] = file
            own = annotations[i].extras.get("masks", {}).get("id")
            if type(own) is int:
                instances[i]["id"] = own
            self._sink.put(f"{INSTANCES}{key}/{file}", id_maps.binary(rles.decode(k)))
        return True

    def _file(self, place: int, annotation: Annotation) -> str:
        name = quote(self._categories[annotation.category].name, safe=" ")
        named = name if 0 < len(name) <= _NAME_BYTES_MAX else str(self._ids[annotation.category])
        return f"{place + 1:04d}_{named}.png"

    def _table(self, image: AnnotatedImage, image_hw: tuple[int, int] | None, instances: list) -> dict[str, Any]:
        height, width = image_hw or (None, None)
        table: dict[str, Any] = {"image": image.name, "height": height, "width": width}
        if image.uri and image.data is None:
            table["uri"] = noted_uri(image.uri)
        if image.split is not None:
            table["split"] = image.split
        return table | rest_of(image.attributes, image.extras, self._losses, "masks") | {"instances": instances}

    def _class(self, category: Category, number: int) -> dict[str, Any]:
        self._losses.kept("class")
        tell_of_id(
            category.source_id, number, self._losses, "another class has the same, or it is below 0 or too large"
        )
        entry: dict[str, Any] = {"id": number, "name": category.name}
        if category.supercategory is not None:
            self._losses.kept("supercategory")
            entry["supercategory"] = category.supercategory
        if category.colour is not None:
            self._losses.kept("class colour")
            entry["colour"] = list(category.colour)
        return entry | rest_of({}, category.extras, self._losses, "masks")


def _class_ids(categories: Sequence[Category]) -> list[int]:
    """The number of each class: its own where that can be and no earlier one has it, else the next free one from 1."""
    found: list[int | None] = []
    for category in categories:
        own = category.source_id
        found.append(own if own is not None and 0 <= own < _CLASS_ID_END and own not in found else None)
    used = set(found)
    free = (number for number in itertools.count(1) if number not in used)
    return [next(free) if number is None else number for number in found]


def _numbers(annotations: list[Annotation]) -> list[int]:
    """The number of each annotation in a map: its own where all that have one differ from all others', else its place."""
    own = [dict(annotation.extras.get("masks", {})).get("id", i + 1) for i, annotation in enumerate(annotations)]
    sound = all(type(number) is int and 0 < number < 0xFF000000 for number in own)
    return own if sound and len(set(own)) == len(own) else list(range(1, len(own) + 1))


def _hw_of_masks(image: AnnotatedImage) -> tuple[int, int] | None:
    return next((one.shape.image_hw for one in image.annotations if isinstance(one.shape, Mask)), None)
