"""A chunk inside a replica: rows as the predictor alone would make them, few pixels held, nothing kept when it is given up."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from label.killing import assert_same_rows
from PIL import Image
from serve.plain_replicas import PlainReplicas, until

from rayseg import images, load, storage
from rayseg.errors import AccessDenied, ModelError, Unreachable
from rayseg.formats.parts import RowError, read_part, rows_table
from rayseg.models.preprocess import Prepared
from rayseg.outputs.writing import WriteJob, Written
from rayseg.serve.labelling import READ_AHEAD, BatchChunk, ChunkFailed, chunk_calls
from rayseg.serve.spec import ServeSpec

SPEC = ServeSpec(model="rectangles", max_batch=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of several sizes; one that is damaged, one that is too large and one that is not there."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for i in range(40):
        size = (int(rng.integers(8, 60)), int(rng.integers(8, 60)), 3)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "11.png").write_bytes((folder / "11.png").read_bytes()[:60])
    Image.fromarray(np.zeros((100, 101, 3), np.uint8)).save(folder / "12.png")
    (folder / "13.png").unlink()
    return [str(folder / f"{i:02d}.png") for i in range(40)]


def chunk(uris, out, **changes):
    one = BatchChunk(
        write=WriteJob(str(out), 1, {"rayseg.model": "{}"}),
        fingerprint=load("rectangles").fingerprint,
        ordinals=np.arange(len(uris)) * 2,
        uris=list(uris),
        sources=list(uris),
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        max_pixels=10_000,
        max_bytes=1 << 20,
    )
    return dataclasses.replace(one, **changes)


def labelled(replicas, one):
    return asyncio.run(replicas.labeller.label(one))


def expected_rows(uris, **thresholds):
    predictor = load("rectangles")
    for name, value in thresholds.items():
        setattr(predictor, name, value)
    results = []
    for uri in uris:
        try:
            results += predictor.predict([images.decode(storage.read(uri), max_pixels=10_000)])
        except Exception as error:
            results.append(RowError("read" if "no such" in str(error) else "decode", error.kind, str(error)))
    table = rows_table(np.arange(len(uris)) * 2, uris, results, predictor.class_names)
    return {row["uri"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("thresholds", [{}, {"score_threshold": 0.75, "max_detections": 2}])
def test_a_part_holds_what_the_predictor_says_of_each_image(photos, tmp_path, thresholds):
    written = labelled(PlainReplicas(SPEC), chunk(photos, tmp_path, **thresholds))
    assert isinstance(written, Written)
    assert written.part.ranges[:, 0].tolist() == list(range(0, 80, 2))
    found = {row["uri"]: row for row in read_part(f"{tmp_path}/data/{written.part.name}").to_pylist()}
    expected = expected_rows(photos, **thresholds)
    assert sum(row["error"] is not None for row in expected.values()) == written.part.counts["failed"] == 3
    assert_same_rows(found, expected)


def test_a_second_call_lands_on_the_same_part(photos, tmp_path):
    replicas = PlainReplicas(SPEC)

    async def twice():
        return [await replicas.labeller.label(chunk(photos[:5], tmp_path)) for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first.part.name == second.part.name
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_the_pixels_of_few_images_are_held_at_a_time(tmp_path):
    """Each of these fills the budget by itself; they go through one after the other, and nothing is left held."""
    uris = []
    for i in range(6):
        uris.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((90, 100, 3), 40 * i, np.uint8)).save(uris[-1])
    replicas = PlainReplicas(ServeSpec(model="rectangles", max_pixels=3500))
    most, detect = 0, replicas.scheduler._detect

    def measured(*args):
        nonlocal most
        most = max(most, replicas.labeller.pixels.used)
        return detect(*args)

    replicas.scheduler._detect = measured
    written = labelled(replicas, chunk(uris, tmp_path / "out"))
    assert written.part.counts["labelled"] == 6
    assert most == 9000
    assert replicas.labeller.pixels.used == 0


def test_an_image_that_the_model_cannot_take_is_a_row_of_its_own(photos, tmp_path):
    replicas = PlainReplicas(SPEC)
    victim = images.decode(storage.read(photos[4])).shape[:2]
    detect = replicas.scheduler._detect

    def picky(batch, thresholds):
        if any(image.image_hw == victim for image in batch):
            raise ModelError("out of memory on a single image")
        return detect(batch, thresholds)

    replicas.scheduler._detect = picky
    written = labelled(replicas, chunk(photos[:8], tmp_path))
    rows = read_part(f"{tmp_path}/data/{written.part.name}").to_pylist()
    assert [row["ordinal"] for row in rows if row["error"]] == [8]
    assert rows[4]["error"] == {"stage": "model", "kind": "model_error", "message": "out of memory on a single image"}
    assert (rows[4]["height"], rows[4]["width"]) == victim


def test_a_model_that_breaks_leaves_no_rows_with_errors(photos, tmp_path):
    replicas = PlainReplicas(SPEC)

    def broken(batch, thresholds):
        raise RuntimeError("CUDA error: device-side assert triggered")

    replicas.scheduler._detect = broken
    failed = labelled(replicas, chunk(photos[:8], tmp_path))
    assert isinstance(failed, ChunkFailed) and failed.transient and failed.counts
    assert "CUDA" not in failed.message
    assert not list(tmp_path.iterdir())
    assert replicas.labeller.pixels.used == 0


@pytest.mark.parametrize(("error", "transient"), [(Unreachable, True), (AccessDenied, False)])
def test_a_store_that_fails_leaves_no_part_and_no_rows_with_errors(photos, tmp_path, monkeypatch, error, transient):
    replicas, write = PlainReplicas(SPEC), storage.write

    def fails(uri, data):
        raise error(uri, "will not")

    monkeypatch.setattr(storage, "write", fails)
    failed = labelled(replicas, chunk(photos[:8], tmp_path))
    assert failed == ChunkFailed(failed.message, transient)
    assert "will not" in failed.message
    monkeypatch.setattr(storage, "write", write)
    assert replicas.labeller.pixels.used == 0


def test_storage_that_does_not_answer_is_not_the_images_fault(photos, tmp_path, monkeypatch):
    def away(uri, *, max_bytes=None):
        raise Unreachable(uri, "no answer")

    monkeypatch.setattr(storage, "read", away)
    failed = labelled(PlainReplicas(SPEC), chunk(photos, tmp_path))
    assert isinstance(failed, ChunkFailed) and failed.transient
    assert not list(tmp_path.iterdir())


def test_another_model_than_the_batch_was_started_with_writes_nothing(photos, tmp_path):
    failed = labelled(PlainReplicas(SPEC), chunk(photos, tmp_path, fingerprint="f" * 64))
    assert isinstance(failed, ChunkFailed) and not failed.transient
    assert not list(tmp_path.iterdir())


def test_a_chunk_that_is_given_up_holds_nothing(photos, tmp_path, monkeypatch):
    replicas, go_on, read = PlainReplicas(SPEC), threading.Event(), storage.read

    def slow(uri, *, max_bytes=None):
        if uri == photos[20]:
            go_on.wait(30)
        return read(uri, max_bytes=max_bytes)

    monkeypatch.setattr(storage, "read", slow)

    async def give_up():
        task = asyncio.create_task(replicas.labeller.label(chunk(photos, tmp_path)))
        await until(lambda: replicas.labeller.reading._work_queue.empty() and replicas.scheduler._image_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()
        assert task.cancelled()
        return await replicas.labeller.label(chunk(photos, tmp_path))

    written = asyncio.run(give_up())
    assert written.part.rows == 40
    assert replicas.labeller.pixels.used == 0


def test_few_chunks_are_worked_on_at_a_time_and_read_ahead_little(photos, tmp_path, monkeypatch):
    replicas, gate, reading, most = PlainReplicas(SPEC), threading.Event(), [0], [0]
    counted = threading.Lock()

    def held(uri, *, max_bytes=None):
        with counted:
            reading[0] += 1
            most[0] = max(most[0], reading[0])
        gate.wait(30)
        with counted:
            reading[0] -= 1
        raise AccessDenied(uri, "no")

    monkeypatch.setattr(storage, "read", held)

    async def go():
        chunks = [chunk(photos, tmp_path / str(i)) for i in range(5)]
        tasks = [asyncio.create_task(replicas.labeller.label(one)) for one in chunks]
        await until(lambda: reading[0] == 2 * READ_AHEAD)
        gate.set()
        return await asyncio.gather(*tasks)

    assert [one.part.counts["failed"] for one in asyncio.run(go())] == [40] * 5
    assert most[0] == 2 * READ_AHEAD


def test_enough_chunks_are_under_way_to_call_for_every_replica():
    spec = ServeSpec(model="rectangles", max_replicas=3, target_ongoing_requests=2.5)
    assert chunk_calls(spec) / spec.target_ongoing_requests >= 3
    assert chunk_calls(ServeSpec(model="rectangles", max_replicas=1, target_ongoing_requests=0.5)) == 2


def test_an_online_image_waits_for_one_forward_of_a_batch_at_most(photos, tmp_path):
    """The forward that runs when it comes ends; the next one is its own, however much of the batch is ready."""
    replicas = PlainReplicas(SPEC)
    detect, forwards, entered, go_on = replicas.scheduler._detect, [], threading.Semaphore(0), threading.Semaphore(0)
    online = Prepared(np.full((70, 70, 3), 9, np.uint8), (70, 70))

    def watched(batch, thresholds):
        forwards.append([image.image_hw for image in batch])
        entered.release()
        assert go_on.acquire(timeout=60)
        return detect(batch, thresholds)

    replicas.scheduler._detect = watched

    async def go():
        labelling = asyncio.create_task(replicas.labeller.label(chunk(photos, tmp_path)))
        await asyncio.to_thread(entered.acquire)
        asking = asyncio.create_task(replicas.scheduler.run([online], online=True))
        await until(lambda: replicas.scheduler.online_waiting)
        before = len(forwards)
        go_on.release(1000)
        await asyncio.gather(labelling, asking)
        return before

    before = asyncio.run(go())
    assert forwards[before] == [(70, 70)]
    assert len(forwards) > before + 1
