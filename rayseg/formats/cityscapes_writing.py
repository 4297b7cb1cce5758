"""Writing Cityscapes, an image at a time: `rayseg.formats.cityscapes` says by which rules."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Dataset, Mask
from rayseg.formats import (
    cityscapes_labels,
    cityscapes_polygons,
    data_paths,
    id_maps,
    image_files,
    painting,
    shapes,
)
from rayseg.formats.cityscapes_labels import PER_LABEL
from rayseg.formats.cityscapes_layout import IMAGE_ENDING, INSTANCES, LABELS, POLYGONS
from rayseg.formats.cityscapes_numbers import names_of, numbers_for, own_numbers
from rayseg.formats.cityscapes_reading import NOTE, SIZE_KEYS
from rayseg.formats.class_names import distinct
from rayseg.formats.instance_notes import entry_of, json_bytes, noted_uri, rest_of
from rayseg.formats.listing import stem
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.writable import drop_image
from rayseg.kernels import encode_id_map

_HELD = Held("Cityscapes", "cityscapes", colours=True, supercategories=True)
_NO_SPLIT, _NO_CITY = "unsplit", "none"
_IDS_IN_16_BITS = (1 << 16) // PER_LABEL
_MERGED = "the groups of a label are one region"


class Writer:
    """Puts one image after the other."""

    def __init__(self, dataset: Dataset, sink: Sink, losses: Losses) -> None:
        self._sink, self._losses = sink, losses
        self._came_so = "cityscapes" in dataset.info
        categories = distinct(dataset.categories, losses, cityscapes_labels.FILE)
        self._table = cityscapes_labels.table_for(categories, came_so=self._came_so)
        self._used: set[str] = set()
        self._names: set[str] = set()
        self._told: set[tuple[int, str]] = set()
        _HELD.dataset(dataset, losses, self._table.ids)
        for place, label_id in enumerate(self._table.ids):
            if label_id >= cityscapes_labels.FIRST_FREE:
                reason = f"in {cityscapes_labels.FILE}, as cityscapesScripts does not know it"
                beyond = label_id >= _IDS_IN_16_BITS
                self._tell_of_label(place, f"{reason}, with numbers beyond 16 bits" if beyond else reason)

    def put(self, image: AnnotatedImage) -> None:
        """One image: its maps and its polygons."""
        image_hw = image_files.upright_hw(image)
        if image_hw is None:
            drop_image(image, "its size is not known", self._losses)
            return
        if not data_paths.is_writable(image.name) or image.name in self._names:
            drop_image(image, "its name is no path below a folder, or another image has it", self._losses)
            return
        self._names.add(image.name)
        self._losses.kept("image")
        annotations, numbers, ids = self._numbered(image, image_hw)
        split, city, base = self._place(image)
        content = dict(zip(SIZE_KEYS, image_hw, strict=True)) | self._polygons(image, annotations, numbers, ids)
        data = image_files.encoded(image)
        note = self._note(image, data, (split, city, base), annotations, numbers)
        if note:
            content[NOTE] = note
        start = f"gtFine/{split}/{city}/{base}_gtFine_"
        self._sink.put(start + INSTANCES, id_maps.gray(ids, least_bits=16))
        self._sink.put(start + LABELS, id_maps.gray(np.where(ids >= PER_LABEL, ids // PER_LABEL, ids)))
        self._sink.put(start + POLYGONS, json_bytes(content))
        if data is None:
            self._losses.dropped("image file", "it cannot be read; loaders look for it in leftImg8bit")
        else:
            self._losses.kept("image file")
            self._sink.put(f"leftImg8bit/{split}/{city}/{base}{IMAGE_ENDING}.{_suffix(data)}", data)

    def finish(self) -> None:
        """The file of labels, unless they are Cityscapes' own."""
        if not cityscapes_labels.is_standard(self._table):
            self._sink.put(cityscapes_labels.FILE, cityscapes_labels.text_of(self._table), last=True)

    def _tell_of_label(self, place: int, reason: str) -> None:
        if not self._came_so and (place, reason) not in self._told:
            self._told.add((place, reason))
            self._losses.approximated("class label", reason)

    # ---- annotations

    def _numbered(
        self, image: AnnotatedImage, image_hw: tuple[int, int]
    ) -> tuple[list[Annotation], list[int | None], np.ndarray]:
        """The annotations to write, each with its visible mask or none, their numbers, and the id map (H, W)."""
        annotations = [self._with_sound_box(annotation) for annotation in image.annotations]
        places, rles = painting.drawable(annotations, image_hw, self._losses, "Cityscapes")
        areas = rles.areas()
        if (areas == 0).any():
            self._losses.dropped("mask", "it covers no pixel's centre", int((areas == 0).sum()))
        chosen = np.flatnonzero(areas)
        painted = painting.paint(rles.select(chosen), np.arange(1, len(chosen) + 1))
        painting.tell_visible(painted, self._losses)
        seen = {places[i]: k for k, i in enumerate(chosen) if painted.ious[k] > 0}
        kept = [place for place, one in enumerate(annotations) if place in seen or one.box_xyxy is not None]
        drawn = Mask(b"", image_hw)  # stands for the visible mask, which is not known yet
        written = [dataclasses.replace(annotations[place], shape=drawn if place in seen else None) for place in kept]
        numbers = own_numbers(written, self._table) or numbers_for(written, self._table)
        new_ids = np.zeros(len(chosen) + 1, np.int64)
        for place, number in zip(kept, numbers, strict=True):
            if number is not None:
                new_ids[seen[place] + 1] = number
        ids = new_ids[painted.ids]
        return self._told_apart(written, numbers, ids, [seen.get(place) for place in kept], painted.ids)

    def _with_sound_box(self, annotation: Annotation) -> Annotation:
        fault = shapes.fault(Annotation(0, annotation.box_xyxy), None)
        if fault is None:
            return annotation
        self._losses.dropped(*fault)
        return dataclasses.replace(annotation, box_xyxy=None)

    def _told_apart(
        self,
        written: list[Annotation],
        numbers: list[int | None],
        ids: np.ndarray,
        drawn: list[int | None],
        painted: np.ndarray,
    ) -> tuple[list[Annotation], list[int | None], np.ndarray]:
        """Leaves out what the numbering has no place for: groups after the first of a label, objects after the 1000th."""
        found, rles = encode_id_map(ids)
        regions = {
            n: (Mask(rle, rles.image_hw), area)
            for n, rle, area in zip(found.tolist(), rles.strings(), rles.areas(), strict=True)
        }
        kept: list[Annotation] = []
        kept_numbers: list[int | None] = []
        for annotation, number, place in zip(written, numbers, drawn, strict=True):
            if place is not None and number is None:
                self._losses.dropped("mask", f"more than {PER_LABEL} objects of one label")
                if annotation.box_xyxy is None:
                    continue
            if number is not None and numbers.count(number) > 1:
                iou = float((painted == (place or 0) + 1).sum() / regions[number][1])
                self._losses.approximated("mask", _MERGED, iou)
                if number in kept_numbers:
                    self._drop_rest(annotation)
                    continue
            mask = None if number is None else regions[number][0]
            kept.append(dataclasses.replace(annotation, shape=mask))
            kept_numbers.append(number)
        self._tell_of_several(kept, kept_numbers)
        return kept, kept_numbers, ids

    def _tell_of_several(self, annotations: list[Annotation], numbers: list[int | None]) -> None:
        for annotation, number in zip(annotations, numbers, strict=True):
            if number is not None and number >= PER_LABEL and not self._table.has_instances[annotation.category]:
                reason = "Cityscapes does not tell its objects apart: they are numbered, which its tools pass over"
                self._tell_of_label(annotation.category, reason)

    def _drop_rest(self, annotation: Annotation) -> None:
        """What is lost with a group that became part of another."""
        for kind, given in (
            ("box", annotation.box_xyxy is not None),
            ("crowd flag", annotation.crowd),
            ("score", annotation.score is not None),
            ("group", annotation.group is not None),
        ):
            if given:
                self._losses.dropped(kind, _MERGED)
        if annotation.attributes:
            self._losses.dropped("attribute", _MERGED, len(annotation.attributes))
        if any(name != "cityscapes" for name in annotation.extras):
            self._losses.dropped("extra", _MERGED)

    # ---- files

    def _place(self, image: AnnotatedImage) -> tuple[str, str, str]:
        """The split's folder, the city and the base of an image's files."""
        folder, _, last = image.name.rpartition("/")
        split = (image.split or _NO_SPLIT).replace("/", "_")
        split = split if data_paths.is_writable(split) else _NO_SPLIT
        city, base = folder.replace("/", "_") or _NO_CITY, stem(last).removesuffix(IMAGE_ENDING) or "image"
        city = city if data_paths.is_writable(city) else _NO_CITY
        base = base.encode()[:180].decode("utf-8", "ignore")
        names = itertools.chain([base], (f"{base}_{n}" for n in itertools.count(2)))
        base = next(name for name in names if f"{split}/{city}/{name}" not in self._used)
        self._used.add(f"{split}/{city}/{base}")
        return split, city, base

    def _polygons(
        self, image: AnnotatedImage, annotations: list[Annotation], numbers: list[int | None], ids: np.ndarray
    ) -> dict[str, Any]:
        """The objects: those that came, while they are of the same numbers, else rings around the masks."""
        came = image.extras.get("cityscapes", {})
        polygons = came.get("polygons")
        if isinstance(polygons, dict) and isinstance(polygons.get("objects"), list):
            if came.get("numbers") == names_of(np.unique(ids), self._table):
                return polygons
            self._losses.dropped("extra", "the polygons that came are of other objects: they are drawn anew")
        hw = (ids.shape[0], ids.shape[1])
        masked = [annotation for annotation in annotations if annotation.shape is not None]
        return {"objects": [cityscapes_polygons.object_of(annotation, self._table, hw) for annotation in masked]}

    def _note(
        self,
        image: AnnotatedImage,
        data: bytes | None,
        place: tuple[str, str, str],
        annotations: list[Annotation],
        numbers: list[int | None],
    ) -> dict[str, Any]:
        """What files and maps do not say; {} where there is nothing."""
        split, city, base = place
        note: dict[str, Any] = {}
        if image.name != f"{city}/{base}{IMAGE_ENDING}.{_suffix(data)}":
            note["image"] = image.name
        if image.uri and data is None:
            note["uri"] = noted_uri(image.uri)
        if image.split != split:
            note["split"] = image.split
        note |= rest_of(image.attributes, image.extras, self._losses, "cityscapes")
        entries = [self._entry(one, number) for one, number in zip(annotations, numbers, strict=True)]
        order = [number for number in numbers if number is not None]
        if any(entry.keys() != {"id"} for entry in entries) or order != sorted(order):
            note["instances"] = entries
        return note

    def _entry(self, annotation: Annotation, number: int | None) -> dict[str, Any]:
        for kind, given in (
            ("box", annotation.box_xyxy is not None),
            ("crowd flag", annotation.crowd),
            ("score", annotation.score is not None),
            ("group", annotation.group is not None),
        ):
            if given:
                self._losses.kept(kind)
        entry = entry_of(annotation, self._losses, "cityscapes")
        if number is None:
            return {"label": self._table.categories[annotation.category].name} | entry
        if self._table.is_crowd(number, annotation.category):
            entry.pop("crowd", None)
        return {"id": number} | entry


def _suffix(data: bytes | None) -> str:
    """The suffix of an image's file, png where there is none."""
    found = image_files.header_of(data)
    return "png" if found is None else {"jpeg": "jpg"}.get(found.format, found.format)
