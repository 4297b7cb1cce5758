"""COCO instance annotations: what labelling needs of them, the file names of the images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from rayseg.formats.json_stream import NotJson, array_items


def image_names(file: BinaryIO, uri: str) -> Iterator[str]:
    """`file_name` of each of a COCO file's images, in the file's order and in bounded memory.

    Raises `NotJson`, naming `uri`, for malformed JSON, no `images`, or an image without a `file_name`.
    """
    for index, image in enumerate(array_items(file, uri, "images")):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise NotJson(uri, f"images[{index}]: expected an object with a file_name, found {str(image)[:200]}")
        yield name
