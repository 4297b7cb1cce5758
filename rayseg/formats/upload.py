"""Putting a finished local folder into object storage, which has no rename: no reader takes for whole what is not.

The mark `.rayseg-unfinished` is put before anything else is changed and removed when all is there. While it lies in a folder,
`check_finished` refuses every data set in and below it. So a run that was cut off leaves nothing that looks whole, however
little of it a format needs, and whatever of an older data set was there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rayseg import storage
from rayseg.errors import AccessDenied, StorageError
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

MARK = ".rayseg-unfinished"

Progress = Callable[[int, int | None], None]  # files put, and of how many

_THREADS = 16
_SMALL_BYTES = 8 << 20  # larger files go one at a time, as each is held in memory


class Unfinished(StorageError):
    """A folder that an upload has not finished: `.uri` is what was to be read."""


def upload(staging: Path, uri: str, last: Set[str], progress: Progress = lambda done, total: None) -> None:
    """Put every file of the folder `staging` below `uri`, in place of what is there.

    What older data sets left goes first; the files `last`, by which a format is known, come after all others.
    """
    new = sorted(
        os.path.relpath(os.path.join(folder, name), staging).replace(os.sep, "/")
        for folder, _, names in os.walk(staging)
        for name in names
    )
    mark = storage.join(uri, MARK)
    old = [entry.uri for page in storage.list_pages(uri) for entry in page if entry.uri != mark]
    storage.write(mark, json.dumps({"files": len(new), "since": time.time()}).encode())
    known = [entry for entry in old if any(entry.endswith(f"/{name}") for name in last)]
    for entry in known:
        storage.delete(entry)
    for _ in _each(storage.delete, sorted(set(old) - set(known))):
        pass

    def put(name: str) -> None:
        storage.write(storage.join(uri, *name.split("/")), (staging / name).read_bytes())

    ends = [name for name in new if name in last]
    others = [name for name in new if name not in last]
    is_small = {name: (staging / name).stat().st_size <= _SMALL_BYTES for name in others}
    done = 0
    for _ in _each(put, [name for name in others if is_small[name]]):
        progress(done := done + 1, len(new))
    for name in [name for name in others if not is_small[name]] + ends:
        put(name)
        progress(done := done + 1, len(new))
    storage.delete(mark)


def check_finished(uri: str) -> None:
    """Raise `Unfinished` where the data set at `uri`, or a folder that it lies in, is marked."""
    for folder in _folders(uri):
        mark = storage.join(folder, MARK)
        try:
            found = storage.exists(mark)
        except AccessDenied:  # as some stores answer those who may not list, for what is not there
            continue
        if found:
            raise Unfinished(
                uri,
                f"expected a whole data set, found {mark}: writing it was cut off, or still goes on. Write it anew, with "
                "--overwrite; or remove that mark to read what is there",
            )


def _each(act: Callable[[str], None], names: Sequence[str]) -> Iterator[None]:
    """Do it for all names, many at a time. Raises what the first that fails raises; those not yet begun are left."""
    if not names:
        return
    with ThreadPoolExecutor(min(_THREADS, len(names)), thread_name_prefix="rayseg-upload") as pool:
        try:
            yield from pool.map(act, names)
        finally:
            pool.shutdown(cancel_futures=True)


def _folders(uri: str) -> Iterator[str]:
    """`uri` and the folders above it, up to the root of the store."""
    if scheme_of(uri) in ("", "file"):
        path = os.path.abspath(path_of(uri))
        yield path
        while (above := os.path.dirname(path)) != path:
            yield (path := above)
        return
    root, _, rest = uri.partition("://")
    names = [name for name in rest.split("/") if name]
    for count in range(len(names), 0, -1):
        yield f"{root}://{'/'.join(names[:count])}"
