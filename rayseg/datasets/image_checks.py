"""One image of a data set: is it there, is it an image, how large, and what does it look like.

Without a fingerprint the first bytes tell (`rayseg.formats.orientation.raster`); with one it is read whole and decoded.
H W image pixels.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np

from rayseg import images, storage
from rayseg.annotations import AnnotatedImage
from rayseg.datasets.duplicates import Fingerprint, fingerprint
from rayseg.errors import BucketNotFound, ImageError, ObjectNotFound, StorageError, WrongCredentials
from rayseg.formats.orientation import raster

MAX_BYTES = 256 << 20
_HEADER_BYTES = 1 << 16
_decoding = threading.BoundedSemaphore(os.cpu_count() or 1)  # reads may be many at once, decoded images not


class Look(NamedTuple):
    """What was seen of an image: its header if it has a good one, else `problem`, a finding's kind and message."""

    header: images.Header | None
    problem: tuple[str, str] | None = None
    fingerprint: Fingerprint | None = None


def look(image: AnnotatedImage, *, pixels: bool) -> Look:
    """Look at one image; with `pixels` decode it and take its fingerprint.

    Raises only the StorageErrors that say nothing about the image: a store that cannot be asked, wrong credentials.
    """
    try:
        if image.data is None and not image.uri:
            return Look(None, ("unlocated_image", "has no URI"))
        if not pixels and image.data is None:
            return _from_first_bytes(str(image.uri))
        data = encoded(image)
        header = images.header(data)
        if not pixels:
            return Look(header)
        with _decoding:
            return Look(header, None, fingerprint(images.decode(data, max_bytes=MAX_BYTES)))
    except ImageError as error:
        return Look(None, ("unreadable_image", f"{error.kind}: {error}"))
    except (ObjectNotFound, BucketNotFound) as error:
        return Look(None, ("missing_image", str(error)))
    except WrongCredentials:
        raise
    except StorageError as error:
        if storage.is_transient(error):
            raise
        return Look(None, ("unreadable_image", str(error)))
    except ValueError as error:  # characters that no name can have
        return Look(None, ("missing_image", f"{image.uri!r}: {error}"))


def encoded(image: AnnotatedImage) -> bytes:
    """The image's file. Raises StorageError, ObjectNotFound where the data set does not say where it is."""
    if image.data is not None:
        return image.data
    if not image.uri:
        raise ObjectNotFound(str(image.uri), f"no place for the pixels of {image.name!r}")
    return storage.read(image.uri, max_bytes=MAX_BYTES)


def upright_pixels(image: AnnotatedImage) -> np.ndarray:
    """The image (H, W, 3) uint8. Raises StorageError and ImageError."""
    return images.decode(encoded(image), max_bytes=MAX_BYTES)


def _from_first_bytes(uri: str) -> Look:
    header = raster(uri)
    if header is None:  # asked again for the reason, which only bad images have
        storage.size(uri)
        images.header(storage.read_range(uri, 0, _HEADER_BYTES))
        return Look(None, ("unreadable_image", f"{uri}: its header cannot be read"))
    return Look(header)
