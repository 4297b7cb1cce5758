"""Writing YOLO's label files, an image at a time: `rayseg.formats.yolo` says by which rules."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Dataset, Points, Polygons, Polyline
from rayseg.formats import data_paths, image_files, shapes, yolo_rows, yolo_yaml
from rayseg.formats.class_names import distinct
from rayseg.formats.listing import stem, suffix
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.yolo_places import SIZES_FILE, SUFFIXES, label_of

_HELD = Held("YOLO", "yolo")
_SUFFIX_OF = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "avif": "avif",
    "bmp": "bmp",
    "tiff": "tif",
    "jpeg2000": "jp2",
}
_NO_SPLIT = "unsplit"
_BOX_TOLERANCE = 1e-6  # pixels


class Writer:
    """Puts one image after the other, and remembers what data.yaml has to say."""

    def __init__(self, dataset: Dataset, sink: Sink, losses: Losses) -> None:
        self._sink, self._losses = sink, losses
        own = dataset.info.get("yolo")
        ids = [category.source_id for category in dataset.categories]
        came_from_yolo = own is not None and None not in ids and len(set(ids)) == len(ids)
        self._ids = [i for i in ids if i is not None] if came_from_yolo else list(range(len(ids)))
        categories = distinct(dataset.categories, losses, "data.yaml")
        self._names = {class_id: category.name for class_id, category in zip(self._ids, categories, strict=True)}
        self._other = dict(own or {})
        self._outlines_only = own is None and _has_masks(dataset)
        self._scored = _first_has_score(dataset)
        self._places: dict[str | None, str] = {}
        self._used: set[str] = set()
        self._sizes: list[str] = []
        _HELD.dataset(dataset, losses, self._ids)

    def put(self, image: AnnotatedImage) -> None:
        """One image and its labels."""
        data, image_hw = image_files.encoded(image), image_files.upright_hw(image)
        path = None if image_hw is None else self._path(image, data)
        if path is None or image_hw is None:
            reason = "its name cannot be a file's" if image_hw else "its size, which coordinates need, is not known"
            self._losses.dropped("image", f"{reason}; so are its annotations")
            for annotation in image.annotations:
                self._losses.dropped("mask" if shapes.has_mask(annotation) else "box", "its image is not written")
            return
        self._losses.kept("image")
        _HELD.image(image, self._losses)
        if data is None:
            self._losses.dropped(
                "image file", f"it cannot be read; YOLO's loaders need it (its size is in {SIZES_FILE})"
            )
            self._sizes.append(json.dumps([path, *image_hw]))
        else:
            self._losses.kept("image file")
            self._sink.put(path, data)
        rows = [row for annotation in image.annotations for row in self._rows(annotation, image_hw)]
        self._sink.put(label_of(path), "".join(f"{row}\n" for row in rows).encode())

    def finish(self) -> None:
        """data.yaml, and the sizes of images that could not be copied."""
        if self._sizes:
            self._sink.put(SIZES_FILE, "".join(f"{line}\n" for line in self._sizes).encode())
        self._sink.put("data.yaml", yolo_yaml.text_of(self._names, self._places, self._other), last=True)

    def _path(self, image: AnnotatedImage, data: bytes | None) -> str | None:
        """Where the image goes, its label file being free; None where it can go nowhere."""
        name = image.name
        if not data_paths.is_writable(name):
            return None
        folder = self._folder(image.split)
        if suffix(name) not in SUFFIXES:
            header = image_files.header_of(data)
            name += f".{_SUFFIX_OF.get(header.format if header else 'jpeg', 'jpg')}"
        names = (
            name,
            f"{stem(name)}_{suffix(name)}.{suffix(name)}",
            *(f"{stem(name)}_{n}.{suffix(name)}" for n in range(99)),
        )
        free = (f"{folder}/{one}" for one in names if label_of(f"{folder}/{one}") not in self._used)
        path = next(free, None)
        if path is None or not data_paths.is_writable(path):
            return None
        if path != f"{folder}/{image.name}":
            reason = "renamed: YOLO knows images by their suffix, and labels by the name before it"
            self._losses.approximated("image name", reason)
        self._used.add(label_of(path))
        return path

    def _folder(self, split: str | None) -> str:
        """The folder of a split's images."""
        if split not in self._places:
            last = (split or _NO_SPLIT).replace("/", "_")
            last = last if data_paths.is_writable(last) and last not in ("images", "labels") else "split"
            while f"images/{last}" in self._places.values():
                last += "_"
            self._places[split] = f"images/{last}"
        return self._places[split]

    def _rows(self, annotation: Annotation, image_hw: tuple[int, int]) -> Iterator[str]:
        """The one row of an annotation, or none."""
        numbers = self._numbers(annotation, image_hw)
        if numbers is None:
            return
        if self._scored:
            numbers = [*numbers, self._score(annotation)]
            annotation = dataclasses.replace(annotation, score=None)
        _HELD.annotation(annotation, self._losses)
        yield " ".join([str(self._ids[annotation.category]), *map(repr, numbers)])

    def _score(self, annotation: Annotation) -> float:
        if annotation.score is None:
            self._losses.approximated("score", "all rows have a confidence or none: one that had none is written as 1")
            return 1.0
        self._losses.kept("score")
        return float(annotation.score)

    def _numbers(self, annotation: Annotation, image_hw: tuple[int, int]) -> list[float] | None:
        shape, fault = annotation.shape, shapes.fault(annotation, image_hw)
        if fault is not None:
            self._losses.dropped("mask" if shapes.has_mask(annotation) else fault[0], fault[1])
            return None
        if isinstance(shape, Polyline | Points):
            kind = "polyline" if isinstance(shape, Polyline) else "points"
            self._losses.dropped(kind, "YOLO has no lines and points")
        elif shape is not None:
            numbers = self._outline(annotation, image_hw)
            if numbers is not None:
                return numbers
            self._losses.dropped("mask", "nothing of it lies in the image")
        if annotation.box_xyxy is None:
            return None
        return self._box(annotation, image_hw)

    def _outline(self, annotation: Annotation, image_hw: tuple[int, int]) -> list[float] | None:
        found = yolo_rows.outline(annotation, image_hw)
        if found is None:
            return None
        if found.reason:
            self._losses.approximated("mask", found.reason, found.iou)
        else:
            self._losses.kept("mask")
        if isinstance(annotation.shape, Polygons):
            for _ in range(sum(len(part) - 1 for part in annotation.shape.parts)):
                self._losses.approximated("hole", "joined to the outline by a bridge")
            for _ in range(len(annotation.shape.parts) - 1):
                self._losses.approximated("part", "joined to the first by a bridge")
        self._tell_of_box(annotation, found.ring)
        return yolo_rows.ring_row(found.ring, image_hw)

    def _tell_of_box(self, annotation: Annotation, ring: np.ndarray) -> None:
        """A box beside an outline is lost, unless it is that of the ring (K, 2) that is written."""
        if annotation.box_xyxy is None:
            return
        tight = np.concatenate([ring.min(axis=0), ring.max(axis=0)])
        if np.abs(tight - annotation.box_xyxy).max() > _BOX_TOLERANCE:
            self._losses.dropped("box", "a row of an outline has no box of its own")
        else:
            self._losses.kept("box")

    def _box(self, annotation: Annotation, image_hw: tuple[int, int]) -> list[float] | None:
        box = annotation.box_xyxy
        assert box is not None
        if self._outlines_only:
            found = yolo_rows.outline(dataclasses.replace(annotation, shape=None), image_hw)
            if found is None:
                self._losses.dropped("box", "nothing of it lies in the image")
                return None
            reason = "written as its outline: ultralytics takes boxes and outlines in one data set for boxes only"
            self._losses.approximated("box", reason)
            return yolo_rows.ring_row(found.ring, image_hw)
        numbers, change = yolo_rows.box_row(box, image_hw)
        if change:
            self._losses.approximated("box", change)
        else:
            self._losses.kept("box")
        keypoints = annotation.extras.get("yolo", {}).get("keypoints", [])
        return [*numbers, *keypoints] if _are_numbers(keypoints) else numbers


def _has_masks(dataset: Dataset) -> bool:
    return any(shapes.has_mask(annotation) for image in dataset.images for annotation in image.annotations)


def _first_has_score(dataset: Dataset) -> bool:
    first = next((annotation for image in dataset.images for annotation in image.annotations), None)
    return first is not None and first.score is not None


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)
