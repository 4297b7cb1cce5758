"""From what `images` names to pages of entries: a folder, a glob, a list or a COCO file.

| `images`                        | inputs                                                                  |
|---------------------------------|-------------------------------------------------------------------------|
| folder or prefix, or one file   | every file below it that may be an image, see below                     |
| glob (`*`, `**`, `?`, `[...]`)  | every match that may be an image                                        |
| `.txt`, `.lst`                  | one URI a line; blank lines and lines that begin with `#` say nothing   |
| `.csv`, `.tsv`                  | the URIs of one column; the first line names the columns                |
| `.parquet`, a file or a folder  | the URIs of one column                                                  |
| `.json`                         | the images of a COCO file                                               |
| `manifest.json`                 | the objects that an S3 Inventory lists; with `root` only those below it |

May be an image: any file, whatever its name, as losing one in silence is worse than a row that says "not an image".
Left out, and counted in `Inputs.skipped`, are only what lies in hidden folders (`.git/`), what systems drop
(`.DS_Store`, `Thumbs.db`, `._*`), and the annotations and tables that come beside images by the thousand (`SIDECARS`).
A list means what it says: every line is an input, but a URI that comes again is one input, and counted as `repeated`.

Relative names start from `root`, or from the list's own folder. For a COCO file the usual places are tried.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound, UsageError
from rayseg.formats import coco
from rayseg.outputs.inventory import MANIFEST, inventory_pages
from rayseg.outputs.lists import csv_uris, parquet_entries, text_uris
from rayseg.outputs.repeats import Repeats
from rayseg.storage import Entry

Kind = Literal["folder", "glob", "text", "csv", "parquet", "coco", "inventory"]
SIDECARS = frozenset(
    [
        ".json",
        ".jsonl",
        ".ndjson",
        ".geojson",
        ".xml",
        ".txt",
        ".csv",
        ".tsv",
        ".yaml",
        ".yml",
        ".parquet",
        ".npy",
        ".npz",
        ".pkl",
        ".h5",
        ".hdf5",
        ".mat",
        ".tfrecord",
        ".xmp",
        ".tfw",
        ".jgw",
        ".pgw",
        ".wld",
        ".prj",
        ".md5",
        ".sha256",
    ]
)
PAGE_ENTRIES = 8192  # of lists; listings come in the pages of their storage

_KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".lst": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "coco",
}
_SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_PROBED_NAMES = 20


@dataclass
class Inputs:
    """What is to be labelled: `pages()` streams it, `skipped` then counts what was left out, by reason."""

    uri: str
    kind: Kind
    _stream: Callable[[Counter[str]], Iterator[list[Entry]]] = field(repr=False)
    skipped: Counter[str] = field(default_factory=Counter)

    def pages(self) -> Iterator[list[Entry]]:
        """Pages of entries, none of them empty; `size_bytes` is -1 where the source does not say.

        Raises `ObjectNotFound` when there is nothing to label, `UsageError` for a column that is not there and images
        that are nowhere, `NotJson` and `NotAList` with the line for a malformed file, `StorageError` for one that
        cannot be read.
        """
        self.skipped.clear()
        found = False
        for page in self._stream(self.skipped):
            if page:
                found = True
                yield page
        if not found:
            raise ObjectNotFound(self.uri, f"no images {'under it' if self.kind == 'folder' else 'in it'}{self._but()}")

    def _but(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in self.skipped.most_common(5))
        return f" (left out: {counts})" if counts else ""


def plan_inputs(
    uri: str,
    *,
    column: str | None = None,
    root: str | None = None,
    check_read: Callable[[str], object] = lambda uri: None,
) -> Inputs:
    """The inputs that `uri` names. `column` is that of a CSV or Parquet list, `root` where relative names start.

    An inventory has no relative names; there `root` is the prefix that is wanted of it. `check_read` is called with each
    file that another one names, before it is read or looked for, and may raise a `JobError`: who may name one file may
    not have every other one read.

    Raises `UsageError` where `column` or `root` has no meaning, `StorageError` when `uri` cannot be looked at.
    """
    uri = _absolute_path(uri)
    kind = _kind(uri)
    if column is not None and kind not in ("csv", "parquet"):
        raise UsageError(f"column: {column!r} given, but only a .csv, .tsv or .parquet list has columns, not {uri}")
    if root is not None and kind in ("folder", "glob"):
        raise UsageError(f"images_root: {root!r} given, but {uri} is no list or COCO file: it has no relative names")
    root = _absolute_path(root) if root else None
    streams: dict[Kind, Callable[[Counter[str]], Iterator[list[Entry]]]] = {
        "folder": lambda skipped: _listed(storage.list_pages(uri), uri.rstrip("/") + "/", skipped),
        "glob": lambda skipped: _listed(storage.glob_pages(uri), _fixed_part(uri), skipped),
        "text": lambda skipped: _unrepeated(_resolved(_unsized(text_uris(uri)), uri, root), skipped),
        "csv": lambda skipped: _unrepeated(_resolved(_unsized(csv_uris(uri, column)), uri, root), skipped),
        "parquet": lambda skipped: _unrepeated(_resolved(parquet_entries(uri, column, check_read), uri, root), skipped),
        "coco": lambda skipped: _unrepeated(_coco_entries(uri, root, check_read), skipped),
        "inventory": lambda skipped: inventory_pages(uri, root, _skip_reason, skipped, check_read),
    }
    return Inputs(uri, kind, streams[kind])


# ---- folders and globs


def _kind(uri: str) -> Kind:
    if uri.endswith("/"):
        return "folder"
    if any(mark in uri for mark in "*?[") and not os.path.exists(uri):
        return "glob"
    if posixpath.basename(uri) == MANIFEST:
        return "inventory"
    return _KINDS.get(posixpath.splitext(uri)[1].lower(), "folder")


def _listed(pages: Iterable[list[Entry]], base: str, skipped: Counter[str]) -> Iterator[list[Entry]]:
    for page in pages:
        kept = []
        for entry in page:
            uri = entry.uri  # a file may be listed under another spelling than `base`: its name alone counts then
            reason = _skip_reason(uri[len(base) :] if uri.startswith(base) else uri.rpartition("/")[2])
            if reason is None:
                kept.append(entry)
            else:
                skipped[reason] += 1
        yield kept


def _skip_reason(path: str) -> str | None:
    """Why the file at `path`, relative to the folder asked for, is no input; None when it is."""
    folder, _, name = path.rpartition("/")
    if not name:
        return "folder marker"
    if "/." in f"/{folder}":
        return "in a hidden folder"
    name = name.lower()
    extension = name[name.rfind(".") :] if "." in name else ""
    if extension in SIDECARS:
        return extension
    return "system file" if name in _SYSTEM_FILES or name.startswith("._") else None


def _fixed_part(pattern: str) -> str:
    """The folder of a glob above its first special character, with its slash."""
    first = min(pattern.find(mark) for mark in "*?[" if mark in pattern)
    return pattern[: pattern.rfind("/", 0, first) + 1]


# ---- lists


def _unsized(uris: Iterable[str]) -> Iterator[list[Entry]]:
    uris = iter(uris)
    while chunk := list(itertools.islice(uris, PAGE_ENTRIES)):
        yield [Entry(uri, -1) for uri in chunk]


def _resolved(pages: Iterable[list[Entry]], list_uri: str, root: str | None) -> Iterator[list[Entry]]:
    base = _Base(root or _parent(list_uri))
    for page in pages:
        yield [Entry(base.resolve(name), size_bytes) for name, size_bytes in page]


def _unrepeated(pages: Iterable[list[Entry]], skipped: Counter[str]) -> Iterator[list[Entry]]:
    repeats = Repeats()
    for page in pages:
        fresh = repeats.fresh([entry.uri for entry in page]).tolist()
        kept = list(itertools.compress(page, fresh))
        if len(kept) < len(page):
            skipped["repeated"] += len(page) - len(kept)
        yield kept


def _coco_entries(uri: str, root: str | None, check_read: Callable[[str], object]) -> Iterator[list[Entry]]:
    with storage.open(uri) as file:
        names = coco.image_names(file, uri)
        first = list(itertools.islice(names, _PROBED_NAMES))
        base = _Base(_coco_root(uri, first, [root] if root else _coco_places(uri), check_read))
        yield from _unsized(base.resolve(name) for name in itertools.chain(first, names))


def _coco_places(uri: str) -> list[str]:
    """Where the images of a COCO file usually lie: beside it, or in a folder named like it, as in val2017."""
    folder, stem = _parent(uri), posixpath.splitext(uri.rpartition("/")[2])[0]
    above = _parent(folder)
    split = stem.rpartition("_")[2]
    return [folder, f"{folder}/images", f"{above}/images", f"{above}/{split}", f"{above}/images/{split}", above]


def _coco_root(uri: str, names: list[str], places: list[str], check_read: Callable[[str], object]) -> str:
    """The first of `places` that holds one of `names`, of those that may be read. Raises `UsageError` when none does."""
    for name in names:
        for place in places:
            if _exists(_Base(place).resolve(name), check_read):
                return place
    if not names:
        return places[0]
    raise UsageError(
        f"images_root: none of the first {len(names)} images of {uri} (such as {names[0]}) was found in "
        f"{', '.join(dict.fromkeys(places))}; give the folder that its file names start from"
    )


def _exists(uri: str, check_read: Callable[[str], object]) -> bool:
    try:
        check_read(uri)
    except JobError:
        return False
    return storage.exists(uri)


# ---- names


def _absolute_path(uri: str) -> str:
    """A local path made absolute, as workers may stand elsewhere; a URI stays, and so does a trailing slash."""
    if "://" in uri or uri.startswith("file:"):
        return uri
    return os.path.abspath(uri) + ("/" if uri.endswith("/") and uri != "/" else "")


def _parent(uri: str) -> str:
    """The folder of a file; a bucket or the root of a file system is its own."""
    head, slash, _ = uri.rstrip("/").rpartition("/")
    return uri.rstrip("/") if not slash or head.endswith("/") else head


class _Base:
    """The folder that relative names start from."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._prefix = uri.rstrip("/") + "/"
        self._is_literal = storage.join(uri, "%") == f"{self._prefix}%"  # names need no encoding, as in file:// they do

    def resolve(self, name: str) -> str:
        """`name` itself when it is a URI or an absolute path, else below the folder, without `.` and `..` parts."""
        if "://" in name or name.startswith("/"):
            return name
        if "./" not in name:
            return self._prefix + name if self._is_literal else storage.join(self._uri, name)
        name, base = posixpath.normpath(name), self._uri
        while name.startswith("../"):
            name, base = name[3:], _parent(base)
        return storage.join(base, name)
