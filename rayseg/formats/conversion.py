"""From one format to another, with an account of everything that the target could not hold.

`convert` reads, maps classes, writes beside the target and moves it in place. What is skipped as faulty and what the class
mapping was asked to drop stand in the account as well, so that counts add up.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rayseg.annotations import AnnotatedImage, Dataset
from rayseg.errors import RaysegError, UsageError
from rayseg.formats import registry
from rayseg.formats.class_mapping import ClassMapping, MappedImages, with_classes
from rayseg.formats.faults import Faults, OnError
from rayseg.formats.losses import Losses
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

_AS_ASKED = "as the class mapping says"

Progress = Callable[[int, int | None], None]  # images done, and of how many where that is known


@dataclass(slots=True)
class Conversion:
    """The account of one conversion.

    requested  what the class mapping was asked to drop: "class" and "annotation"
    seconds    from the first byte read to the last in place
    """

    source: str
    target: str
    source_format: str
    target_format: str
    images: int = 0
    annotations: int = 0
    losses: Losses = field(default_factory=Losses)
    faults: Faults = field(default_factory=Faults)
    requested: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def lossless(self) -> bool:
        """Nothing was approximated, dropped for want of a place, or skipped as faulty."""
        return self.losses.lossless and not self.faults.counts

    def rows(self) -> list[dict[str, Any]]:
        """`Losses.rows`, then one per kind that was dropped as asked, then one per kind of skipped items."""
        rows = self.losses.rows()
        for kind, count in self.requested.items():
            rows.append(_row(kind, "dropped", count, _AS_ASKED))
        for kind, count in self.faults.counts.items():
            rows.append(_row(kind, "skipped", count, "is faulty in the source"))
        return rows

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "source": self.source,
            "target": self.target,
            "from": self.source_format,
            "to": self.target_format,
            "lossless": self.lossless,
            "images": self.images,
            "annotations": self.annotations,
            "seconds": round(self.seconds, 3),
            "rows": self.rows(),
            "faults": self.faults.messages,
        }


class LossyConversion(RaysegError):
    """A conversion that was to be strict would lose something; nothing was written. `conversion` says what."""

    def __init__(self, conversion: Conversion) -> None:
        lost = [row for row in conversion.rows() if row["outcome"] != "kept" and row["reason"] != _AS_ASKED]
        lines = [f"  {row['count']} x {row['kind']} {row['outcome']}: {row['reason']}" for row in lost]
        what = f"{conversion.target}: nothing is written, as {conversion.target_format} cannot hold all"
        super().__init__("\n".join([what, *lines]))
        self.conversion = conversion


def convert(
    source: str,
    target: str,
    to: str,
    *,
    source_format: str | None = None,
    images: str | None = None,
    classes: ClassMapping | None = None,
    strict: bool = False,
    on_error: OnError = "raise",
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    uploading: Progress = lambda done, total: None,
) -> Conversion:
    """Write the data set at `source` below `target` in the format `to`: all of it or nothing.

    `images` is the folder of the source's images where they are not at the usual place. `strict` raises `LossyConversion`
    before anything appears where not all would come through. `progress` is told of images, `uploading` of the files that
    are in object storage, once all are written. Raises also `UsageError` for unknown formats and classes, a
    target that holds something or lies in the source, `BadAnnotation` for a faulty source, `StorageError`.
    """
    begin = time.monotonic()
    registry.format_of(to)
    _check_apart(source, target)
    source_format = source_format or registry.detect(source)
    dataset = registry.read(source, source_format, images, on_error)
    conversion = Conversion(source, target, source_format, to)
    if isinstance(dataset.faults, Faults):
        conversion.faults = dataset.faults
    if classes is not None:
        dataset, conversion.requested = with_classes(dataset, classes)

    def accept(losses: Losses) -> None:
        conversion.losses = losses
        if strict and not conversion.lossless:
            raise LossyConversion(conversion)

    counted = _counted(dataset, conversion, progress)
    conversion.losses = registry.write(counted, target, to, overwrite=overwrite, accept=accept, uploading=uploading)
    conversion.seconds = time.monotonic() - begin
    return conversion


def _row(kind: str, outcome: str, count: int, reason: str) -> dict[str, Any]:
    return {"kind": kind, "outcome": outcome, "count": count, "reason": reason, "mean_iou": None, "min_iou": None}


def _counted(dataset: Dataset, conversion: Conversion, progress: Progress) -> Dataset:
    """`dataset`, with its images and annotations counted as they are gone through, the last time if more than once."""

    def begin() -> None:
        conversion.images = conversion.annotations = 0

    def count(image: AnnotatedImage) -> AnnotatedImage:
        conversion.images += 1
        conversion.annotations += len(image.annotations)
        progress(conversion.images, total)
        return image

    try:
        total: int | None = len(dataset.images)  # type: ignore[arg-type]
    except TypeError:
        total = None
    return dataclasses.replace(dataset, images=MappedImages(dataset.images, count, begin))


def _check_apart(source: str, target: str) -> None:
    """Raise `UsageError` where `target` lies in `source`: it would be read while it is written."""
    inner, outer = _absolute(target), _absolute(source)
    if inner.startswith(outer + "/"):
        raise UsageError(f"{target}: expected a target outside of the source, found one inside of {source}")


def _absolute(uri: str) -> str:
    local = scheme_of(uri) in ("", "file")
    return os.path.realpath(path_of(uri)) if local else uri.rstrip("/")
