"""The two records of storage, and how its URIs are cut; `rayseg.storage` is their public face."""

from __future__ import annotations

import re
from typing import NamedTuple

PAGE_ENTRIES = 1000  # what S3 sends at once; the other readers cut their pages alike

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=//)|(file):", re.IGNORECASE)


class Entry(NamedTuple):
    """One object or file of a listing."""

    uri: str
    size_bytes: int


class Versioned(NamedTuple):
    """An object's bytes, the version that `replace` asks for, and its age by the clock of the store itself."""

    data: bytes
    version: str
    age_s: float


def scheme_of(uri: str) -> str:
    """The lower-case scheme, "" for a plain path: only `name://` and `file:` count, so `a:b.jpg` is a path."""
    match = _SCHEME.match(uri)
    return (match[1] or match[2]).lower() if match else ""
