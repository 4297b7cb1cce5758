"""COCO results: `[{"image_id": 1, "category_id": 3, "score": 0.9, "segmentation": ..., "bbox": ...}, ...]`.

Results name classes by id alone; the ids are those of the ground truth. One that also says `category` or `category_name`
is matched by that. A file of COCO's instances form whose annotations have scores has classes of its own, and is read as
a data set.

A file is scanned once for where its results lie; those of a shard are decoded when its turn comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayseg.evaluation.collecting import no_collecting
from rayseg.evaluation.columns import Columns
from rayseg.evaluation.detection_rows import DetectionRows
from rayseg.evaluation.names import ClassNames
from rayseg.evaluation.plain_results import plain_columns
from rayseg.evaluation.predictions import Counts, Predictions, Result, Spooled
from rayseg.evaluation.spool import SHARD_IMAGES
from rayseg.evaluation.truth import Truth
from rayseg.formats.coco_index import CocoFile, Grouping, ids_of
from rayseg.formats.faults import Faults
from rayseg.formats.json_items import decoded

_GATHERED_BYTES = 32 << 20


def open_results(uri: str, truth: Truth, faults: Faults, notes: Faults) -> Predictions:
    """The results in the file at `uri`, or the data set, where it is one.

    Raises `BadAnnotation` for a file that is not JSON or holds neither.
    """
    file = _File(uri)
    if file.is_results:
        return _ResultsFile(file, truth, faults, notes)
    from rayseg.evaluation.scored_dataset import read_dataset
    from rayseg.formats.registry import read

    return read_dataset(read(uri, "coco", on_error=faults.on_error), truth, faults, notes)


def read_results(results: Sequence[Result], truth: Truth, faults: Faults, notes: Faults) -> Predictions:
    """Results in memory."""
    predictions = Spooled("predictions")
    images = _Images(truth, predictions.counts, faults, notes, "predictions")
    rows = DetectionRows("predictions", truth, faults)
    for item, result in enumerate(results):
        if not isinstance(result, Mapping):
            faults.add(
                "predictions", "prediction", f"results[{item}]", f"expected an object, found {str(result)[:100]}"
            )
            continue
        predictions.counts.predictions += 1
        rank = images.find(result.get("image_id"), item)
        if rank >= 0:
            _add(result, rank, item, rows, truth.classes, predictions.counts)
        if rows.rows.size_bytes > _GATHERED_BYTES:
            predictions.spool.add(rows.rows.columns())
            rows = DetectionRows("predictions", truth, faults)
    predictions.spool.add(rows.rows.columns())
    return predictions


class _File(CocoFile):
    """A COCO file whose results are read many at a time."""

    def read_values(self, rows: list[int]) -> list[Any]:
        """The results `rows` as JSON has them; neighbours in the file are read and decoded together.

        Raises `BadAnnotation` with the line for one that is not JSON.
        """
        items = self.annotations
        assert items is not None
        values: list[Any] = []
        for run in np.split(np.array(rows, np.int64), np.flatnonzero(np.diff(rows) != 1) + 1) if rows else ():
            start, end = int(items.starts[run[0]]), int(items.ends[run[-1]])
            values += self._decoded_run(self._read(start, end), run)
        return values

    def _decoded_run(self, text: bytes, rows: np.ndarray) -> list[Any]:
        try:
            values = decoded(b"[%b]" % text)
        except ValueError:
            values = []
        if len(values) == len(rows):
            return values
        assert self.annotations is not None
        places = zip(
            self.annotations.starts[rows].tolist(), self.annotations.ends[rows].tolist(), rows.tolist(), strict=True
        )
        return [self._decoded(self._read(start, end), start, f"results[{row}]") for start, end, row in places]


class _ResultsFile:
    """The results of one file, decoded shard by shard."""

    def __init__(self, file: _File, truth: Truth, faults: Faults, notes: Faults) -> None:
        items = file.annotations
        assert items is not None
        self.source, self.counts = file.uri, Counts(predictions=len(items))
        self._file, self._truth, self._faults = file, truth, faults
        self._read: set[int] = set()
        images = _Images(truth, self.counts, faults, notes, file.uri)
        ids = ids_of(items, 0)
        ranks = [
            images.find(one, item) for item, one in enumerate(ids.tolist() if isinstance(ids, np.ndarray) else ids)
        ]
        self._grouping = Grouping(np.array(ranks, np.int64), len(truth.images))

    def columns(self, shard: int) -> Columns:
        """See `Predictions`."""
        again = shard in self._read
        self._read.add(shard)
        counts, faults = (Counts(), Faults("skip")) if again else (self.counts, self._faults)
        items, ranks = self._items(shard)
        with no_collecting():
            results = self._file.read_values(items)
            columns = plain_columns(results, ranks, self._truth, items)
        if columns is not None:
            counts.taken += len(columns)
            return columns
        rows = DetectionRows(self._file.uri, self._truth, faults)
        for result, rank, item in zip(results, ranks, items, strict=True):
            _add(result, rank, item, rows, self._truth.classes, counts)
        return rows.rows.columns()

    def _items(self, shard: int) -> tuple[list[int], list[int]]:
        """The results of a shard's images by their numbers in the file, and each one's image."""
        items: list[int] = []
        ranks: list[int] = []
        last = min((shard + 1) * SHARD_IMAGES, len(self._truth.images))
        for rank in range(shard * SHARD_IMAGES, last):
            of_image = self._grouping.rows(rank)
            items += of_image
            ranks += [rank] * len(of_image)
        return items, ranks


class _Images:
    """Finds a result's image, and counts the results that have none."""

    def __init__(self, truth: Truth, counts: Counts, faults: Faults, notes: Faults, source: str) -> None:
        self._truth, self._counts, self._faults, self._notes, self._source = truth, counts, faults, notes, source

    def find(self, image_id: Any, item: int) -> int:
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            message = f"expected a number or a string as image_id, found {image_id!r}"
            self._faults.add(self._source, "prediction", f"results[{item}]", message)
            return -1
        rank = self._truth.images.of_id(image_id)
        if rank < 0:
            self._counts.other_images += 1
            self._notes.add(
                self._source, "image", f"results[{item}]", f"image_id {image_id!r} is no image's or more than one's"
            )
        return rank


def _add(result: Result, rank: int, item: int, rows: DetectionRows, classes: ClassNames, counts: Counts) -> None:
    class_id = _class_of(result, classes, counts)
    if class_id >= 0:
        counts.taken += 1
        box, segmentation = result.get("bbox"), result.get("segmentation")
        empty = box is None or (hasattr(box, "__len__") and len(box) == 0)
        rows.add(rank, class_id, result.get("score"), None if empty else box, segmentation or None, item)


def _class_of(result: Result, classes: ClassNames, counts: Counts) -> int:
    """The class of a result, -1 for none of the ground truth, which is counted."""
    name = result.get("category_name", result.get("category"))
    if isinstance(name, str):
        found = classes.find(name)
    else:
        category_id = result.get("category_id")
        name, found = f"category_id {category_id!r}", -1
        if isinstance(category_id, int) and not isinstance(category_id, bool):
            found = classes.of_id(category_id)
    if found < 0:
        counts.miss_class(name)
    return found
