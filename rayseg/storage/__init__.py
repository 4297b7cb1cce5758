"""Bytes by URI: `s3://bucket/key`, plain local paths and `file://` alike; other schemes of pyarrow.fs are read only.

    list_pages  glob_pages                what is there, a page at a time
    read  read_range  open  size  exists  reading
    write  create  replace  delete        writing; all or nothing, `create` and `replace` under a condition
    read_versioned  check_output  join

Keys and plain paths are literal, so "s3://b/a b#c?d%20.jpg" is that very key; `file://` URIs are percent-decoded.
Any S3-compatible server works through the usual AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE and credential chain;
AWS_NO_SIGN_REQUEST=1 asks anonymously. Server errors, throttling, timeouts and broken connections are retried for a
minute, or for RAYSEG_RETRY_S seconds. Every function is safe in threads and after a fork.

All raise the StorageError that fits (see `rayseg.errors`): ObjectNotFound, BucketNotFound, AccessDenied,
WrongCredentials, Unreachable, Conflict, UnsupportedScheme, and StorageError itself for the rest; UsageError if
RAYSEG_RETRY_S is no number.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol
from urllib.parse import quote, unquote

from rayseg.errors import Conflict, Unreachable, UnsupportedScheme
from rayseg.storage import local
from rayseg.storage.entry import Entry, Versioned, scheme_of
from rayseg.storage.glob import Glob
from rayseg.storage.retry import Retry

__all__ = [
    "Entry",
    "Retry",
    "Versioned",
    "check_output",
    "create",
    "delete",
    "exists",
    "glob_pages",
    "is_transient",
    "join",
    "list_pages",
    "open",
    "read",
    "read_range",
    "read_versioned",
    "replace",
    "reset",
    "size",
    "write",
]


class _Reader(Protocol):
    """What a module must have to read a scheme."""

    def list_pages(self, uri: str) -> Iterator[list[Entry]]: ...
    def glob_candidates(self, prefix: str, max_depth: int | None) -> Iterator[list[Entry]]: ...
    def read(self, uri: str, max_bytes: int | None) -> bytes: ...
    def read_range(self, uri: str, start: int, length: int) -> bytes: ...
    def open(self, uri: str) -> BinaryIO: ...
    def size(self, uri: str) -> int: ...
    def exists(self, uri: str) -> bool: ...


class _Writer(Protocol):
    """What it must have besides to be written to."""

    def write(self, uri: str, data: bytes) -> None: ...
    def create(self, uri: str, data: bytes) -> str: ...
    def read_versioned(self, uri: str) -> Versioned: ...
    def replace(self, uri: str, data: bytes, version: str) -> str: ...
    def delete(self, uri: str) -> None: ...


def join(base: str, *parts: str) -> str:
    """`base` with literal names below it; they are percent-encoded where the form of `base` asks for that."""
    encode = _literal if scheme_of(base) in ("", "s3") else quote
    uri = base
    for part in parts:
        uri = f"{uri.rstrip('/')}/{encode(part.strip('/'))}" if uri else encode(part)
    return uri


def list_pages(prefix: str) -> Iterator[list[Entry]]:
    """All objects or files in the folder `prefix` and the folders in it, in pages of up to 1000.

    Sorted by the UTF-8 bytes of the key, as S3 sorts; one folder's names are the most that is held. A prefix is a
    folder, so "s3://b/photos" does not list "photos2/x.jpg"; if it is exactly an object or a file, that is listed.
    Objects that only mark a folder (empty, named like "a/") are left out. Links to files and folders are followed,
    never round in circles. Plain paths come out absolute, URIs in the form that went in.
    An empty folder gives no page; on S3, where folders do not exist, so does one that is not there.
    Raises ObjectNotFound for a missing local folder.
    """
    yield from _reader(prefix).list_pages(prefix)


def glob_pages(pattern: str) -> Iterator[list[Entry]]:
    """The objects that `pattern` matches: `*`, `?`, `[a-c]`, `[!a-c]` within a name, `**` across folders.

    Lists from the longest literal beginning of the pattern, page by page, in the order of `list_pages`.
    """
    is_plain_path = scheme_of(pattern) == ""
    decode = _literal if scheme_of(pattern) in ("", "s3") else unquote
    glob = Glob(os.path.abspath(pattern) if is_plain_path else pattern, decode)
    spelled = local.path_of if is_plain_path else decode
    if glob.is_literal:
        yield from ([[Entry(pattern, size(pattern))]] if exists(pattern) else [])
        return
    for page in _reader(pattern).glob_candidates(glob.prefix, glob.max_depth):
        matching = [entry for entry in page if glob.matches(spelled(entry.uri))]
        if matching:
            yield matching


def read(uri: str, *, max_bytes: int | None = None) -> bytes:
    """The whole object. Raises StorageError, without reading it, if it is longer than `max_bytes`."""
    return _reader(uri).read(uri, max_bytes)


def read_range(uri: str, start: int, length: int) -> bytes:
    """Up to `length` bytes from `start`, which counts from the end if negative; b"" from past the end."""
    if length < 0:
        raise ValueError(f"length: expected 0 or more, found {length}")
    return _reader(uri).read_range(uri, start, length) if length else b""


def open(uri: str) -> BinaryIO:
    """A seekable, read-only file, as pyarrow.parquet takes it; remote bytes are fetched as they are asked for."""
    return _reader(uri).open(uri)


def size(uri: str) -> int:
    """The object's length in bytes."""
    return _reader(uri).size(uri)


def exists(uri: str) -> bool:
    """Whether there is such an object or file; a folder is neither."""
    return _reader(uri).exists(uri)


def write(uri: str, data: bytes) -> None:
    """Put the object, over an older one if there is one: readers see the old, then the whole new one."""
    _writer(uri).write(uri, data)


def create(uri: str, data: bytes) -> str:
    """Put the object if there is none and return its version; of many callers at once exactly one succeeds.

    Raises Conflict if there is one. After a lost answer, one with these very bytes counts as ours: who creates a
    lock puts something of its own in it.
    """
    return _writer(uri).create(uri, data)


def read_versioned(uri: str) -> Versioned:
    """The whole object with its version and its age by the clock of the store (seconds on S3, exact locally)."""
    return _writer(uri).read_versioned(uri)


def replace(uri: str, data: bytes, version: str) -> str:
    """Put the object if it still has this version and return the new one; Conflict if it has changed or gone.

    Atomic among callers of `create` and `replace`. S3 versions are digests of the bytes: data that comes back to
    what it was is unchanged.
    """
    return _writer(uri).replace(uri, data, version)


def delete(uri: str) -> None:
    """Remove the object; it may be gone already."""
    _writer(uri).delete(uri)


def check_output(uri: str) -> None:
    """Prove, by doing it, that objects below `uri` can be created, replaced under conditions, and deleted.

    Raises UnsupportedScheme if the scheme or the server lacks conditional writes, AccessDenied, BucketNotFound ...
    """
    probe = join(uri, f".rayseg-probe-{uuid.uuid4().hex}")
    writer = _writer(probe)
    version = writer.create(probe, b"first")
    try:
        _expect_conflict(uri, "create", lambda: writer.create(probe, b"second"))
        _expect_conflict(uri, "replace", lambda: writer.replace(probe, b"third", '"0123456789abcdef"'))
        writer.replace(probe, b"fourth", version)
    finally:
        writer.delete(probe)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed later: no answer, or a network file system that is away."""
    return isinstance(error, Unreachable | ConnectionError | TimeoutError)


def reset() -> None:
    """Drop cached connections and credentials, so that the next call reads the environment again."""
    from rayseg.storage import s3_http

    s3_http.reset()


def _reader(uri: str) -> _Reader:
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        return local
    if scheme == "s3":
        from rayseg.storage import s3  # imported where needed: botocore takes its time

        return s3
    from rayseg.storage import arrow

    return arrow


def _writer(uri: str) -> _Writer:
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        return local
    if scheme == "s3":
        from rayseg.storage import s3

        return s3
    raise UnsupportedScheme(uri, f"expected s3://, a local path or file:// to write to, found {scheme}://")


def _expect_conflict(uri: str, verb: str, conditional_write: Callable[[], object]) -> None:
    try:
        conditional_write()
    except Conflict:
        return
    header = {"create": "If-None-Match", "replace": "If-Match"}[verb]
    raise UnsupportedScheme(uri, f"conditional writes do not work here: {header} was ignored, so nothing can be locked")


def _literal(text: str) -> str:
    return text
