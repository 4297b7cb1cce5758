"""A COCO file of any size, open for reading image by image: where its items lie, its annotations grouped by image.

Of a million annotations some 40 bytes each are held: their places in the file, in the order of the images. A file that does
not lie on a local disk is copied to a temporary one first, because items are fetched from wherever they lie.

Shapes: N annotations, I images.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from rayseg import storage
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.json_items import TOP, Items, Scan, decoded, line_of, scan
from rayseg.formats.shapes import COORDINATE_MAX
from rayseg.kernels.json_scan import read_rings

_SEGMENTATION = np.frombuffer(b"segmentation", np.uint8)
_WANTED = {"images": ("id",), "annotations": ("image_id", "category_id"), TOP: ("image_id", "category_id")}


@dataclass(slots=True)
class RawAnnotation:
    """One annotation as the file has it.

    rings  its segmentation, (K, 2) each, K >= 3, where that is polygons of finite numbers; else None, and what
           `values["segmentation"]` holds counts
    """

    number: int
    values: Any
    rings: tuple[np.ndarray, ...] | None


class CocoFile:
    """One file that was scanned: an instances file, or a list of results."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._descriptor = _descriptor(uri)
        weakref.finalize(self, os.close, self._descriptor)
        with self._reader() as file:
            self._scan: Scan = scan(file, uri, _WANTED)

    @property
    def is_results(self) -> bool:
        """Whether the file is a list of results."""
        return TOP in self._scan.arrays

    @property
    def array(self) -> str:
        """How messages call the array of annotations."""
        return "results" if self.is_results else "annotations"

    @property
    def images(self) -> Items | None:
        """Places of the images and (I, 1) their ids; None where the file has none."""
        return self._scan.arrays.get("images")

    @property
    def annotations(self) -> Items | None:
        """Places of the annotations and (N, 2) their image and category ids; None where the file has none."""
        return self._scan.arrays.get(TOP if self.is_results else "annotations")

    @property
    def others(self) -> dict[str, Any]:
        """The file's other keys."""
        return self._scan.others

    def image(self, row: int) -> Any:
        """What the file says of image `row`."""
        assert self.images is not None
        start, end = int(self.images.starts[row]), int(self.images.ends[row])
        return self._decoded(self._read(start, end), start, f"images[{row}]")

    def read_annotations(self, rows: list[int]) -> list[RawAnnotation]:
        """The annotations `rows`. Raises `BadAnnotation` with the line for one that is not JSON."""
        items = self.annotations
        assert items is not None
        starts = items.starts[rows].tolist()
        texts = [self._read(start, end) for start, end in zip(starts, items.ends[rows].tolist(), strict=True)]
        buffer, offsets = b"".join(texts), np.array([0, *itertools.accumulate(map(len, texts))])
        _, ring_counts, ring_offsets, numbers, inexact, rest = read_rings(
            np.frombuffer(buffer, np.uint8), offsets, _SEGMENTATION
        )
        for index, begin, end in inexact.tolist():
            numbers[index] = float(buffer[begin:end])
        values = _all_decoded(rest.tobytes(), len(rows))
        if values is None or (len(numbers) and not np.abs(numbers).max() <= COORDINATE_MAX):
            return [  # one by one, which tells what is wrong with which
                RawAnnotation(row, self._decoded(text, start, f"{self.array}[{row}]"), None)
                for text, start, row in zip(texts, starts, rows, strict=True)
            ]
        ends = ring_offsets.tolist()
        rings = (numbers[begin:end].reshape(-1, 2) for begin, end in itertools.pairwise(ends))
        return [
            RawAnnotation(row, value, tuple(itertools.islice(rings, count)) if count else None)
            for row, value, count in zip(rows, values, ring_counts.tolist(), strict=True)
        ]

    def _read(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)

    def _reader(self) -> BinaryIO:
        """A reader of its own, from the beginning."""
        file = os.fdopen(os.dup(self._descriptor), "rb")
        file.seek(0)
        return file

    def _decoded(self, raw: bytes, start: int, item: str) -> Any:
        try:
            return decoded(raw)
        except ValueError as error:
            position = getattr(error, "pos", None) or getattr(error, "start", None) or 0
            with self._reader() as file:
                line = line_of(file, start + position)
            raise BadAnnotation(self.uri, f"line {line}: {item}: not the expected JSON: {error}") from None


def _all_decoded(text: bytes, count: int) -> list[Any] | None:
    """The `count` values of an array; None where it is not JSON."""
    try:
        values = decoded(text)
    except ValueError:
        return None
    return values if len(values) == count else None


def _descriptor(uri: str) -> int:
    """A descriptor of the file at `uri`, or of a nameless copy of it where it does not lie on a local disk."""
    with storage.open(uri) as file:
        try:
            return os.dup(file.fileno())
        except (AttributeError, io.UnsupportedOperation):
            with tempfile.TemporaryFile(prefix="rayseg-coco-") as copy:
                shutil.copyfileobj(file, copy, 8 << 20)
                copy.flush()
                return os.dup(copy.fileno())


class Grouping:
    """Annotations by image: of image `row` those of `rows(row)`, in the order of the file."""

    def __init__(self, image_rows: np.ndarray, image_count: int) -> None:
        """`image_rows` (N,) int64: the row of each annotation's image, -1 where it has none."""
        self.orphans = np.flatnonzero(image_rows < 0)
        order = np.argsort(image_rows, kind="stable")[len(self.orphans) :]
        self._order = order.astype(np.int32 if len(order) < 1 << 31 else np.int64)
        counts = np.bincount(image_rows[image_rows >= 0], minlength=image_count)
        self._bounds = np.concatenate([[0], np.cumsum(counts)])

    def rows(self, row: int) -> list[int]:
        """The annotations of image `row`."""
        return self._order[self._bounds[row] : self._bounds[row + 1]].tolist()


def ids_of(items: Items, column: int) -> list[Any] | np.ndarray:
    """The ids in one column: (N,) int64 where all are integers, else a list of what they are."""
    ids = items.values[:, column]
    if not items.odd:
        return ids
    mixed: list[Any] = ids.tolist()
    for row, values in items.odd.items():
        mixed[row] = values[column]
    return mixed


def rows_of(ids: list[Any] | np.ndarray, wanted: list[Any] | np.ndarray) -> np.ndarray:
    """For each of `wanted` (N,) the first place in `ids` (I,) that holds it, -1 where none does: (N,) int64."""
    if isinstance(ids, np.ndarray) and isinstance(wanted, np.ndarray):
        if not len(ids):
            return np.full(len(wanted), -1)
        order = np.argsort(ids, kind="stable")
        places = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        return np.where(ids[order[places]] == wanted, order[places], -1)
    known: dict[Any, int] = {}
    for row, one in enumerate(ids):
        if is_id(one):
            known.setdefault(one, row)
    return np.array([known.get(one, -1) if is_id(one) else -1 for one in wanted], np.int64)


def is_id(value: Any) -> bool:
    """Whether `value` can be an id: a number or a string."""
    return isinstance(value, int | str | float | np.integer) and not isinstance(value, bool)
