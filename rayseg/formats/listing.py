"""What files lie below a data set's folder, by relative names with forward slashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote

from rayseg import storage
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2", "j2k"})


def below(uri: str) -> Iterator[str]:
    """Names of all files below the folder `uri`, sorted by their UTF-8 bytes; of a file its own last name.

    Local names that are not UTF-8 are passed over. Raises `ObjectNotFound` for a missing local folder.
    """
    base, decode = _base(uri)
    for page in storage.list_pages(uri):
        for entry in page:
            if entry.uri.startswith(base):
                yield decode(entry.uri[len(base) :])
            elif entry.uri + "/" == base:
                yield decode(entry.uri.rpartition("/")[2])


def stem(name: str) -> str:
    """`name` without the suffix of its last part: "a/b.c.jpg" gives "a/b.c", and ".x" itself."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last.rpartition(".")[0] or last)


def suffix(name: str) -> str:
    """The suffix of the last part in lower case, without its dot; "" where there is none."""
    before, _, after = name.rpartition("/")[2].rpartition(".")
    return after.lower() if before else ""


def is_image(name: str) -> bool:
    """Whether the suffix is one that images have."""
    return suffix(name) in IMAGE_SUFFIXES


def _base(uri: str) -> tuple[str, Callable[[str], str]]:
    """What listed URIs begin with, and how what follows is decoded."""
    scheme = scheme_of(uri)
    if scheme == "":
        return os.path.abspath(uri).rstrip("/") + "/", str
    if scheme == "file":
        return "file://" + quote(os.path.abspath(path_of(uri))).rstrip("/") + "/", unquote
    return uri.rstrip("/") + "/", str if scheme == "s3" else unquote
