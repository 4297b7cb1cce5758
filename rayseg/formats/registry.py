"""The formats by name, and which one a path is of.

A format is a module `rayseg.formats.<name>` with three functions:

    detect(uri: str, names: Sequence[str]) -> bool
        whether `uri` looks like it; `names` are the first names below it, relative, or [its own name] for a file
    read(uri: str, *, images: str | None, faults: Faults) -> Dataset
        lazily where the format allows; `images` is the folder of the pixels where they are not at their usual place
    write(dataset: Dataset, sink: Sink, losses: Losses) -> None
        every file of the data set, telling `losses` of all that is kept, approximated and dropped
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from rayseg.annotations import Dataset
from rayseg.errors import ObjectNotFound, UsageError
from rayseg.formats.faults import Faults, OnError
from rayseg.formats.listing import below
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink, output
from rayseg.formats.upload import Progress, check_finished

FORMATS: tuple[str, ...] = ("coco", "voc", "yolo", "labelme", "cvat", "via", "cityscapes", "masks", "rayseg")
_PROBED_NAMES = 2000


class Format(Protocol):
    """What a format's module brings."""

    def detect(self, uri: str, names: Sequence[str]) -> bool: ...
    def read(self, uri: str, *, images: str | None, faults: Faults) -> Dataset: ...
    def write(self, dataset: Dataset, sink: Sink, losses: Losses) -> None: ...


def format_of(name: str) -> Format:
    """The format `name`; `UsageError` that lists them for an unknown one."""
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: expected one of {', '.join(FORMATS)}")
    return cast(Format, importlib.import_module(f"rayseg.formats.{name}"))


def detect(uri: str) -> str:
    """The name of the format that `uri` is of.

    Raises `UsageError` where none or more than one fits, `Unfinished` where an upload to it was cut off.
    """
    check_finished(uri)
    names = _names_below(uri)
    found = [name for name in FORMATS if format_of(name).detect(uri, names)]
    if len(found) == 1:
        return found[0]
    what = f"looks like {' and '.join(found)}" if found else "looks like no known format"
    raise UsageError(f"{uri}: {what}; say which with --from or --format, one of {', '.join(FORMATS)}")


def read(uri: str, format: str | None = None, images: str | None = None, on_error: OnError = "raise") -> Dataset:
    """The data set at `uri`. `images` is the folder of the pixels where they are not at the format's usual place.

    Bad items raise `BadAnnotation` when they are come to, or with `on_error="skip"` are counted in `Dataset.faults`.
    Raises `Unfinished` where an upload to `uri` was cut off.
    """
    check_finished(uri)
    return format_of(format or detect(uri)).read(uri, images=images, faults=Faults(on_error))


def write(
    dataset: Dataset,
    uri: str,
    format: str,
    *,
    overwrite: bool = False,
    accept: Callable[[Losses], None] | None = None,
    uploading: Progress = lambda done, total: None,
) -> Losses:
    """Write `dataset` below `uri`, all of it or nothing; returns what was kept, approximated and dropped.

    `accept` sees the losses before anything appears under `uri`, and may raise: then nothing does. `uploading` is told of
    the files put into object storage, and of how many.
    """
    losses = Losses()
    with output(uri, overwrite=overwrite, uploading=uploading) as sink:
        format_of(format).write(dataset, sink, losses)
        if accept is not None:
            accept(losses)
    return losses


def _names_below(uri: str) -> list[str]:
    names = list(itertools.islice(below(uri), _PROBED_NAMES))
    if not names:
        raise ObjectNotFound(uri, "nothing is there")
    return names
