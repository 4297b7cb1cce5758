"""Truths and detections of some hundred images as plain columns: what is read, held, spilled and matched.

Rows of one image lie together. A mask is its compressed RLE counts in one byte column; a row without one has none there.

Shapes: I images, N rows, S bytes of RLE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, slots=True)
class Columns:
    """N rows.

    images      (N,) int64, each row's image by its rank in the ground truth, never falling
    classes     (N,) int32, in the ground truth's classes
    boxes_xywh  (N, 4) float64 pixels, NaN where a row has no box
    lengths     (N,) int64, bytes of each row's RLE, 0 for none
    counts      (S,) uint8, the compressed RLEs one after the other
    areas       (N,) float64 pixels; of truths as annotated, else of the mask or box
    scores      (N,) float64 of detections, 0 for truths
    flags       (N,) uint8: `CROWD`, `UNMEASURED` of truths
    items       (N,) int64, where the row stands in its source
    """

    images: np.ndarray
    classes: np.ndarray
    boxes_xywh: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    flags: np.ndarray
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def offsets(self) -> np.ndarray:
        """Where each row's RLE begins in `counts`, and the last ends: (N + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def starts(self, first: int, count: int) -> np.ndarray:
        """Where the rows of images `first` to `first + count - 1` begin, and the last ends: (count + 1,) int64."""
        return np.searchsorted(self.images, np.arange(first, first + count + 1)).astype(np.int64)

    def take(self, rows: np.ndarray) -> Columns:
        """The `rows` (int64), in that order."""
        lengths, offsets = self.lengths[rows], self.offsets
        ends = np.cumsum(lengths)
        source = np.repeat(offsets[rows] - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
        plain = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name != "counts"}
        return Columns(counts=self.counts[source], **plain)

    def strings(self, rows: Iterable[int]) -> list[bytes]:
        """The RLEs of some rows."""
        data, offsets = self.counts.tobytes(), self.offsets
        return [data[offsets[row] : offsets[row + 1]] for row in rows]

    @property
    def size_bytes(self) -> int:
        return sum(getattr(self, one.name).nbytes for one in fields(self))


CROWD = np.uint8(1)
UNMEASURED = np.uint8(2)  # a truth without a mask, which the mask metrics pass over

_TYPES = {
    "images": np.int64,
    "classes": np.int32,
    "boxes_xywh": np.float64,
    "lengths": np.int64,
    "counts": np.uint8,
    "areas": np.float64,
    "scores": np.float64,
    "flags": np.uint8,
    "items": np.int64,
}


def joined(pieces: Sequence[Columns]) -> Columns:
    """The rows of all pieces, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    return Columns(
        **{
            name: np.concatenate([_none(name), *(getattr(piece, name) for piece in pieces)])
            for name in Columns.__dataclass_fields__
        }
    )


def by_image(columns: Columns) -> Columns:
    """The same rows, those of one image together, else in their order."""
    images = columns.images
    if len(images) < 2 or (images[1:] >= images[:-1]).all():
        return columns
    return columns.take(np.argsort(images, kind="stable"))


def _none(name: str) -> np.ndarray:
    return np.empty((0, 4) if name == "boxes_xywh" else 0, _TYPES[name])


class Rows:
    """Rows being gathered one by one."""

    def __init__(self) -> None:
        self._images: list[int] = []
        self._classes: list[int] = []
        self._boxes: list[tuple[float, float, float, float]] = []
        self._rles: list[bytes] = []
        self._areas: list[float] = []
        self._scores: list[float] = []
        self._flags: list[int] = []
        self._items: list[int] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def add(
        self,
        image: int,
        class_id: int,
        box_xywh: tuple[float, float, float, float],
        rle: bytes,
        *,
        area: float,
        score: float = 0.0,
        flags: int = 0,
        item: int = 0,
    ) -> None:
        """One row; `rle` is b"" for none, the box all NaN for none."""
        self._images.append(image)
        self._classes.append(class_id)
        self._boxes.append(box_xywh)
        self._rles.append(rle)
        self._areas.append(area)
        self._scores.append(score)
        self._flags.append(flags)
        self._items.append(item)
        self.size_bytes += len(rle) + 80

    def columns(self) -> Columns:
        """The rows so far."""
        lists = {
            "images": self._images,
            "classes": self._classes,
            "lengths": [len(rle) for rle in self._rles],
            "areas": self._areas,
            "scores": self._scores,
            "flags": self._flags,
            "items": self._items,
        }
        return Columns(
            boxes_xywh=np.array(self._boxes, np.float64).reshape(-1, 4),
            counts=np.frombuffer(b"".join(self._rles), np.uint8).copy(),
            **{name: np.array(values, _TYPES[name]) for name, values in lists.items()},
        )
