"""What storage promises, on a real S3 server and on the local file system alike."""

from __future__ import annotations

import io
import os
import pickle
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seaweed import Seaweed

from rayseg import storage
from rayseg.errors import Conflict, ObjectNotFound, StorageError, Unreachable, UnsupportedScheme
from rayseg.storage import arrow, local, s3

ODD_NAMES = [
    "a b",
    "a b#c?d%20.jpg",
    "p+q",
    "x%2Fy",
    "ü/ñ.jpg",
    "日本",
    "😀",
    "&<>\"'",
    "[1].jpg",
    "~t",
    "a=b;c,d@e:f!$()",
]


@pytest.fixture(scope="module")
def shared_bucket(seaweed: Seaweed) -> str:
    """One bucket that has been written to: the first writes to a new one take this server up to seconds."""
    seaweed.make_bucket("shared")
    seaweed.client().put_object(Bucket="shared", Key="warm", Body=b"x" * 100_000)
    return "s3://shared"


@pytest.fixture(params=["s3", "path", "file"])
def base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A fresh, empty place to keep things, in each form of URI; its name needs percent-encoding."""
    if request.param == "s3":
        for name, value in request.getfixturevalue("seaweed").env.items():
            monkeypatch.setenv(name, value)
        storage.reset()
        return storage.join(request.getfixturevalue("shared_bucket"), f"a place {uuid.uuid4().hex}")
    folder = tmp_path / "a place"
    return str(folder) if request.param == "path" else folder.as_uri()


def listed(prefix: str) -> list[str]:
    """The names below `prefix` (plain or percent-encoded as it is), each without it."""
    entries = [entry for page in storage.list_pages(prefix) for entry in page]
    assert all(entry.uri.startswith(prefix + "/") for entry in entries)
    return [entry.uri[len(prefix) + 1 :] for entry in entries]


def test_bytes_come_back_under_odd_names(base: str):
    for name in ODD_NAMES:
        uri = storage.join(base, name)
        assert not storage.exists(uri)
        storage.write(uri, name.encode())
    for name in ODD_NAMES:
        uri = storage.join(base, name)
        assert storage.read(uri) == name.encode()
        assert storage.size(uri) == len(name.encode())
        assert storage.exists(uri)
    entries = [entry for page in storage.list_pages(base) for entry in page]
    assert {entry.uri for entry in entries} == {storage.join(base, name) for name in ODD_NAMES}
    assert {storage.read(entry.uri) for entry in entries} == {name.encode() for name in ODD_NAMES}
    assert all(entry.size_bytes == storage.size(entry.uri) for entry in entries)


def test_the_literal_key_is_what_the_server_has(bucket: str, seaweed: Seaweed):
    storage.write(f"{bucket}/a b#c?d%20.jpg", b"1")
    seen = seaweed.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert [item["Key"] for item in seen] == ["a b#c?d%20.jpg"]


def test_local_names_are_literal_and_file_uris_decoded(tmp_path: Path):
    storage.write(f"{tmp_path}/a%20b", b"literal")
    storage.write(f"file://{tmp_path}/a%20b", b"decoded")
    assert (tmp_path / "a%20b").read_bytes() == b"literal"
    assert (tmp_path / "a b").read_bytes() == b"decoded"


def test_a_prefix_is_a_folder_unless_it_is_an_object(base: str):
    for name in ["photos/a.jpg", "photos/sub/b.jpg", "photos2/x.jpg", "photos.txt", "photos-3/y.jpg"]:
        storage.write(storage.join(base, name), b"1")
    assert listed(storage.join(base, "photos")) == ["a.jpg", "sub/b.jpg"]
    assert [list(page) for page in storage.list_pages(storage.join(base, "photos.txt"))] == [
        [storage.Entry(storage.join(base, "photos.txt"), 1)]
    ]
    trailing = [entry.uri for page in storage.list_pages(storage.join(base, "photos") + "/") for entry in page]
    assert trailing == [storage.join(base, "photos", "a.jpg"), storage.join(base, "photos", "sub/b.jpg")]


def test_long_listings_come_in_pages(base: str, monkeypatch: pytest.MonkeyPatch):
    for backend in (s3, local):
        monkeypatch.setattr(backend, "PAGE_ENTRIES", 4)
    names = [f"{i % 3}/{i:05}" for i in range(10)]
    for name in names:
        storage.write(storage.join(base, name), b"")
    assert [len(page) for page in storage.list_pages(base)] == [4, 4, 2]
    assert listed(base) == sorted(names)


def test_glob(base: str):
    for name in ["a/1.jpg", "a/2.png", "a/b/3.jpg", "c/4.jpg", "5.jpg", "a/[6].jpg"]:
        storage.write(storage.join(base, name), b"1")

    def found(pattern: str) -> list[str]:
        return sorted(e.uri[len(base) + 1 :] for page in storage.glob_pages(f"{base}/{pattern}") for e in page)

    bracket = storage.join(base, "a/[6].jpg")[len(base) + 1 :]
    assert found("*.jpg") == ["5.jpg"]
    assert found("a/*.jpg") == sorted(["a/1.jpg", bracket])
    assert found("*/?.jpg") == ["a/1.jpg", "c/4.jpg"]
    assert found("a/[!1].*") == ["a/2.png"]
    assert found("**/*.jpg") == sorted(["5.jpg", "a/1.jpg", bracket, "a/b/3.jpg", "c/4.jpg"])
    assert found("a/**") == sorted(["a/1.jpg", "a/2.png", bracket, "a/b/3.jpg"])
    assert found("[a-b]/**/3.jpg") == ["a/b/3.jpg"]
    assert found("a/1.jpg") == ["a/1.jpg"]
    assert found("a/9*") == []


@given(data=st.binary(max_size=40), start=st.integers(-50, 50), length=st.integers(0, 50))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_are_slices(base: str, data: bytes, start: int, length: int):
    uri = storage.join(base, "ranged")
    storage.write(uri, data)
    expected = data[start if start >= 0 else max(0, len(data) + start) :][:length]
    assert storage.read_range(uri, start, length) == expected


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_open_reads_like_a_local_file(base: str, data: st.DataObject):
    content = np.random.default_rng(0).bytes(200_000)
    uri = storage.join(base, "opened")
    if not storage.exists(uri):
        storage.write(uri, content)
    reference = io.BytesIO(content)
    with storage.open(uri) as file:
        for _ in range(6):
            seek = data.draw(st.tuples(st.integers(-250_000, 250_000), st.sampled_from([0, 1, 2])))
            length = data.draw(st.sampled_from([-1, 0, 1, 100, 70_000, 300_000]))
            target = seek[0] + (0, reference.tell(), len(content))[seek[1]]
            if target >= 0:
                assert file.seek(*seek) == reference.seek(*seek)
            assert file.read(length) == reference.read(length)
            assert file.tell() == reference.tell()


def test_parquet_reads_through_open(base: str):
    table = pa.table({"x": np.arange(100_000), "y": np.random.default_rng(1).random(100_000)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10_000)
    uri = storage.join(base, "table.parquet")
    storage.write(uri, buffer.getvalue())
    with storage.open(uri) as file:
        assert pq.ParquetFile(file).read().equals(table)
    with storage.open(uri) as file:
        assert pq.ParquetFile(file).read_row_group(3, columns=["x"]).column("x").to_pylist() == [*range(30_000, 40_000)]


def test_an_empty_object_is_an_object(base: str):
    uri = storage.join(base, "empty")
    storage.write(uri, b"")
    assert storage.read(uri) == storage.read_range(uri, -5, 5) == b""
    with storage.open(uri) as file:
        assert file.read() == b""
    assert listed(base) == ["empty"]


def test_the_byte_limit_names_both_sizes(base: str):
    uri = storage.join(base, "big")
    storage.write(uri, b"x" * 1001)
    assert len(storage.read(uri, max_bytes=1001)) == 1001
    with pytest.raises(StorageError, match=r"big: 1001 bytes, over the limit of 1000 bytes"):
        storage.read(uri, max_bytes=1000)


@pytest.mark.parametrize(
    "verb",
    [storage.read, storage.size, storage.open, storage.read_versioned, lambda uri: storage.read_range(uri, 0, 1)],
)
def test_a_missing_object_is_named(base: str, verb: Callable[[str], object]):
    storage.write(storage.join(base, "there"), b"1")
    uri = storage.join(base, "not-there")
    with pytest.raises(ObjectNotFound) as caught:
        verb(uri)
    assert caught.value.uri == uri
    assert uri in str(caught.value)
    assert not storage.exists(uri)
    assert not storage.exists(base)


def test_versions(base: str):
    uri = storage.join(base, "lock.json")
    with pytest.raises(Conflict):
        storage.replace(uri, b"x", '"0123"')
    first = storage.create(uri, b"first")
    with pytest.raises(Conflict) as caught:
        storage.create(uri, b"second")
    assert caught.value.uri == uri
    assert storage.read_versioned(uri)[:2] == (b"first", first)
    second = storage.replace(uri, b"second", first)
    assert second != first
    with pytest.raises(Conflict):
        storage.replace(uri, b"third", first)
    assert storage.read_versioned(uri)[:2] == (b"second", second)
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.create(uri, b"again")


def test_age_is_small_and_not_negative(base: str):
    uri = storage.join(base, "young")
    storage.write(uri, b"1")
    assert 0 <= storage.read_versioned(uri).age_s < 60


def test_age_of_an_old_file(tmp_path: Path):
    (tmp_path / "old").write_bytes(b"1")
    then_s = (tmp_path / "old").stat().st_mtime - 1000
    os.utime(tmp_path / "old", (then_s, then_s))
    assert 1000 <= storage.read_versioned(str(tmp_path / "old")).age_s < 1060


def test_one_of_many_creates_wins(base: str):
    uri = storage.join(base, "lock")

    def attempt(i: int) -> str | None:
        try:
            return storage.create(uri, f"writer {i}".encode())
        except Conflict:
            return None

    with ThreadPoolExecutor(16) as threads:
        versions = list(threads.map(attempt, range(16)))
    winners = [i for i, version in enumerate(versions) if version]
    assert len(winners) == 1
    assert storage.read_versioned(uri)[:2] == (f"writer {winners[0]}".encode(), versions[winners[0]])
    assert listed(base) == ["lock"]


def test_replace_loses_no_update(base: str):
    """A counter raised by read, add and replace under contention: every success must count."""
    uri = storage.join(base, "counter")
    storage.create(uri, b"0")

    def add(_: int) -> int:
        succeeded = 0
        for _ in range(10):
            found = storage.read_versioned(uri)
            try:
                storage.replace(uri, b"%d" % (int(found.data) + 1), found.version)
                succeeded += 1
            except Conflict:
                pass
        return succeeded

    with ThreadPoolExecutor(8) as threads:
        total = sum(threads.map(add, range(8)))
    assert int(storage.read(uri)) == total >= 10
    assert listed(base) == ["counter"]


def test_a_good_output_passes_and_keeps_no_trace(base: str):
    storage.check_output(base)
    assert listed(base) == []


def test_other_schemes_read_alike(tmp_path: Path):
    """The reader for all other schemes, held against the local one on the scheme that both know."""
    base = (tmp_path / "a place").as_uri()
    for name in ["b/1.jpg", "b c.jpg", "b.jpg", "ü%20.png"]:
        storage.write(storage.join(base, name), name.encode())
    assert list(arrow.list_pages(base)) == list(storage.list_pages(base))
    assert list(arrow.list_pages(f"{base}/b.jpg")) == list(storage.list_pages(f"{base}/b.jpg"))
    assert list(arrow.glob_candidates(f"{base}/b", 0)) == list(local.glob_candidates(f"{base}/b", 0))
    for name in ["b/1.jpg", "ü%20.png"]:
        uri = storage.join(base, name)
        assert arrow.read(uri, None) == name.encode()
        assert arrow.read_range(uri, -4, 2) == name.encode()[-4:-2]
        assert arrow.size(uri) == len(name.encode())
        assert arrow.exists(uri)
    assert not arrow.exists(base)
    assert not arrow.exists(f"{base}/absent")
    with pytest.raises(ObjectNotFound):
        list(arrow.list_pages(f"{base}/absent"))
    with pytest.raises(StorageError, match="over the limit"):
        arrow.read(f"{base}/b.jpg", 3)


@pytest.mark.parametrize("uri", ["gs://bucket/out", "hdfs://host/out", "https://host/out", "file://other-machine/out"])
def test_other_schemes_are_no_output(uri: str):
    with pytest.raises(UnsupportedScheme) as caught:
        storage.check_output(uri)
    assert uri in str(caught.value)
    with pytest.raises(UnsupportedScheme):
        storage.write(uri, b"")


@pytest.mark.parametrize("uri", ["ftp://host/x.jpg", "s4://bucket/x", "file://other-machine/x"])
def test_unknown_schemes_are_named(uri: str):
    with pytest.raises(UnsupportedScheme) as caught:
        storage.read(uri)
    assert uri in str(caught.value)


@pytest.mark.parametrize(
    ("base", "parts", "expected"),
    [
        ("s3://b", ["k"], "s3://b/k"),
        ("s3://b/", ["/k/", "a b#%"], "s3://b/k/a b#%"),
        ("/data/", ["x"], "/data/x"),
        ("/", ["x"], "/x"),
        ("out", ["data", "a.parquet"], "out/data/a.parquet"),
        ("file:///data", ["a b#%"], "file:///data/a%20b%23%25"),
        ("gs://b", ["a b"], "gs://b/a%20b"),
    ],
)
def test_join(base: str, parts: list[str], expected: str):
    assert storage.join(base, *parts) == expected


def test_transience_survives_pickling():
    error = pickle.loads(pickle.dumps(Unreachable("s3://b/k", "no answer")))
    assert storage.is_transient(error)
    assert storage.is_transient(ConnectionResetError())
    assert not storage.is_transient(ObjectNotFound("s3://b/k", "gone"))
    assert not storage.is_transient(ValueError())
