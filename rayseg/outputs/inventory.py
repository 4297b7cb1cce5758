"""S3 Inventory as a listing: `manifest.json` and the CSV or Parquet files it names, so that no bucket need be listed.

AWS writes an inventory once a day or week: a manifest with the columns (`fileSchema`) and the data files. Keys in CSV files are
URL-encoded, a space as `+`; in Parquet they are as they are. Versions that are not the latest, delete markers, and objects in
an archive that has to be restored before it can be read are left out, and counted.
"""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from rayseg import storage
from rayseg.outputs.lists import NotAList
from rayseg.storage import Entry

MANIFEST = "manifest.json"
SkipReason = Callable[[str], str | None]

_BATCH_ROWS = 8192
_CSV_BLOCK_BYTES = 4 << 20
_MANIFEST_BYTES_MAX = 256 << 20
_ARN = "arn:aws"
_WANTED = ("bucket", "key", "size", "islatest", "isdeletemarker", "storageclass")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_NO_SUSPICION = re.compile(r"^[\w/-]*[\w-]\.(jpe?g|png|webp|tiff?)$", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Inventory:
    """A manifest: the files as URIs, and the columns of a CSV, None for Parquet, whose files know their own."""

    uri: str
    files: list[str]
    columns: list[str] | None


def read_manifest(uri: str) -> Inventory:
    """The manifest at `uri`. Raises `NotAList` for anything else, naming what is missing, `StorageError` as `storage.read`."""
    data = storage.read(uri, max_bytes=_MANIFEST_BYTES_MAX)
    try:
        found = json.loads(data)
        kind, schema = str(found["fileFormat"]), str(found["fileSchema"])
        keys = [str(file["key"]) for file in found["files"]]
        bucket = str(found["destinationBucket"])
    except (ValueError, KeyError, TypeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else "another kind of JSON"
        raise NotAList(
            uri, f"expected the manifest of an S3 Inventory, found {missing}; give a COCO file another name"
        ) from None
    if kind.upper() not in ("CSV", "PARQUET"):
        raise NotAList(
            uri, f"an inventory as {kind}; expected CSV or Parquet, which the inventory's configuration chooses"
        )
    columns = [_plain(name) for name in schema.split(",")] if kind.upper() == "CSV" else None
    for name in ("bucket", "key"):
        if columns is not None and name not in columns:
            raise NotAList(uri, f"its fileSchema has no {name}: {schema}")
    return Inventory(uri, _located(uri, bucket, keys), columns)


def inventory_pages(
    uri: str,
    prefix: str | None,
    skip_reason: SkipReason,
    skipped: Counter[str],
    check_read: Callable[[str], object] = lambda uri: None,
) -> Iterator[list[Entry]]:
    """Pages of the objects that the inventory at `uri` lists, only those below `prefix` where one is given.

    `skip_reason` is asked about each key that may be no image, `check_read` about each file that the manifest names, before it
    is read: what it raises ends the listing. Raises as `read_manifest`, and `NotAList` for a broken file.
    """
    inventory = read_manifest(uri)
    below = None if prefix is None else prefix.rstrip("/") + "/"
    for file in inventory.files:
        check_read(file)
        for batch in _batches(inventory, file):
            yield _entries(batch, below, skip_reason, skipped)


def _located(uri: str, bucket: str, keys: list[str]) -> list[str]:
    """Where the files are: in the destination bucket, or, when the inventory was copied, at the same place beside it."""
    bucket = bucket.rpartition(":")[2] if bucket.startswith(_ARN) else bucket
    if uri.startswith(f"s3://{bucket}/"):
        return [f"s3://{bucket}/{key}" for key in keys]
    folder = uri.rpartition("/")[0] or "."
    names = [posixpath.basename(key) for key in keys]
    above = folder.rpartition("/")[0]
    for place in (f"{above}/data", f"{folder}/data", folder):
        if names and storage.exists(storage.join(place, names[0])):
            return [storage.join(place, name) for name in names]
    return [f"s3://{bucket}/{key}" for key in keys]


def _batches(inventory: Inventory, file_uri: str) -> Iterator[pa.RecordBatch]:
    """Batches with the columns of `_WANTED` that there are, keys decoded."""
    with storage.open(file_uri) as file:
        try:
            yield from _csv_batches(file, inventory.columns) if inventory.columns else _parquet_batches(file, file_uri)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise NotAList(file_uri, f"not a whole {'CSV' if inventory.columns else 'Parquet'} file: {error}") from None


def _parquet_batches(file: Any, file_uri: str) -> Iterator[pa.RecordBatch]:
    parquet = pq.ParquetFile(file)
    names = {_plain(name): name for name in parquet.schema_arrow.names}
    if "bucket" not in names or "key" not in names:
        raise NotAList(file_uri, f"expected columns bucket and key, found {', '.join(parquet.schema_arrow.names)}")
    wanted = [names[name] for name in _WANTED if name in names]
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
        yield batch.rename_columns([_plain(name) for name in batch.schema.names])


def _csv_batches(file: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A gzip file without a header, every value in quotes."""
    stream = pa.CompressedInputStream(pa.PythonFile(file), "gzip")
    read = csv.ReadOptions(column_names=columns, block_size=_CSV_BLOCK_BYTES, use_threads=False)
    wanted = [name for name in _WANTED if name in columns]
    types = dict.fromkeys(wanted, pa.string()) | ({"size": pa.int64()} if "size" in wanted else {})
    convert = csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=False)
    for block in csv.open_csv(stream, read, csv.ParseOptions(newlines_in_values=True), convert):
        keys = [unquote_plus(key) if "%" in key or "+" in key else key for key in block.column("key").to_pylist()]
        whole = block.set_column(block.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))
        for start in range(0, len(whole), _BATCH_ROWS):
            yield whole.slice(start, _BATCH_ROWS)


def _entries(batch: pa.RecordBatch, below: str | None, skip_reason: SkipReason, skipped: Counter[str]) -> list[Entry]:
    batch = _left(batch, skipped)
    names = pc.binary_join_element_wise("s3:/", batch.column("bucket"), batch.column("key"), "/").to_pylist()
    sizes = batch.column("size").fill_null(-1).to_pylist() if "size" in batch.schema.names else [-1] * len(names)
    kept = []
    for uri, key, size_bytes in zip(names, batch.column("key").to_pylist(), sizes, strict=True):
        if below is not None and not uri.startswith(below):
            skipped["elsewhere"] += 1
        elif not _NO_SUSPICION.match(key) and (reason := skip_reason(key)) is not None:
            skipped[reason] += 1
        else:
            kept.append(Entry(uri, size_bytes))
    return kept


def _left(batch: pa.RecordBatch, skipped: Counter[str]) -> pa.RecordBatch:
    """The rows that are objects which can be read now."""
    for name, bad, what in (
        ("islatest", ("false",), "older version"),
        ("isdeletemarker", ("true",), "delete marker"),
        ("storageclass", _ARCHIVES, "in an archive"),
    ):
        if name not in batch.schema.names:
            continue
        values = batch.column(name)
        values = values.cast(pa.string()) if not pa.types.is_string(values.type) else values
        values = values if name == "storageclass" else pc.utf8_lower(values)
        out = pc.fill_null(pc.is_in(values, pa.array(bad)), False)
        if count := pc.sum(out).as_py():
            skipped[what] += count
            batch = batch.filter(pc.invert(out))
    return batch


def _plain(name: str) -> str:
    """`IsLatest` and `is_latest` are one column."""
    return name.strip().lower().replace("_", "")
