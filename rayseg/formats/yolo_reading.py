"""Reading YOLO's label files, an image at a time: `rayseg.formats.yolo` says by which rules."""

from __future__ import annotations

from collections.abc import Iterator

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Polygons
from rayseg.errors import StorageError
from rayseg.formats import data_paths, orientation, yolo_rows
from rayseg.formats.faults import Faults
from rayseg.formats.yolo_places import Place, Places, label_of, places_of
from rayseg.formats.yolo_yaml import Config

_LABEL_BYTES = 64 << 20
_SAMPLED_FILES = 8


class YoloImages:
    """The images of a data set, split by split."""

    def __init__(self, config: Config, images: str | None, faults: Faults) -> None:
        self._config, self._faults = config, faults
        self._images_root = images or config.root
        self._class_of = {class_id: i for i, class_id in enumerate(config.names)}
        self._keypoint_values = _keypoint_values(config)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        places = places_of(self._config, self._images_root, self._faults)
        scored = self._are_scored(places)
        for place, name in zip(places.images, places.names, strict=True):
            image = self._image(place, name, places, scored)
            if image is not None:
                yield image

    def _are_scored(self, places: Places) -> bool:
        """Whether rows end in a confidence: by the greater part of those in the first files that have any."""
        with_one = without = files = 0
        for image in places.images:
            if files == _SAMPLED_FILES:
                break
            rows = [line for line in self._lines(image, places, quiet=True) if line.strip()]
            ends = sum(yolo_rows.has_confidence(row, self._keypoint_values) for row in rows)
            with_one, without, files = with_one + ends, without + len(rows) - ends, files + bool(rows)
        return with_one > without

    def _lines(self, place: Place, places: Places, *, quiet: bool = False) -> list[str]:
        path = label_of(place.path)
        if path not in places.labels:
            return []
        uri = data_paths.at(self._config.root, path)
        try:
            return storage.read(uri, max_bytes=_LABEL_BYTES).decode("utf-8-sig").split("\n")
        except (UnicodeDecodeError, StorageError) as error:
            if isinstance(error, StorageError) and storage.is_transient(error):
                raise
            if not quiet:
                self._faults.add(uri, "file", "file", f"expected rows of numbers, found: {error}")
            return []

    def _image(self, place: Place, name: str, places: Places, scored: bool) -> AnnotatedImage | None:
        uri = data_paths.at(self._images_root, place.file)
        found = orientation.raster(uri)
        image_hw = found.image_hw if found else places.sizes.get(place.path)
        if image_hw is None:
            self._faults.add(uri, "image", "file", "expected an image, whose size the coordinates need, found none")
            return None
        label_uri = data_paths.at(self._config.root, label_of(place.path))
        annotations = []
        for number, line in enumerate(self._lines(place, places), 1):
            if not line.strip():
                continue
            try:
                annotations.append(self._annotation(line, image_hw, scored))
            except ValueError as error:
                self._faults.add(label_uri, "row", f"line {number}", str(error))
        here = uri if found or place.path not in places.sizes else None
        return AnnotatedImage(name, here, image_hw, tuple(annotations), place.split)

    def _annotation(self, line: str, image_hw: tuple[int, int], scored: bool) -> Annotation:
        row = yolo_rows.parse(line, image_hw, scored=scored, keypoint_values=self._keypoint_values)
        category = self._class_of.get(row.class_id)
        if category is None:
            raise ValueError(f"expected a class of names, found {row.class_id}")
        shape = None if row.ring is None else Polygons(((row.ring,),))
        extras = {"yolo": {"keypoints": row.keypoints}} if row.keypoints else {}
        return Annotation(category, row.box, shape, score=row.score, extras=extras)


def _keypoint_values(config: Config) -> int:
    """How many values follow a box's in data sets for pose; 0 in others."""
    shape = config.other.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and 0 < side < 1 << 16 for side in shape):
        return shape[0] * shape[1]
    return 0
