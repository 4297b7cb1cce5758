"""The image files that a format's loaders expect beside its annotations: copied byte for byte, never decoded."""

from __future__ import annotations

from rayseg import storage
from rayseg.annotations import AnnotatedImage
from rayseg.errors import ImageError, StorageError
from rayseg.formats import orientation
from rayseg.formats.losses import Losses
from rayseg.images.headers import Header, header

_MAX_BYTES = 1 << 30


def encoded(image: AnnotatedImage) -> bytes | None:
    """The image as a file has it: embedded, or read from its URI; None where it is not to be had.

    Raises the StorageError of a store that cannot be asked at present.
    """
    if image.data is not None:
        return image.data
    if not image.uri or "\0" in image.uri:
        return None
    try:
        return storage.read(image.uri, max_bytes=_MAX_BYTES)
    except StorageError as error:
        if storage.is_transient(error):
            raise
        return None


def tell_of_file(image: AnnotatedImage, losses: Losses, tool: str) -> None:
    """Tell of the file of an image that a format names and does not hold."""
    if image.data is None and image.uri is not None:
        losses.stays("image file", f"not copied, as {tool} only names images: read with their folder, --images")


def header_of(data: bytes | None) -> Header | None:
    """The header of encoded bytes; None for none, and for what is no image."""
    try:
        return None if data is None else header(data)
    except ImageError:
        return None


def upright_hw(image: AnnotatedImage) -> tuple[int, int] | None:
    """The (H, W) the record gives, else what the image's header says; None where neither does."""
    if image.image_hw is not None:
        return image.image_hw
    found = header_of(image.data) if image.data is not None else orientation.raster(image.uri)
    return found and found.image_hw
