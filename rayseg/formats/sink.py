"""Where a writer puts its files: a folder beside the target that becomes the target when all of it is there.

Locally the finished folder is renamed into place. Object storage has no rename, so the files are staged on local disk and
then put, those given as `last` (by which the format is known) after all others. An interrupted run leaves a folder whose
name says it is unfinished, or objects without the file that would make them a data set.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rayseg import storage
from rayseg.errors import StorageError, UsageError
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of


class Sink:
    """The staging folder of one conversion; names are relative, with forward slashes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.last: list[str] = []

    def put(self, name: str, data: bytes, *, last: bool = False) -> None:
        """Write one file; `last` marks the one without which the rest is no data set."""
        with self.stream(name, last=last) as file:
            file.write(data)

    @contextmanager
    def stream(self, name: str, *, last: bool = False) -> Iterator[IO[bytes]]:
        """A file to write to piece by piece."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UsageError(f"{name!r}: another file of the output is in its place") from None
        except (OSError, UnicodeEncodeError) as error:
            raise StorageError(str(self._folder), f"a file {name[:80]!r} cannot be made: {error}") from None
        if last:
            self.last.append(name)
        with file:
            yield file

    def _path(self, name: str) -> Path:
        """The staged path of `name`. Raises `UsageError` for one that would leave the folder."""
        parts = name.split("/")
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise UsageError(f"{name!r}: not a name below the output folder")
        return self._folder.joinpath(*parts)


@contextmanager
def output(uri: str, *, overwrite: bool = False) -> Iterator[Sink]:
    """A sink whose files appear under `uri` when the block ends well; nothing does when it raises.

    Raises `UsageError` where `uri` holds anything already, unless `overwrite`.
    """
    local = scheme_of(uri) in ("", "file")
    target = Path(path_of(uri)) if local else None
    if not overwrite and _holds_anything(uri, target):
        raise UsageError(f"{uri}: expected a new or empty folder; give --overwrite to replace what it holds")
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.parent / f".{target.name}.unfinished-{uuid.uuid4().hex[:8]}"
        staging.mkdir()
    else:
        staging = Path(tempfile.mkdtemp(prefix="rayseg-unfinished-"))
    try:
        sink = Sink(staging)
        yield sink
        if target is not None:
            _move(staging, target)
        else:
            _upload(staging, uri, sink.last)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _holds_anything(uri: str, target: Path | None) -> bool:
    if target is not None:
        return target.is_file() or (target.is_dir() and any(target.iterdir()))
    return next(iter(storage.list_pages(uri)), None) is not None


def _move(staging: Path, target: Path) -> None:
    """Put the finished folder in the target's place; an old one is set aside first and removed after."""
    if not target.exists():
        staging.rename(target)
        return
    aside = target.parent / f".{target.name}.replaced-{uuid.uuid4().hex[:8]}"
    target.rename(aside)
    staging.rename(target)
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def _upload(staging: Path, uri: str, last: list[str]) -> None:
    """Put every staged file below `uri`. What an older data set leaves there goes first, its `last` files before all."""
    new = sorted(
        os.path.relpath(os.path.join(folder, name), staging).replace(os.sep, "/")
        for folder, _, names in os.walk(staging)
        for name in names
    )
    old = [entry.uri for page in storage.list_pages(uri) for entry in page]
    for entry in sorted(old, key=lambda known: not any(known.endswith(f"/{name}") for name in last)):
        storage.delete(entry)
    for name in [name for name in new if name not in last] + [name for name in new if name in last]:
        storage.write(storage.join(uri, *name.split("/")), (staging / name).read_bytes())
