"""Read-only access to whatever else pyarrow.fs opens: `gs://`, `hdfs://`, `abfs://` and so on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from rayseg.errors import AccessDenied, ObjectNotFound, StorageError, UnsupportedScheme
from rayseg.storage.entry import PAGE_ENTRIES, Entry, scheme_of
from rayseg.storage.retry import Retry


def list_pages(uri: str, max_depth: int | None = None) -> Iterator[list[Entry]]:
    with _naming(uri):
        found = _info(uri)
        if found.type == fs.FileType.File:
            yield [Entry(uri, found.size)]
            return
        page: list[Entry] = []
        base = found.path.rstrip("/")
        for info in _walk(_file_system(uri)[0], found.path, max_depth):
            page.append(Entry(f"{uri.rstrip('/')}{quote(info.path[len(base) :])}", info.size))
            if len(page) == PAGE_ENTRIES:
                yield page
                page = []
        if page:
            yield page


def glob_candidates(prefix: str, max_depth: int | None) -> Iterator[list[Entry]]:
    yield from list_pages(prefix[: prefix.rfind("/") + 1], max_depth)


def read(uri: str, max_bytes: int | None) -> bytes:
    size_bytes = size(uri)
    if max_bytes is not None and size_bytes > max_bytes:
        raise StorageError(uri, f"{size_bytes} bytes, over the limit of {max_bytes} bytes")
    with _naming(uri), open(uri) as file:
        return file.read()


def read_range(uri: str, start: int, length: int) -> bytes:
    offset = start if start >= 0 else max(0, size(uri) + start)
    with _naming(uri), open(uri) as file:
        file.seek(offset)
        return file.read(length)


def open(uri: str) -> BinaryIO:
    with _naming(uri):
        return cast(BinaryIO, _file_system(uri)[0].open_input_file(_info(uri).path))


def size(uri: str) -> int:
    with _naming(uri):
        found = _info(uri)
        if found.type != fs.FileType.File:
            raise StorageError(uri, "expected an object, found a folder")
        return found.size


def exists(uri: str) -> bool:
    try:
        with _naming(uri):
            return _info(uri).type == fs.FileType.File
    except ObjectNotFound:
        return False


def _walk(file_system: fs.FileSystem, folder: str, levels: int | None) -> Iterator[Any]:
    """Infos of the files below `folder`, one folder held at a time, by the bytes of the path, "/" included."""

    def key(info: Any) -> bytes:
        return (info.base_name + "/" * (info.type == fs.FileType.Directory)).encode()

    for info in sorted(file_system.get_file_info(fs.FileSelector(folder)), key=key):
        if info.type == fs.FileType.File:
            yield info
        elif levels is None or levels > 0:
            yield from _walk(file_system, info.path, None if levels is None else levels - 1)


def _info(uri: str) -> Any:
    file_system, base = _file_system(uri)
    rest = unquote(uri.split("://", 1)[1].partition("/")[2])
    info = file_system.get_file_info(f"{base.rstrip('/')}/{rest}".rstrip("/") or "/")
    if info.type == fs.FileType.NotFound:
        raise ObjectNotFound(uri, "no such object or folder")
    return info


def _file_system(uri: str) -> tuple[fs.FileSystem, str]:
    """pyarrow's file system for the URI's scheme and host, and the path of that host's root."""
    scheme, _, rest = uri.partition("://")
    try:
        return _open_file_system(f"{scheme}://{rest.partition('/')[0]}/")
    except (pa.ArrowException, OSError) as error:
        expected = "expected s3://, a local path, file://, or a scheme that pyarrow.fs reads"
        raise UnsupportedScheme(uri, f"{expected}, found {scheme_of(uri)}:// ({error})") from error


@functools.lru_cache(maxsize=64)
def _open_file_system(root: str) -> tuple[fs.FileSystem, str]:
    if scheme_of(root) in ("gs", "gcs"):  # whose own limit is a quarter of an hour
        root += f"?retry_limit_seconds={max(1, Retry.from_environment().total_s):g}"
    return fs.FileSystem.from_uri(root)


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Turn pyarrow's errors into rayseg's, which name the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(uri, str(error)) from error
    except PermissionError as error:
        raise AccessDenied(uri, str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise StorageError(uri, str(error)) from error
