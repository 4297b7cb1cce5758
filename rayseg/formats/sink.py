"""Where a writer puts its files: a folder beside the target that becomes the target when all of it is there.

Locally the finished folder is renamed into place. Object storage has no rename, so the files are staged on local disk and
then put, under a mark that no reader passes (`rayseg.formats.upload`). An interrupted run leaves a folder whose name says it
is unfinished, or objects with that mark.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rayseg import storage
from rayseg.errors import StorageError, UsageError
from rayseg.formats.upload import MARK, Progress, upload
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
def output(uri: str, *, overwrite: bool = False, uploading: Progress = lambda done, total: None) -> Iterator[Sink]:
    """A sink whose files appear under `uri` when the block ends well; nothing does when it raises.

    `uploading` is told of the files that are in object storage, and of how many. Raises `UsageError` where `uri` holds
    anything already, unless `overwrite`.
    """
    local = scheme_of(uri) in ("", "file")
    target = Path(path_of(uri)) if local else None
    if not overwrite and _holds_anything(uri, target):
        what = "it holds"
        if target is None and storage.exists(storage.join(uri, MARK)):
            what = "a run that was cut off left there"
        raise UsageError(f"{uri}: expected a new or empty folder; give --overwrite to replace what {what}")
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
            upload(staging, uri, set(sink.last), uploading)
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
