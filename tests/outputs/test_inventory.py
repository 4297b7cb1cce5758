"""S3 Inventories, CSV and Parquet, as AWS writes them: which objects are inputs, and what is said of broken ones."""

import csv
import gzip
import io
import json
from collections import Counter
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.errors import StorageError, UsageError
from rayseg.outputs.inputs import plan_inputs
from rayseg.outputs.inventory import read_manifest

CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, StorageClass"
ROWS = [
    # key, latest, delete marker, size, class
    ("2026/a b+c é%20.jpg", True, False, 11, "STANDARD"),
    ("2026/x.JPEG", True, False, 12, "STANDARD_IA"),
    ("2026/old.jpg", False, False, 13, "STANDARD"),
    ("2026/gone.jpg", True, True, None, None),
    ("2026/frozen.jpg", True, False, 14, "DEEP_ARCHIVE"),
    ("2026/cool.jpg", True, False, 15, "GLACIER_IR"),
    ("2026/notes.json", True, False, 16, "STANDARD"),
    (".git/a.jpg", True, False, 17, "STANDARD"),
    ("folder/", True, False, 0, "STANDARD"),
    ("other/no_extension", True, False, 18, "STANDARD"),
]
WANTED = [("2026/a b+c é%20.jpg", 11), ("2026/x.JPEG", 12), ("2026/cool.jpg", 15), ("other/no_extension", 18)]
SKIPPED = {
    "older version": 1,
    "delete marker": 1,
    "in an archive": 1,
    ".json": 1,
    "in a hidden folder": 1,
    "folder marker": 1,
}


def csv_bytes(rows):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for key, latest, deleted, size, kind in rows:
        flags = [str(latest).lower(), str(deleted).lower()]
        writer.writerow(["photos", quote_plus(key, safe="/"), "v1", *flags, "" if size is None else size, kind or ""])
    return gzip.compress(text.getvalue().encode())


def parquet_bytes(rows):
    keys, latest, deleted, sizes, kinds = zip(*rows, strict=True)
    columns = {
        "bucket": ["photos"] * len(rows),
        "key": keys,
        "version_id": ["v1"] * len(rows),
        "is_latest": latest,
        "is_delete_marker": deleted,
        "size": pa.array(sizes, pa.int64()),
        "storage_class": pa.array(kinds, pa.string()),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def write_inventory(put, kind, contents, **changes):
    """An inventory below `put`'s root as AWS lays it out; the manifest's name."""
    names = [
        f"inventory/photos/daily/data/{i}.{'csv.gz' if kind == 'CSV' else 'parquet'}" for i in range(len(contents))
    ]
    for name, data in zip(names, contents, strict=True):
        put(name, data)
    manifest = {
        "sourceBucket": "photos", "destinationBucket": "arn:aws:s3:::lists", "version": "2016-11-30",
        "creationTimestamp": "1764057600000", "fileFormat": kind,
        "fileSchema": CSV_SCHEMA if kind == "CSV" else "message s3.inventory { required binary bucket (UTF8); }",
        "files": [{"key": name, "size": len(data), "MD5checksum": "0" * 32} for name, data in zip(names, contents, strict=True)],
    }  # fmt: skip
    where = "inventory/photos/daily/2026-11-25T01-00Z/manifest.json"
    put(where, json.dumps({key: value for key, value in (manifest | changes).items() if value is not None}).encode())
    return where


@pytest.fixture
def local(tmp_path):
    def put(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    put.uri = lambda name: str(tmp_path / name)
    return put


def found(inputs):
    return [(entry.uri.removeprefix("s3://photos/"), entry.size_bytes) for page in inputs.pages() for entry in page]


@pytest.mark.parametrize(("kind", "data"), [("CSV", csv_bytes), ("Parquet", parquet_bytes)])
def test_a_copied_inventory(local, kind, data):
    manifest = write_inventory(local, kind, [data(ROWS[:3]), data(ROWS[3:])])
    inputs = plan_inputs(local.uri(manifest))
    assert inputs.kind == "inventory"
    assert found(inputs) == WANTED
    assert inputs.skipped == SKIPPED


@pytest.mark.parametrize(("kind", "data"), [("CSV", csv_bytes), ("Parquet", parquet_bytes)])
def test_an_inventory_where_aws_puts_it(seaweed, bucket, kind, data):
    name = bucket.removeprefix("s3://")

    def put(key, body):
        seaweed.client().put_object(Bucket=name, Key=key, Body=body)

    manifest = write_inventory(put, kind, [data(ROWS)], destinationBucket=f"arn:aws:s3:::{name}")
    assert found(plan_inputs(f"{bucket}/{manifest}")) == WANTED


def test_only_what_lies_below_the_prefix_that_is_asked_for(local):
    manifest = write_inventory(local, "CSV", [csv_bytes(ROWS)])
    inputs = plan_inputs(local.uri(manifest), root="s3://photos/2026/")
    assert found(inputs) == WANTED[:3]
    assert inputs.skipped["elsewhere"] == 3
    with pytest.raises(UsageError, match="column"):
        plan_inputs(local.uri(manifest), column="key")


def test_the_least_that_an_inventory_says(local):
    rows = gzip.compress(b'"photos","a.jpg"\n"photos","b%2Bc.jpg"\n')
    manifest = write_inventory(local, "CSV", [rows], fileSchema="Bucket, Key")
    assert found(plan_inputs(local.uri(manifest))) == [("a.jpg", -1), ("b+c.jpg", -1)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fileFormat": "ORC"}, "an inventory as ORC; expected CSV or Parquet"),
        ({"fileSchema": "Bucket, Size"}, "its fileSchema has no key"),
        ({"files": None}, "expected the manifest of an S3 Inventory, found no 'files'"),
        ({"files": [1]}, "another kind of JSON"),
    ],
)
def test_what_is_no_inventory(local, changes, words):
    manifest = local.uri(write_inventory(local, "CSV", [csv_bytes(ROWS)], **changes))
    with pytest.raises(StorageError, match=words):
        read_manifest(manifest)


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\x00" * 100])
def test_a_broken_file_is_named(local, kind, spoil):
    data = csv_bytes(ROWS * 50) if kind == "CSV" else parquet_bytes(ROWS * 50)
    manifest = write_inventory(local, kind, [spoil(data)])
    with pytest.raises(StorageError, match=r"data/0\.(csv\.gz|parquet)"):
        found(plan_inputs(local.uri(manifest)))


KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@given(st.lists(KEYS, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_both_formats_list_the_same_objects(tmp_path_factory, keys):
    rows = [(f"k/{key}", True, False, i, "STANDARD") for i, key in enumerate(keys)]
    listed, skipped = [], []
    for kind, data in (("CSV", csv_bytes(rows)), ("Parquet", parquet_bytes(rows))):
        folder = tmp_path_factory.mktemp("inventory")

        def put(name, body, folder=folder):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

        inputs = plan_inputs(str(folder / write_inventory(put, kind, [data])))
        try:
            listed.append(found(inputs))
        except StorageError:  # all of them are sidecars
            listed.append([])
        skipped.append(Counter(inputs.skipped))
    assert listed[0] == listed[1] and skipped[0] == skipped[1]
    assert len(listed[0]) + skipped[0].total() == len(keys)
