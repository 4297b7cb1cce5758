"""The files of one image of a data set that is many files: what is wrong with one concerns that image alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayseg import storage
from rayseg.errors import ImageError, StorageError
from rayseg.formats import id_maps, json_values
from rayseg.formats.faults import BadAnnotation

BYTES_MAX = 256 << 20


class BadFile(Exception):
    """An image that cannot be taken: `kind` of the fault, and the `uri` of the file it is in. Readers pass it to `Faults`."""

    def __init__(self, kind: str, uri: str, message: str) -> None:
        super().__init__(message.removeprefix(f"{uri}: "))
        self.kind, self.uri = kind, uri


def read_bytes(uri: str, max_bytes: int = BYTES_MAX) -> bytes:
    """The whole file. Raises `BadFile`, or the StorageError of a store that cannot be asked at present."""
    try:
        return storage.read(uri, max_bytes=max_bytes)
    except StorageError as error:
        if storage.is_transient(error):
            raise
        raise BadFile("file", uri, str(error)) from None


def read_ids(uri: str) -> np.ndarray:
    """The ids (H, W) of a PNG, see `id_maps`. Raises `BadFile`."""
    try:
        return id_maps.read(read_bytes(uri))
    except ImageError as error:
        raise BadFile("mask", uri, str(error)) from None


def read_object(uri: str, kind: str) -> dict[str, Any]:
    """The JSON object in a file. Raises `BadFile` of `kind`, with the line."""
    try:
        value = json_values.parsed(read_bytes(uri), uri)
    except BadAnnotation as error:
        raise BadFile(kind, uri, str(error)) from None
    if not isinstance(value, dict):
        raise BadFile(kind, uri, f"expected an object, found {json_values.shown(value)}")
    return value
