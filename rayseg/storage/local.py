"""Files by plain path or `file://` URI, with the promises of an object store.

A write goes to a hidden file beside the target, is synced and then renamed or linked into place, so that a reader
sees all of it or nothing, and a killed writer leaves nothing that a listing would show.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import stat
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

from rayseg.errors import AccessDenied, Conflict, ObjectNotFound, StorageError, UnsupportedScheme
from rayseg.storage.entry import PAGE_ENTRIES, Entry, Versioned, scheme_of

_HIDDEN_SUFFIXES = (b".rayseg-tmp", b".rayseg-lock")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def list_pages(uri: str, max_depth: int | None = None) -> Iterator[list[Entry]]:
    with _naming(uri):
        root = os.path.abspath(path_of(uri))
        if not stat.S_ISDIR(os.stat(root).st_mode):
            yield [Entry(_uri_like(uri, os.fsencode(root)), _regular(uri, os.stat(root)).st_size)]
            return
        page: list[Entry] = []
        for path, size_bytes in _walk(os.fsencode(root), (), max_depth):
            page.append(Entry(_uri_like(uri, path), size_bytes))
            if len(page) == PAGE_ENTRIES:
                yield page
                page = []
        if page:
            yield page


def glob_candidates(prefix: str, max_depth: int | None) -> Iterator[list[Entry]]:
    """Every file in the folder that the URI `prefix` ends in, down to `max_depth` levels below it."""
    yield from list_pages(prefix[: prefix.rfind("/") + 1] or ".", max_depth)


def read(uri: str, max_bytes: int | None) -> bytes:
    with open(uri) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size_bytes > max_bytes:
            raise StorageError(uri, f"{size_bytes} bytes, over the limit of {max_bytes} bytes")
        with _naming(uri):
            return file.read()


def read_range(uri: str, start: int, length: int) -> bytes:
    with open(uri) as file, _naming(uri):
        size_bytes = os.fstat(file.fileno()).st_size
        file.seek(start if start >= 0 else max(0, size_bytes + start))
        return file.read(length)


def open(uri: str) -> BinaryIO:
    with _naming(uri):
        path = path_of(uri)
        _regular(uri, os.stat(path))  # before opening: a pipe would block, a device might act
        return builtins.open(path, "rb")


def size(uri: str) -> int:
    with _naming(uri):
        return _regular(uri, os.stat(path_of(uri))).st_size


def exists(uri: str) -> bool:
    try:
        with _naming(uri):
            return stat.S_ISREG(os.stat(path_of(uri)).st_mode)
    except ObjectNotFound:
        return False


def write(uri: str, data: bytes) -> None:
    path = path_of(uri)
    with _naming(uri), _staged(path, data) as staged:
        os.replace(staged, path)


def create(uri: str, data: bytes) -> str:
    path = path_of(uri)
    with _naming(uri), _staged(path, data) as staged:
        version = _version(os.stat(staged), data)
        try:
            os.link(staged, path)
        except FileExistsError:
            raise Conflict(uri, "expected no file there, found one") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            version = _create_exclusively(uri, path, data)
    return version


def read_versioned(uri: str) -> Versioned:
    with open(uri) as file, _naming(uri):
        data = file.read()
        status = os.fstat(file.fileno())
    return Versioned(data, _version(status, data), max(0.0, time.time() - status.st_mtime))


def replace(uri: str, data: bytes, version: str) -> str:
    path = path_of(uri)
    with _naming(uri), _locked(path):
        try:
            found = read_versioned(uri).version
        except ObjectNotFound:
            found = "no file"
        if found != version:
            raise Conflict(uri, f"expected version {version}, found {found}")
        with _staged(path, data) as staged:
            new_version = _version(os.stat(staged), data)
            os.replace(staged, path)
    return new_version


def delete(uri: str) -> None:
    path = path_of(uri)
    with suppress(ObjectNotFound), _naming(uri):
        os.unlink(path)


def _walk(folder: bytes, above: tuple[tuple[int, int], ...], levels: int | None) -> Iterator[tuple[bytes, int]]:
    """Files below `folder` with their sizes, in the order of S3: by the bytes of the path, "/" included.

    Holds one folder's names per level. Links are followed, but not back into a folder that is being walked.
    """
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as found:
        names = sorted(e.name + b"/" if e.is_dir() else e.name for e in found if not e.name.endswith(_HIDDEN_SUFFIXES))
    for name in names:
        path = os.path.join(folder, name.rstrip(b"/"))
        if not name.endswith(b"/"):
            yield from _file(path)
        elif levels is None or levels > 0:
            yield from _walk(path, (*above, identity), None if levels is None else levels - 1)


def _file(path: bytes) -> Iterator[tuple[bytes, int]]:
    """The file and its size, nothing for a pipe or a socket or a file that has just gone."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):  # listed, so that reading it says what is wrong
            yield path, 0
        return
    if stat.S_ISREG(status.st_mode):
        yield path, status.st_size


@contextmanager
def _staged(path: str, data: bytes) -> Iterator[str]:
    """A hidden, synced file beside `path` that holds `data`; gone afterwards, its folder synced."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    staged = os.path.join(folder, f".{uuid.uuid4().hex}.rayseg-tmp")
    try:
        with builtins.open(staged, "xb") as file:
            _write_through(file, data)
        yield staged
        _sync_folder(folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(staged)


def _write_through(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Make renames and links in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_exclusively(uri: str, path: str, data: bytes) -> str:
    """For file systems without hard links: exclusive, but a crash in the middle leaves a torn file."""
    try:
        with builtins.open(path, "xb") as file:
            try:
                _write_through(file, data)
            except BaseException:
                os.unlink(path)
                raise
            return _version(os.fstat(file.fileno()), data)
    except FileExistsError:
        raise Conflict(uri, "expected no file there, found one") from None


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of `path` among the processes, and over NFS the machines, that replace it."""
    folder, name = os.path.split(os.path.abspath(path))
    lock = os.path.join(folder, f".{name}.rayseg-lock")
    os.makedirs(folder, exist_ok=True)
    while True:
        with builtins.open(lock, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(lock, os.fstat(file.fileno())):
                continue  # its last holder removed it while this one waited
            try:
                yield
            finally:
                os.unlink(lock)
            return


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except FileNotFoundError:
        return False


def _version(status: os.stat_result, data: bytes) -> str:
    """Differs after every write: a new file, a new time, and in case both are reused soon the content."""
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{zlib.crc32(data):08x}"


def _regular(uri: str, status: os.stat_result) -> os.stat_result:
    if stat.S_ISDIR(status.st_mode):
        raise StorageError(uri, "expected a file, found a folder")
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(uri, "expected a file, found a pipe, socket or device")
    return status


def path_of(uri: str) -> str:
    """The path on this machine: a plain path as it is, a `file://` URI percent-decoded."""
    if scheme_of(uri) != "file":
        if not uri:
            raise StorageError(uri, "expected a path, found nothing")
        return uri
    rest = uri[len("file:") :]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    if host not in ("", "localhost"):
        raise UnsupportedScheme(uri, f"a file of another machine, {host!r}; expected file:///path")
    return os.fsdecode(unquote_to_bytes(slash + path))


def _uri_like(model: str, path: bytes) -> str:
    """`path` in the form of `model`; a name that is not UTF-8 only a `file://` URI can spell."""
    if scheme_of(model) != "file":
        try:
            return path.decode()
        except UnicodeDecodeError:
            pass
    return "file://" + quote(path)


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Turn the operating system's errors into rayseg's, which name the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(uri, "no such file or folder") from error
    except PermissionError as error:
        raise AccessDenied(uri, f"{error.strerror}: {os.fsdecode(error.filename or b'')}") from error
    except IsADirectoryError as error:
        raise StorageError(uri, "expected a file, found a folder") from error
    except FileExistsError as error:
        raise StorageError(uri, f"expected a folder, found a file: {os.fsdecode(error.filename or b'')}") from error
    except NotADirectoryError as error:
        raise ObjectNotFound(uri, "a part of its path is a file, not a folder") from error
    except UnicodeEncodeError as error:
        raise ObjectNotFound(uri, f"no file can have this name: {uri!a}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise AccessDenied(uri, "the file system is read-only") from error
        if error.errno in _FULL:
            raise StorageError(uri, f"the disk is full ({error.strerror})") from error
        raise StorageError(uri, f"{error.strerror or error}") from error
