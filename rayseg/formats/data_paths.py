"""Names of files inside a data set: what a file says of another one is followed below the root, nowhere else."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from rayseg import storage
from rayseg.formats import orientation
from rayseg.images.headers import Header

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")

_DRIVE = re.compile(r"[A-Za-z]:")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NAME_MAX = 4096


def inside(name: str, folder: str = "", *, windows: bool = False) -> str:
    """`name` as the relative path below the root that it means in `folder` (itself relative, "" for the root).

    `windows`: backslashes are separators. Raises `ValueError` for an empty, absolute or over-long name, a URL, and one
    that climbs out of the root.
    """
    text = name.replace("\\", "/") if windows else name
    if not text.strip("/") or len(text) > NAME_MAX or "\0" in text or not _is_unicode(text):
        raise ValueError(f"expected the name of a file, found {name[:80]!r}")
    if text.startswith("/") or _DRIVE.match(text) or _URL.match(text):
        raise ValueError(f"expected a path below the data set, found {name[:200]!r}, which is absolute")
    path = posixpath.normpath(posixpath.join(folder, text))
    if path == ".." or path.startswith("../") or path in (".", ""):
        raise ValueError(f"expected a path below the data set, found {name[:200]!r}, which leads out of it")
    return path


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: text from JSON may hold halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def is_writable(name: str) -> bool:
    """Whether `name` can be that of a file in an output folder: relative, no empty part, no "." or ".."."""
    try:
        return inside(name) == name and all(len(part.encode()) <= 255 for part in name.split("/"))
    except (ValueError, UnicodeEncodeError):
        return False


def at(root: str, name: str) -> str:
    """The URI of a relative `name` below `root`."""
    return storage.join(root, *name.split("/"))


def folder_of(uri: str) -> str:
    """The URI of the folder that a file lies in."""
    head, slash, _ = uri.rpartition("/")
    return head or slash or "."


def first_image(uris: Iterable[str]) -> tuple[str | None, Header | None]:
    """The first of these that is an image, with its header; the first of all, without one, where none is."""
    first = None
    for uri in uris:
        first = first or uri
        found = orientation.raster(uri)
        if found is not None:
            return uri, found
    return first, None


def split_of(name: str) -> str | None:
    """The split that the first folder of a relative name stands for, where that has the name of one."""
    folder, slash, _ = name.partition("/")
    return folder if slash and folder.lower() in SPLIT_NAMES else None
