"""rayseg's own output: the Parquet that a label run writes, one row per image.

A part is one Parquet object that says everything about itself: its footer carries the ordinals it covers and its
counts, so that thousands of parts are accounted for by reading their last 64 KiB. Rows go from `Instances` to Arrow by
column; no Python object per instance is made.

Shapes: R rows (images), N instances of all rows, K ranges of ordinals.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.errors import StorageError
from rayseg.formats.ordinals import OrdinalBitmap, count_ordinals, decode_ranges, encode_ranges
from rayseg.records import Instances

__all__ = [
    "DATA_SCHEMA",
    "PLAN_SCHEMA",
    "SCHEMA_VERSION",
    "BrokenPart",
    "OrdinalBitmap",
    "PartFooter",
    "RowError",
    "count_rows",
    "parse_footer",
    "part_bytes",
    "read_footer",
    "read_footers",
    "read_part",
    "rows_table",
]

SCHEMA_VERSION = "1"

INSTANCE_TYPE = pa.struct(
    [
        ("category_id", pa.int32()),  # contiguous from 0
        ("category", pa.string()),
        ("score", pa.float32()),
        ("bbox", pa.list_(pa.float32(), 4)),  # x, y, w, h in pixels
        ("area", pa.int64()),  # of the mask, in pixels
        ("rle", pa.string()),  # COCO compressed counts; size is the row's height, width
    ]
)
ERROR_TYPE = pa.struct([("stage", pa.string()), ("kind", pa.string()), ("message", pa.string())])
COUNT_KEYS: tuple[str, ...] = ("rows", "labelled", "empty", "failed", "instances")
DATA_SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("uri", pa.string()),
        ("height", pa.int32()),  # after EXIF rotation; null if the image never decoded
        ("width", pa.int32()),
        ("instances", pa.list_(INSTANCE_TYPE)),  # never null; empty when nothing was found or the image failed
        ("error", ERROR_TYPE),  # null when all went well
    ]
)
PLAN_SCHEMA = pa.schema([("ordinal", pa.int64()), ("uri", pa.string()), ("size", pa.int64())])  # size null: unknown

_OWN_KEYS = {"ARROW:schema", "rayseg.schema_version", "rayseg.ordinals", "rayseg.counts"}
_TAIL_BYTES = 64 << 10
_FOOTER_BYTES_MAX = 256 << 20
_ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = 1 << 16
_DICTIONARY = [f"instances.list.element.{name}" for name in ("category_id", "category")] + ["error.stage", "error.kind"]


class BrokenPart(StorageError):
    """An object under `data/` that is no whole part of a label run: truncated, foreign, or self-contradicting."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Why an image has no instances: the stage that failed, what kind of fault, and the size if it did decode."""

    stage: str
    kind: str
    message: str
    image_hw: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PartFooter:
    """What a part says of itself.

    ranges    (K, 2) int64, the ordinals it covers, half open and ascending
    counts    `rows`, `labelled`, `empty`, `failed`, `instances`
    metadata  the other text its writer put there, such as `rayseg.model` and `rayseg.spec`
    """

    name: str
    ranges: np.ndarray
    counts: dict[str, int]
    size_bytes: int
    metadata: dict[str, str]

    @property
    def rows(self) -> int:
        """Rows, one per ordinal."""
        return self.counts["rows"]


# ---- rows


def rows_table(
    ordinals: Sequence[int] | np.ndarray | pa.Array | pa.ChunkedArray,
    uris: Sequence[str] | pa.Array | pa.ChunkedArray,
    results: Sequence[Instances | RowError],
    category_names: Sequence[str],
) -> pa.Table:
    """R images' results as a table of `DATA_SCHEMA`, in the order given.

    `category_names` (C,) are the names of classes 0..C-1. Boxes become xywh in float32, `area` is the mask's.
    """
    found = [result for result in results if isinstance(result, Instances)]
    lengths = [len(result) if isinstance(result, Instances) else 0 for result in results]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    height, width = _sizes(results)
    columns = [
        _column(ordinals, pa.int64()),
        _column(uris, pa.string()),
        height,
        width,
        pa.ListArray.from_arrays(offsets, _instances(found, category_names), type=DATA_SCHEMA.field("instances").type),
        _errors(results),
    ]
    return pa.Table.from_arrays(columns, schema=DATA_SCHEMA)


def count_rows(table: pa.Table) -> dict[str, int]:
    """`rows`, `labelled`, `empty`, `failed` and `instances` of a table of `DATA_SCHEMA`."""
    failed = table["error"].is_valid().to_numpy()
    lengths = np.concatenate([np.empty(0, np.int32), *(np.diff(chunk.offsets) for chunk in table["instances"].chunks)])
    return {
        "rows": len(table),
        "labelled": int((~failed & (lengths > 0)).sum()),
        "empty": int((~failed & (lengths == 0)).sum()),
        "failed": int(failed.sum()),
        "instances": int(lengths.sum(dtype=np.int64)),
    }


def _column(values: Sequence[int] | Sequence[str] | np.ndarray | pa.Array | pa.ChunkedArray, kind: pa.DataType):
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)


def _sizes(results: Sequence[Instances | RowError]) -> tuple[pa.Array, pa.Array]:
    sizes = [result.image_hw or (None, None) for result in results]
    return pa.array([h for h, _ in sizes], pa.int32()), pa.array([w for _, w in sizes], pa.int32())


def _instances(found: Sequence[Instances], category_names: Sequence[str]) -> pa.StructArray:
    """All instances of all images, one after the other: (N,) of `INSTANCE_TYPE`."""
    classes = _joined([one.classes for one in found], (0,), np.int32)
    scores = _joined([one.scores for one in found], (0,), np.float32)
    boxes = _joined([one.boxes_xyxy for one in found], (0, 4), np.float32)  # (N, 4), a copy: xywh is made in place
    boxes[:, 2:] -= boxes[:, :2]
    areas = _joined([one.rles.areas() for one in found], (0,), np.int64)
    columns = [
        pa.array(classes),
        pa.array(category_names, pa.string()).take(pa.array(classes)),
        pa.array(scores),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), type=INSTANCE_TYPE.field("bbox").type),
        pa.array(areas),
        _rle_strings(found),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(INSTANCE_TYPE))


def _rle_strings(found: Sequence[Instances]) -> pa.StringArray:
    """The counts of all RLEs as (N,) strings: the buffers are joined, no string is made on the way."""
    counts = _joined([one.rles.counts[one.rles.offsets[0] : one.rles.offsets[-1]] for one in found], (0,), np.uint8)
    lengths = _joined([np.diff(one.rles.offsets) for one in found], (0,), np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} bytes of RLE in one table, at most 2 GiB fit: use fewer rows")
    buffers = pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(counts)
    return pa.StringArray.from_buffers(len(lengths), *buffers)


def _joined(arrays: Sequence[np.ndarray], empty_shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.empty(empty_shape, kind), *arrays], dtype=kind, casting="same_kind")


def _errors(results: Sequence[Instances | RowError]) -> pa.StructArray:
    errors = [result if isinstance(result, RowError) else None for result in results]
    columns = [
        pa.array([error and _utf8(getattr(error, name)) for error in errors], pa.string()) for name in ERROR_TYPE.names
    ]
    mask = pa.array([error is None for error in errors], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(ERROR_TYPE), mask=mask)


def _utf8(text: str) -> str:
    """`text` without lone surrogates, which a file name that is not UTF-8 brings along and Arrow refuses."""
    return text.encode("utf-8", "replace").decode("utf-8")


# ---- parts


def part_bytes(table: pa.Table, *, ordinals: np.ndarray, metadata: Mapping[str, str]) -> bytes:
    """A table of `DATA_SCHEMA` as one part. `ordinals` (R,) int64 are those of its rows, strictly ascending.

    The footer carries `metadata` as it is (`rayseg.model`, `rayseg.spec`), and `rayseg.schema_version`,
    `rayseg.ordinals` and `rayseg.counts`. Raises `ValueError` for ordinals that are not the rows' or do not ascend.
    """
    if not np.array_equal(ordinals, table["ordinal"].to_numpy()):
        raise ValueError("ordinals differ from those of the table's rows")
    footer = {
        **metadata,
        "rayseg.schema_version": SCHEMA_VERSION,
        "rayseg.ordinals": encode_ranges(ordinals),
        "rayseg.counts": json.dumps(count_rows(table)),
    }
    rows = max(1, len(table) * _ROW_GROUP_BYTES // max(1, table.nbytes))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        DATA_SCHEMA,
        compression="zstd",
        use_dictionary=_DICTIONARY,  # pyright: ignore[reportArgumentType]
        write_statistics=["ordinal", "uri", "height", "width"],  # pyright: ignore[reportArgumentType]
        write_page_index=True,
    ) as writer:
        writer.write_table(table, row_group_size=min(rows, _ROW_GROUP_ROWS))
        writer.add_key_value_metadata(footer)
    return sink.getvalue().to_pybytes()


def parse_footer(uri: str, data: bytes, size_bytes: int | None = None) -> PartFooter:
    """The footer of a part that is in memory, or whose end is, of `size_bytes` in all.

    Raises `BrokenPart` with `uri` when `data` does not end as a part does, or the footer contradicts itself.
    """
    size_bytes = len(data) if size_bytes is None else size_bytes
    needed = int.from_bytes(data[-8:-4], "little") + 8
    if data[-4:] != b"PAR1" or needed > len(data):
        raise BrokenPart(uri, f"is not a whole Parquet file: its {size_bytes} bytes do not end in a footer")
    try:
        parquet = pq.read_metadata(pa.BufferReader(data[-needed:]))
        texts = {key.decode(): value.decode() for key, value in (parquet.metadata or {}).items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenPart(uri, f"its Parquet footer cannot be read: {error}") from None
    ranges, counts = _claims(uri, texts)
    if not count_ordinals(ranges) == counts["rows"] == parquet.num_rows:
        claimed = f"{count_ordinals(ranges)} ordinals and counts {counts}"
        raise BrokenPart(uri, f"its footer contradicts itself: {parquet.num_rows} rows, {claimed}")
    metadata = {key: text for key, text in texts.items() if key not in _OWN_KEYS}
    return PartFooter(uri.rpartition("/")[2], ranges, counts, size_bytes, metadata)


def read_footer(uri: str) -> PartFooter:
    """What the part at `uri` says of itself, from its last 64 KiB alone; a second read when its footer is longer.

    Raises `BrokenPart` when the object is no whole part, `StorageError` when it cannot be read.
    """
    with storage.open(uri) as file:
        size_bytes = file.seek(0, io.SEEK_END)
        tail = _read_end(file, size_bytes, _TAIL_BYTES)
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == b"PAR1" and len(tail) < needed <= _FOOTER_BYTES_MAX:
            tail = _read_end(file, size_bytes, needed)
    return parse_footer(uri, tail, size_bytes)


def read_part(uri: str) -> pa.Table:
    """All rows of a part. Raises `BrokenPart` when it is none, `StorageError` when it cannot be read."""
    data = storage.read(uri)
    parse_footer(uri, data)
    try:
        return pq.read_table(pa.BufferReader(data), schema=DATA_SCHEMA).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise BrokenPart(uri, f"its rows cannot be read: {error}") from None


def read_footers(uris: Iterable[str], threads: int = 32) -> Iterator[PartFooter | BrokenPart]:
    """`read_footer` of each, in the order given, `threads` at a time; for a broken part the error comes in its place.

    Raises `StorageError` at the first that cannot be read.
    """
    waiting: deque[Future[PartFooter | BrokenPart]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="rayseg-footer") as pool:
        try:
            for uri in uris:
                waiting.append(pool.submit(_footer_or_fault, uri))
                if len(waiting) >= 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _footer_or_fault(uri: str) -> PartFooter | BrokenPart:
    try:
        return read_footer(uri)
    except BrokenPart as error:
        return error


def _read_end(file: BinaryIO, size_bytes: int, length: int) -> bytes:
    file.seek(max(0, size_bytes - length))
    return file.read(length)


def _claims(uri: str, texts: Mapping[str, str]) -> tuple[np.ndarray, dict[str, int]]:
    """Ranges and counts as a footer states them."""
    version = texts.get("rayseg.schema_version")
    if version != SCHEMA_VERSION:
        found = "none" if version is None else f"version {version}"
        raise BrokenPart(uri, f"expected rayseg.schema_version {SCHEMA_VERSION} in its footer, found {found}")
    try:
        counts = json.loads(texts["rayseg.counts"])
        return decode_ranges(texts["rayseg.ordinals"]), {key: int(counts[key]) for key in COUNT_KEYS}
    except (KeyError, ValueError, TypeError) as error:
        raise BrokenPart(uri, f"its footer does not say which ordinals it covers: {error!r}") from None
