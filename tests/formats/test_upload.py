"""Uploads that are cut off: whatever is in the store by then, no reader takes it for a data set."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_samples import placeless, sample

from rayseg import storage
from rayseg.errors import AccessDenied, StorageError, UsageError
from rayseg.formats import registry, upload
from rayseg.formats.listing import below
from rayseg.formats.sink import output
from rayseg.formats.upload import MARK, Unfinished, check_finished
from rayseg.storage import Entry


class Store:
    """Objects by URI, and the order of what was done to them; the write numbered `failing` fails."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.done: list[str] = []
        self.failing: int | None = None

    def write(self, uri: str, data: bytes) -> None:
        if self.failing == len(self.done):
            raise StorageError(uri, "is away")
        self.done.append(f"write {uri.removeprefix('s3://b/out/')}")
        self.objects[uri] = data

    def delete(self, uri: str) -> None:
        self.done.append(f"delete {uri.removeprefix('s3://b/out/')}")
        self.objects.pop(uri)

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def list_pages(self, prefix: str) -> Iterator[list[Entry]]:
        found = [Entry(uri, len(data)) for uri, data in sorted(self.objects.items()) if uri.startswith(prefix)]
        yield from [found] if found else []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    for name in ("write", "delete", "exists", "list_pages"):
        monkeypatch.setattr(storage, name, getattr(made, name))
    monkeypatch.setattr(upload, "_THREADS", 1)  # so that what is done has an order
    return made


def put_all(names: dict[str, bool], overwrite: bool = False) -> None:
    with output("s3://b/out", overwrite=overwrite) as sink:
        for name, last in names.items():
            sink.put(name, name.encode(), last=last)


def test_what_makes_it_a_data_set_is_put_last_and_then_the_mark_goes(store: Store):
    put_all({"a.json": True, "b.jpg": False, "z/c.jpg": False})
    assert store.done == [f"write {MARK}", "write b.jpg", "write z/c.jpg", "write a.json", f"delete {MARK}"]
    assert store.objects["s3://b/out/z/c.jpg"] == b"z/c.jpg"
    with pytest.raises(UsageError, match="new or empty folder; give --overwrite to replace what it holds"):
        put_all({"a.json": True})


def test_an_older_data_set_ends_before_the_new_one_begins(store: Store):
    put_all({"a.json": True, "b.jpg": False})
    store.done.clear()
    put_all({"a.json": True, "c.jpg": False}, overwrite=True)
    assert store.done == [
        f"write {MARK}", "delete a.json", "delete b.jpg", "write c.jpg", "write a.json", f"delete {MARK}",
    ]  # fmt: skip


def test_large_files_are_put_too(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upload, "_SMALL_BYTES", 1)
    told: list[tuple[int, int | None]] = []
    with output("s3://b/out", uploading=lambda done, total: told.append((done, total))) as sink:
        for name in ("a", "large", "z"):
            sink.put(name, b"1" * len(name))
    assert store.objects == {"s3://b/out/a": b"1", "s3://b/out/large": b"11111", "s3://b/out/z": b"1"}
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_broken_upload_is_marked_and_says_what_to_do(store: Store):
    for failing in range(1, 4):
        store.objects.clear()
        store.done.clear()
        store.failing = failing
        with pytest.raises(StorageError, match="is away"):
            put_all({"a.json": True, "b.jpg": False, "c.jpg": False})
        with pytest.raises(Unfinished, match=r"expected a whole data set, found s3://b/out/\.rayseg-unfinished"):
            check_finished("s3://b/out")
    store.failing = None
    with pytest.raises(UsageError, match="--overwrite to replace what a run that was cut off left there"):
        put_all({"a.json": True})
    put_all({"a.json": True}, overwrite=True)
    check_finished("s3://b/out")
    assert store.objects == {"s3://b/out/a.json": b"a.json"}


def test_a_mark_speaks_for_all_that_lies_below(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.objects[f"s3://b/sets/one/{MARK}"] = b""
    for uri in ("s3://b/sets/one", "s3://b/sets/one/", "s3://b/sets/one/train/a.json"):
        with pytest.raises(Unfinished):
            check_finished(uri)
    for uri in ("s3://b", "s3://b/sets", "s3://b/sets/one more", "s3://c/sets/one"):
        check_finished(uri)

    def deny(uri: str) -> bool:
        raise AccessDenied(uri, "no listing")

    monkeypatch.setattr(storage, "exists", deny)  # for who may read and not list, as for what is not there
    check_finished("s3://b/sets/one")


def test_a_copy_on_disk_is_marked_as_well(tmp_path: Path):
    registry.write(sample(tmp_path / "in"), str(tmp_path / "coco"), "coco")
    file = tmp_path / "coco/annotations/instances_train.json"
    assert registry.detect(str(file)) == "coco"
    (tmp_path / "coco" / MARK).write_bytes(b"")
    for uri in (str(tmp_path / "coco"), str(file), file.as_uri()):
        for call in (registry.detect, registry.read, lambda uri: registry.read(uri, "coco")):
            with pytest.raises(Unfinished, match="found .*coco/.rayseg-unfinished: writing it was cut off"):
                call(uri)


_KILLED = """
import os, signal, sys
from rayseg import storage
from rayseg.formats import registry, upload
source, bucket = sys.argv[1:]
dataset = registry.read(source)
upload._THREADS = 2

def write(target, format, left):
    def counted(act):
        def acting(*args):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            act(*args)
        return acting
    storage.write, storage.delete = counted(storage.write), counted(storage.delete)
    registry.write(dataset, target, format, overwrite=True)

for format in ("voc", "cityscapes"):
    objects = sum(map(len, storage.list_pages(f"{bucket}/{format}-0")))
    # with all old objects gone and half of the new ones there; with only the mark to go
    for i, left in enumerate((1 + objects + objects // 2, 1 + 2 * objects)):
        if not (pid := os.fork()):
            storage.reset()
            write(f"{bucket}/{format}-{i}", format, left)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, (format, i)
"""


_FORMATS = ("voc", "cityscapes")


def test_a_killed_upload_is_no_data_set_until_it_is_written_anew(bucket: str, tmp_path: Path):
    """Processes are killed while they upload over older data sets, in formats that have no one file; then they run again."""
    dataset = sample(tmp_path / "in")
    dataset = dataclasses.replace(dataset, images=list(dataset.images)[:2])
    registry.write(dataset, str(tmp_path / "source"), "rayseg")
    for format in _FORMATS:
        for i in range(2):
            registry.write(dataset, f"{bucket}/{format}-{i}", format)
    expected = {format: list(map(placeless, registry.read(f"{bucket}/{format}-0").images)) for format in _FORMATS}
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "source"), bucket]
    done = subprocess.run(command, check=False, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for format in _FORMATS:
        for i in range(2):
            uri = f"{bucket}/{format}-{i}"
            for call in (registry.detect, registry.read, functools.partial(registry.read, format=format)):
                with pytest.raises(Unfinished, match="writing it was cut off"):
                    call(uri)
        with pytest.raises(UsageError, match="a run that was cut off left there"):
            registry.write(dataset, f"{bucket}/{format}-1", format)
        registry.write(dataset, f"{bucket}/{format}-1", format, overwrite=True)
        assert MARK not in below(f"{bucket}/{format}-1")
        assert list(map(placeless, registry.read(f"{bucket}/{format}-1").images)) == expected[format]
