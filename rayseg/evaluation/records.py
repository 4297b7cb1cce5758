"""What matching leaves of a detection and of a truth: some bytes each, from which every number is computed.

Shapes: D detections, G truths, A size ranges, T IoU thresholds, I images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from rayseg.evaluation.numbers import Measure


@dataclass(frozen=True, slots=True)
class Found:
    """What each detection found by one measure of overlap.

    matched, ignored  (D, A) uint16, a bit per IoU threshold
    truths            (D,) int64, the truth matched at IoU .50 whatever the size, -1 for none
    ious              (D,) float64, the overlap with it, NaN for none
    hidden            (G, A) bool, truths that do not count
    """

    matched: np.ndarray
    ignored: np.ndarray
    truths: np.ndarray
    ious: np.ndarray
    hidden: np.ndarray

    @property
    def ious_of_hits(self) -> np.ndarray:
        """`ious`, NaN also for what lies on a crowd: a crowd's overlap is a share of the detection, and no hit."""
        return np.where((self.ignored[:, 0] & 1) == 0, self.ious, np.nan)


@dataclass(frozen=True, slots=True)
class Detections:
    """D detections, by image, class and falling score.

    images, classes, places  (D,) int32: image by rank, class, place within image and class from 0
    scores                   (D,) float64
    kinds, targets           (D,) uint8 and int64: kind of error (`matching`) and the truth concerned, -1 for none
    any_class                (D,) int64, the truth found whatever the class: -1 for none, -2 for a crowd
    """

    images: np.ndarray
    classes: np.ndarray
    places: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    any_class: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Truths:
    """G truths: `images`, `classes` (G,) int32, `areas` (G,) float64 pixels, `crowd` (G,) bool."""

    images: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Records:
    """All of it. `primary` is the measure by which errors and confusion are told: masks where there are any."""

    detections: Detections
    truths: Truths
    found: dict[Measure, Found]
    primary: Measure

    @property
    def size_bytes(self) -> int:
        parts: list[Any] = [self.detections, self.truths, *self.found.values()]
        return sum(getattr(part, one.name).nbytes for part in parts for one in fields(part))


Part = TypeVar("Part", Detections, Truths, Found)


def joined(pieces: Sequence[Records]) -> Records:
    """The records of shards, one after the other. References to truths become those of the whole."""
    shifts = np.cumsum([0, *(len(piece.truths) for piece in pieces)])
    shifted = [_shifted(piece, int(shift)) for piece, shift in zip(pieces, shifts[:-1], strict=True)]
    return Records(
        _concatenated([piece.detections for piece in shifted]),
        _concatenated([piece.truths for piece in shifted]),
        {name: _concatenated([piece.found[name] for piece in shifted]) for name in pieces[0].found},
        pieces[0].primary,
    )


def _concatenated(parts: Sequence[Part]) -> Part:
    kind = type(parts[0])
    return kind(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(kind)})


def _shifted(piece: Records, shift: int) -> Records:
    detections, truths = piece.detections, piece.truths
    moved = {name: _moved(getattr(detections, name), shift) for name in ("targets", "any_class")}
    plain = {one.name: getattr(detections, one.name) for one in fields(Detections)}
    found = {
        name: Found(one.matched, one.ignored, _moved(one.truths, shift), one.ious, one.hidden)
        for name, one in piece.found.items()
    }
    return Records(Detections(**{**plain, **moved}), truths, found, piece.primary)


def _moved(references: np.ndarray, shift: int) -> np.ndarray:
    return np.where(references >= 0, references + shift, references).astype(np.int64)
