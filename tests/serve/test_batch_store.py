"""Records of batches on a real store: they outlive their server, and an end is an end."""

from __future__ import annotations

import json
import threading

import pytest

from rayseg import storage
from rayseg.serve.batch_store import BatchStore, is_id, new_record

SPEC = {"images": "s3://b/in/", "out": "s3://b/out", "model": "rectangles"}


@pytest.fixture
def store(bucket):
    return BatchStore(f"{bucket}/batches")


def test_what_is_put_is_found_by_another_server(store):
    records = [new_record("default", SPEC) for _ in range(5)]
    for record in records:
        store.add(record)
    store.update(records[1].id, lambda record: record.with_state("running", total=9, done=3))
    other = BatchStore(store.uri)
    newest = other.newest()
    assert [record.id for record in newest] == sorted((record.id for record in records), reverse=True)
    assert [record.id for record in other.newest(2)] == [record.id for record in newest[:2]]
    found = other.read(records[1].id)
    assert found is not None
    assert (found.state, found.total, found.done, found.finished) == ("running", 9, 3, None)
    assert other.read("20260101T000000-00000000") is None


def test_of_two_ends_the_first_one_stays(store):
    record = new_record("default", SPEC)
    store.add(record)
    other = BatchStore(store.uri)
    assert store.update(record.id, lambda found: found.with_state("cancelled")).state == "cancelled"
    assert other.update(record.id, lambda found: found.with_state("done")).state == "cancelled"
    assert store.read(record.id).finished is not None


def test_changes_at_the_same_time_do_not_lose_each_other(store):
    record = new_record("default", SPEC)
    store.add(record)

    def count():
        for _ in range(5):
            store.update(record.id, lambda found: found.with_state("running", done=found.done + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(record.id).done == 20


def test_a_record_that_is_none_does_not_hide_the_others(store):
    record = new_record("default", SPEC)
    store.add(record)
    for name, data in (
        ("20260101T000000-00000000.json", b"{"),
        ("notes.json", b"{}"),
        ("20260101T000000-00000001", b""),
    ):
        storage.write(f"{store.uri}/{name}", data)
    storage.write(f"{store.uri}/20260101T000000-00000002.json", json.dumps({"schema_version": 99}).encode())
    assert store.newest() == [record]


def test_a_place_without_batches_is_empty(store, tmp_path):
    assert store.newest() == BatchStore(str(tmp_path / "nothing")).newest() == []


def test_the_same_images_are_the_same_list(store):
    first, again, other = (
        store.put_list(names) for names in (["s3://b/1", "s3://b/2"], ["s3://b/1", "s3://b/2"], ["s3://b/1"])
    )
    assert first == again != other
    assert storage.read(first) == b"s3://b/1\ns3://b/2\n"
    assert store.newest() == []


def test_a_forgotten_batch_is_gone(store):
    record = new_record("default", SPEC)
    store.add(record)
    store.update(record.id, lambda found: found.with_state("done"))
    store.remove(record.id)
    assert store.newest() == []
    assert store.read(record.id) is None


def test_only_names_of_its_own_kind_become_part_of_a_key():
    assert is_id(new_record("default", SPEC).id)
    for text in ("", "..", "../../x", "20260101T000000-0000000", "20260101T000000-00000000\n", "lists/a", "%2e%2e"):
        assert not is_id(text)
