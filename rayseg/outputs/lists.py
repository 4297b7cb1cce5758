"""Lists of images as people keep them: text, CSV, Parquet. Streamed; a malformed one is an error with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.errors import StorageError, UsageError
from rayseg.storage import Entry

URI_COLUMNS = ("uri", "image", "path", "file_name", "filename", "image_uri", "image_path", "file")
SIZE_COLUMNS = ("size_bytes", "size")

_READ_BYTES = 1 << 20
_BATCH_ROWS = 8192
_LINE_BYTES_MAX = 16 << 20


class NotAList(StorageError):
    """A list that cannot be read as one; the message gives the line."""


def text_uris(uri: str) -> Iterator[str]:
    """The lines of a text list, without blank ones and those that begin with `#`. Raises `NotAList`."""
    with storage.open(uri) as file:
        for line in _lines(file, uri):
            text = line.strip()
            if text and not text.startswith("#"):
                yield text


def csv_uris(uri: str, column: str | None) -> Iterator[str]:
    """The values of one column of a CSV, which may be cut by commas, semicolons or tabs; empty values are passed over.

    Raises `UsageError` for a column that is not there, `NotAList` for a malformed file.
    """
    with storage.open(uri) as file:
        lines = _lines(file, uri)
        header = next(lines, "")
        delimiter = max(",;\t", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
        index = names.index(_pick(uri, names, column))
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        while (row := _next_row(rows, uri)) is not None:
            if row and len(row) != len(names):
                raise NotAList(uri, f"line {rows.line_num + 1}: expected {len(names)} columns, found {len(row)}")
            if row and row[index]:
                yield row[index]


def parquet_entries(
    uri: str, column: str | None, check_read: Callable[[str], object] = lambda uri: None
) -> Iterator[list[Entry]]:
    """Pages of one column of a Parquet file, or of all in a folder; sizes from `SIZE_COLUMNS` where there is one.

    Nulls and empty values are passed over. `check_read` is called with each file, and may raise. Raises `UsageError` for a
    column that is not there or holds no strings, `NotAList` for a file that is not Parquet.
    """
    for file_uri in _parquet_files(uri):
        check_read(file_uri)
        with storage.open(file_uri) as file:
            try:
                yield from _parquet_pages(pq.ParquetFile(file), file_uri, column)
            except pa.ArrowException as error:
                raise NotAList(file_uri, f"not a Parquet list: {error}") from None


def _parquet_files(uri: str) -> list[str]:
    if storage.exists(uri):
        return [uri]
    listed = [entry.uri for page in storage.list_pages(uri) for entry in page]
    found = sorted(one for one in listed if one.endswith((".parquet", ".pq")))
    if not found:
        raise NotAList(uri, "neither a Parquet file nor a folder of them")
    return found


def _parquet_pages(parquet: pq.ParquetFile, uri: str, column: str | None) -> Iterator[list[Entry]]:
    schema = parquet.schema_arrow
    name = _pick(uri, schema.names, column)
    kind = schema.field(name).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
        raise UsageError(f"column: {name} of {uri} holds {kind}, expected strings")
    size = next((s for s in SIZE_COLUMNS if s in schema.names and pa.types.is_integer(schema.field(s).type)), None)
    columns = [name, size] if size else [name]
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
        uris = batch.column(name).to_pylist()
        sizes = batch.column(size).fill_null(-1).to_pylist() if size else [-1] * len(uris)
        yield [Entry(one, size_bytes) for one, size_bytes in zip(uris, sizes, strict=True) if one]


def _pick(uri: str, names: Sequence[str], column: str | None) -> str:
    """The column to read: `column`, or the first of `URI_COLUMNS` that is there in any case."""
    if column is not None:
        if column in names:
            return column
        raise UsageError(f"column: no {column!r} in {uri}; it has {', '.join(names) or 'none'}")
    folded = {name.strip().lower(): name for name in reversed(names)}
    for wanted in URI_COLUMNS:
        if wanted in folded:
            return folded[wanted]
    raise UsageError(
        f"column: none of {', '.join(URI_COLUMNS)} in {uri}; say which of its columns holds the images: "
        f"{', '.join(names)[:500] or 'it has none'}"
    )


def _next_row(rows: csv.Reader, uri: str) -> list[str] | None:  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return next(rows, None)
    except csv.Error as error:
        raise NotAList(uri, f"line {rows.line_num + 1}: malformed CSV: {error}") from None


def _lines(file: BinaryIO, uri: str) -> Iterator[str]:
    """The lines of a UTF-8 text, each with its newline. Raises `NotAList` for other bytes."""
    lines_before, rest, encoding = 0, b"", "utf-8-sig"
    while True:
        data = file.read(_READ_BYTES)
        whole, newline, rest = (rest + data).rpartition(b"\n") if data else (rest, b"", b"")
        try:
            text = (whole + newline).decode(encoding)
        except UnicodeDecodeError as error:
            line = lines_before + whole.count(b"\n", 0, error.start) + 1
            raise NotAList(uri, f"line {line}: holds bytes that are not UTF-8") from None
        yield from io.StringIO(text, newline="\n")
        if not data:
            return
        if len(rest) > _LINE_BYTES_MAX:
            raise NotAList(uri, f"line {lines_before + text.count(chr(10)) + 1}: endless, this is no list of images")
        if newline:
            lines_before, encoding = lines_before + text.count("\n"), "utf-8"
