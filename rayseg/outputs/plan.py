"""The plan: every input gets an ordinal, written once, read by ordinal ever after.

    plan/part-00000.parquet    ordinal, uri, size (null: unknown); a million rows, in row groups of 8,192

Planning streams: pages of a listing become row groups, row groups a part in memory, a full part one put. The `PlanInfo`
that comes back is what makes a plan one: whoever stores it (in `job.json`) has committed it. Each part carries the id
of its plan, so that parts which a later, unfinished planning has overwritten are not mistaken for the ones committed.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.errors import ObjectNotFound, StorageError
from rayseg.formats.parts import PLAN_SCHEMA
from rayseg.storage import Entry

PART_ROWS = 1_000_000
GROUP_ROWS = 8192

_ID = "rayseg.plan"
_CACHED_GROUPS = 8


class BrokenPlan(StorageError):
    """A plan part that is not there, not whole, or of another plan."""


@dataclass(frozen=True, slots=True)
class PlanPart:
    """One Parquet object of a plan: ordinals `start` to `start + count` - 1."""

    name: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """A whole plan in a few lines of JSON (by `dataclasses.asdict`).

    `size_bytes_total` leaves out the inputs whose size is unknown, of which there are `sizes_unknown`.
    """

    id: str
    count: int
    size_bytes_total: int
    sizes_unknown: int
    parts: list[PlanPart]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PlanInfo:
        """From what `asdict` made. Raises `KeyError` or `TypeError` for anything else."""
        return cls(**{**record, "parts": [PlanPart(**part) for part in record["parts"]]})


def write_plan(
    out: str,
    pages: Iterable[list[Entry]],
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    part_rows: int = PART_ROWS,
) -> PlanInfo:
    """Write the plan of `pages`, at most `limit` inputs of it, below `out`; parts of an earlier planning are replaced.

    `progress` is called with the count so far after each page. Memory holds one part, compressed.
    Raises what `pages` raises, `StorageError` when a part cannot be written.
    """
    writer = _PlanWriter(out, part_rows)
    for page in _limited(pages, limit):
        writer.add(page)
        if progress:
            progress(writer.count)
    info = writer.finish()
    _remove_others(out, info)
    return info


def read_plan(out: str, info: PlanInfo, start: int, stop: int) -> pa.Table:
    """Ordinals [start, stop) of a plan as a table of `PLAN_SCHEMA`, reading only the row groups that hold them.

    The last few row groups stay in memory, so that neighbours are not read twice. Raises `ValueError` for ordinals the
    plan does not have, `BrokenPlan` for a part that is not there or not this plan's, `StorageError` when unreadable.
    """
    if not 0 <= start <= stop <= info.count:
        raise ValueError(f"ordinals {start} to {stop} asked, the plan has 0 to {info.count}")
    pieces = []
    for part in info.parts:
        low, high = max(start, part.start) - part.start, min(stop, part.start + part.count) - part.start
        for group in range(low // GROUP_ROWS, -(-high // GROUP_ROWS)) if low < high else ():
            table, first = _row_group(_part_uri(out, part.name), info.id, part, group), group * GROUP_ROWS
            begin = max(low - first, 0)
            pieces.append(table.slice(begin, min(high - first, len(table)) - begin))
    return pa.concat_tables(pieces) if pieces else PLAN_SCHEMA.empty_table()


def plan_uris(out: str, info: PlanInfo, ordinals: np.ndarray) -> list[str]:
    """The URI of each of `ordinals` (K,) int64, ascending. Raises as `read_plan`."""
    table = read_plan(out, info, int(ordinals[0]), int(ordinals[-1]) + 1)
    return table["uri"].take(pa.array(ordinals - ordinals[0])).to_pylist()


def iter_plan(out: str, info: PlanInfo, rows: int = GROUP_ROWS) -> Iterator[pa.Table]:
    """The whole plan in order, `rows` rows at a time. Raises as `read_plan`."""
    for start in range(0, info.count, rows):
        yield read_plan(out, info, start, min(start + rows, info.count))


def check_part(out: str, info: PlanInfo, part: PlanPart) -> None:
    """Raise `BrokenPlan` unless `part` is there now, whole, and of this plan; reads its footer only."""
    _read_metadata(_part_uri(out, part.name), info.id, part)


# ---- writing


def _limited(pages: Iterable[list[Entry]], limit: int | None) -> Iterator[list[Entry]]:
    left = limit
    for page in pages:
        if left is None:
            yield page
            continue
        yield page[:left]
        left -= len(page)
        if left <= 0:
            return


class _PlanWriter:
    """Gathers entries into row groups, row groups into parts."""

    def __init__(self, out: str, part_rows: int) -> None:
        self.count = 0
        self._out, self._part_rows, self._id = out, part_rows, uuid.uuid4().hex
        self._waiting: list[Entry] = []
        self._part: tuple[pa.BufferOutputStream, pq.ParquetWriter] | None = None
        self._part_start = self._written = 0  # ordinals: the part's first, the next row group's first
        self._parts: list[PlanPart] = []
        self._size_bytes = self._sizes_unknown = 0

    def add(self, page: list[Entry]) -> None:
        """Take a page; full row groups and parts are written."""
        self._waiting += page
        self.count += len(page)
        while len(self._waiting) >= GROUP_ROWS:
            self._write_group()

    def finish(self) -> PlanInfo:
        """Write what is left."""
        while self._waiting:
            self._write_group()
        self._put_part()
        return PlanInfo(self._id, self.count, self._size_bytes, self._sizes_unknown, self._parts)

    def _write_group(self) -> None:
        rows = min(GROUP_ROWS, self._part_start + self._part_rows - self._written)
        table = _plan_table(self._written, self._waiting[:rows])
        del self._waiting[:rows]
        self._size_bytes += int(table["size"].fill_null(0).to_numpy().sum())
        self._sizes_unknown += table["size"].null_count
        if self._part is None:
            self._part = _parquet_writer()
        self._part[1].write_table(table)
        self._written += len(table)
        if self._written == self._part_start + self._part_rows:
            self._put_part()

    def _put_part(self) -> None:
        if self._part is None:
            return
        sink, parquet = self._part
        parquet.add_key_value_metadata({_ID: self._id})
        parquet.close()
        part = PlanPart(f"part-{len(self._parts):05d}.parquet", self._part_start, self._written - self._part_start)
        storage.write(_part_uri(self._out, part.name), sink.getvalue().to_pybytes())
        self._parts.append(part)
        self._part_start, self._part = self._written, None


def _parquet_writer() -> tuple[pa.BufferOutputStream, pq.ParquetWriter]:
    sink = pa.BufferOutputStream()
    return sink, pq.ParquetWriter(
        sink,
        PLAN_SCHEMA,
        compression="zstd",
        use_dictionary=False,
        write_statistics=["ordinal"],  # pyright: ignore[reportArgumentType]
    )


def _plan_table(start: int, entries: list[Entry]) -> pa.Table:
    uris, sizes = zip(*entries, strict=True)
    size = np.array(sizes, np.int64)
    columns = [pa.array(np.arange(start, start + len(entries))), _strings(uris), pa.array(size, mask=size < 0)]
    return pa.Table.from_arrays(columns, schema=PLAN_SCHEMA)


def _strings(uris: Sequence[str]) -> pa.Array:
    try:
        return pa.array(uris, pa.string())
    except UnicodeEncodeError:  # a file name that is not UTF-8: its row will say that there is no such file
        return pa.array([uri.encode("utf-8", "replace").decode() for uri in uris], pa.string())


def _remove_others(out: str, info: PlanInfo) -> None:
    named = {_part_uri(out, part.name) for part in info.parts}
    for page in storage.list_pages(storage.join(out, "plan")):
        for entry in page:
            if entry.uri not in named:
                storage.delete(entry.uri)


# ---- reading


@functools.lru_cache(maxsize=_CACHED_GROUPS)
def _row_group(uri: str, plan_id: str, part: PlanPart, group: int) -> pa.Table:
    metadata = _metadata(uri, plan_id, part)
    try:
        with storage.open(uri) as file:
            return pq.ParquetFile(file, metadata=metadata).read_row_group(group, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise BrokenPlan(uri, f"row group {group} cannot be read: {error}") from None


@functools.lru_cache(maxsize=_CACHED_GROUPS)
def _metadata(uri: str, plan_id: str, part: PlanPart) -> pq.FileMetaData:
    return _read_metadata(uri, plan_id, part)


def _read_metadata(uri: str, plan_id: str, part: PlanPart) -> pq.FileMetaData:
    """The footer of a plan part, found to be that of `part`."""
    try:
        with storage.open(uri) as file:
            metadata = pq.read_metadata(file)
    except ObjectNotFound:
        raise BrokenPlan(uri, "this part of the plan is gone; start afresh with --overwrite") from None
    except (pa.ArrowException, OSError) as error:
        raise BrokenPlan(uri, f"not a whole Parquet file: {error}; start afresh with --overwrite") from None
    found = (metadata.metadata or {}).get(_ID.encode(), b"").decode("utf-8", "replace")
    if (found, metadata.num_rows) != (plan_id, part.count):
        raise BrokenPlan(
            uri,
            f"expected {part.count} rows of plan {plan_id}, found {metadata.num_rows} of {found or 'none'}; "
            "start afresh with --overwrite",
        )
    return metadata


def _part_uri(out: str, name: str) -> str:
    return storage.join(out, "plan", name)
