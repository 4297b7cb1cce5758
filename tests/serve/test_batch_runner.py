"""Batches in one process, with a real replica behind them: asked for, resumed, cancelled, shared out, given up."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from serve.plain_replicas import PlainReplicas, prefixes, until

from rayseg import storage
from rayseg.errors import Unreachable
from rayseg.outputs import lock as locks
from rayseg.outputs.spec import OutputSpec
from rayseg.outputs.verify import verify
from rayseg.serve import batch_run, batch_runner
from rayseg.serve.batch_requests import BatchRequest
from rayseg.serve.batch_runner import BatchRunner
from rayseg.serve.batch_store import BatchStore, new_record
from rayseg.serve.labelling import chunk_calls
from rayseg.serve.problems import Problem, busy
from rayseg.serve.spec import ServeSpec

IMAGES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small images, one that is none and one odd name."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    (folder / "007.png").write_bytes(b"<html>")
    return folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(batch_run, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(batch_runner, "WATCH_S", 0.05)


@pytest.fixture
def spec(tmp_path, folder):
    return ServeSpec(
        model="rectangles",
        batches=str(tmp_path / "batches"),
        read_prefixes=[str(folder)],
        write_prefixes=[str(tmp_path / "out")],
        max_replicas=1,
    )


@asynccontextmanager
async def running(spec, **replicas):
    """A started runner, closed in the end as by a server that stops."""
    replicas = replicas or {"default": PlainReplicas(spec)}
    runner = BatchRunner(spec, {name: one.facts(name) for name, one in replicas.items()}, replicas, prefixes(spec))
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def created(runner, images, out, **options):
    batch = await runner.create(BatchRequest(str(images), str(out), options=options))
    assert not isinstance(batch, Problem), batch
    return batch["id"]


async def ended(runner, id):
    """The batch once it has ended."""
    async with asyncio.timeout(60):
        while True:
            batch = await runner.get(id)
            if batch["state"] in ("done", "failed", "cancelled"):
                return batch
            await asyncio.sleep(0.005)


def rows(out):
    return {row["uri"]: row for row in pq.read_table(f"{out}/data").to_pylist()}


def test_a_batch_is_labelled_and_verifies(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        async with running(spec) as runner:
            id = await created(runner, folder, out, score_threshold=0.74)
            batch = await ended(runner, id)
            listed = await runner.listing(10)
            return batch, listed

    batch, listed = asyncio.run(go())
    assert (batch["state"], batch["error"]) == ("done", None)
    assert (batch["total"], batch["done"], batch["failed"]) == (IMAGES, IMAGES, 1)
    assert listed == {"batches": [batch]}
    assert verify(str(out)).ok
    found = rows(out)
    assert found[str(folder / "007.png")]["error"]["kind"] == "not_an_image"
    scores = [instance["score"] for row in found.values() for instance in row["instances"]]
    assert scores and min(scores) > 0.74


def test_after_a_restart_batches_are_listed_and_go_on(spec, folder, tmp_path):
    out = str(tmp_path / "out" / "a")

    async def first():
        replicas = PlainReplicas(spec)
        replicas.fail = lambda chunk: pause(chunk, replicas)
        async with running(spec, default=replicas) as runner:
            id = await created(runner, folder, out)
            await until(lambda: len(list((tmp_path / "out" / "a" / "data").glob("*"))) >= 2)
            return id

    def pause(chunk, replicas):
        if len(replicas.chunks) > 3:
            raise busy("no room")

    async def second(id):
        replicas = PlainReplicas(spec)
        async with running(spec, default=replicas) as runner:
            listed = await runner.listing(10)
            batch = await ended(runner, id)
            return listed["batches"], batch, sum(len(chunk.ordinals) for chunk in replicas.chunks)

    id = asyncio.run(first())
    assert not storage.exists(f"{out}/manifest.json")
    assert not storage.exists(f"{out}/lock.json")
    listed, batch, labelled = asyncio.run(second(id))
    assert [one["id"] for one in listed] == [id]
    assert batch["state"] == "done"
    assert 0 < labelled < IMAGES
    assert verify(out).ok


def test_two_batches_share_the_replicas_evenly(spec, folder, tmp_path, monkeypatch):
    """From when both ask on, neither gets much more than the other. Clocks stand still; `test_fair_share` has them go."""
    for name, value in (("MOST_ROWS", 4), ("FIRST_ROWS", 4), ("SHORTEST_S", 0.0)):
        monkeypatch.setattr(batch_run, name, value)
    monkeypatch.setattr(batch_run, "time", SimpleNamespace(monotonic=lambda: 0.0))
    outs = [str(tmp_path / "out" / name) for name in "ab"]
    asking: set[str] = set()
    served: list[str] = []

    def once_both_ask(chunk):
        asking.add(chunk.write.out)
        if len(asking) < 2:
            raise busy("wait for the other")
        served.append(chunk.write.out)

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = once_both_ask
        async with running(spec, default=replicas) as runner:
            return [await ended(runner, id) for id in [await created(runner, folder, out) for out in outs]]

    assert [batch["state"] for batch in asyncio.run(go())] == ["done", "done"]
    ahead = np.cumsum([1 if out == outs[0] else -1 for out in served])
    assert len(served) == 2 * IMAGES / 4
    assert np.abs(ahead).max() <= 2 * chunk_calls(spec), ahead


def test_a_cancelled_batch_stops_and_the_same_one_goes_on(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = lambda chunk: refuse(len(replicas.chunks))
        async with running(spec, default=replicas) as runner:
            id = await created(runner, folder, out)
            await until(lambda: len(replicas.chunks) > 2)
            cancelled = await runner.cancel(id)
            await until(lambda: not runner._going)
            assert not storage.exists(f"{out}/lock.json")
            replicas.fail = lambda chunk: None
            again = await created(runner, folder, out)
            done = await ended(runner, again)
            still = [await runner.cancel(one) for one in (id, again, again)]
            forgotten = [await runner.forget(one) for one in (id, again)]
            return cancelled, done, still, forgotten, await runner.get(id)

    def refuse(calls):
        if calls > 2:
            raise busy("no room")

    cancelled, done, still, forgotten, unknown = asyncio.run(go())
    assert (cancelled["state"], done["state"]) == ("cancelled", "done")
    assert cancelled["id"] != done["id"]
    assert [one["state"] for one in still] == ["cancelled", "done", "done"], "to cancel again takes nothing away"
    assert forgotten == [None, None]
    assert unknown.status == 404
    assert verify(str(out)).ok


def test_asking_twice_is_one_batch_and_an_output_has_one_writer(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = hold
        async with running(spec, default=replicas) as runner:
            first, again = [await created(runner, folder, out) for _ in range(2)]
            others = [
                await runner.create(BatchRequest(str(folder), where, options={"score_threshold": 0.9}))
                for where in (str(out), f"{out}/below", str(tmp_path / "out"))
            ]
            return first, again, others

    def hold(chunk):
        raise busy("no room")

    first, again, others = asyncio.run(go())
    assert first == again
    assert [(one.status, one.kind) for one in others] == [(409, "output-in-use")] * 3


def test_a_caller_who_does_not_wait_for_the_answer_leaves_no_record_that_nobody_runs(spec, folder, tmp_path):
    out, put, asked = tmp_path / "out" / "a", threading.Event(), threading.Event()

    async def go():
        async with running(spec) as runner:
            add = runner.store.add

            def slowly(record):
                asked.set()
                assert put.wait(60)
                add(record)

            runner.store.add = slowly
            asking = asyncio.create_task(runner.create(BatchRequest(str(folder), str(out))))
            await asyncio.to_thread(asked.wait, 60)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            put.set()
            await until(lambda: runner._going)
            return await ended(runner, next(iter(runner._going)))

    assert asyncio.run(go())["state"] == "done"
    assert verify(str(out)).ok


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"images": "{tmp}/elsewhere"}, "uri-not-allowed"),
        ({"images": ["{folder}/000.png", "/etc/passwd"]}, "uri-not-allowed"),
        ({"images": "s3://bucket/x"}, "uri-not-allowed"),
        ({"out": "{folder}/labels"}, "uri-not-allowed"),
        ({"out": "{tmp}/out/../batches"}, "bad-uri"),
        ({"model": "gpt"}, "unknown-model"),
    ],
)
def test_what_cannot_be_is_refused_at_once(spec, folder, tmp_path, change, kind):
    def fill(value):
        return [one.format(tmp=tmp_path, folder=folder) for one in ([value] if isinstance(value, str) else value)]

    async def go():
        asked = {"images": str(folder), "out": str(tmp_path / "out" / "a")}
        for name, value in change.items():
            asked[name] = fill(value)[0] if isinstance(value, str) else fill(value)
        async with running(spec) as runner:
            problem = await runner.create(BatchRequest(**asked))
            return problem, await runner.listing(10)

    problem, listed = asyncio.run(go())
    assert (problem.kind, listed) == (kind, {"batches": []})


def test_records_are_no_place_to_write_to(folder, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    spec = ServeSpec(
        model="rectangles",
        batches=str(tmp_path / "link" / "batches"),
        read_prefixes=[str(folder)],
        write_prefixes=[str(tmp_path)],
    )

    async def go(out):
        async with running(spec) as runner:
            return await runner.create(BatchRequest(str(folder), out))

    for out in ("real/batches", "link/batches/lists", "real", "link"):
        assert asyncio.run(go(str(tmp_path / out))).kind == "uri-not-allowed"


def test_a_list_cannot_smuggle_in_what_may_not_be_read(spec, folder, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes((folder / "000.png").read_bytes())
    smuggling = folder / "list.txt"
    smuggling.write_text(f"{folder}/000.png\n{secret}\n")

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, smuggling, tmp_path / "out" / "a"))

    try:
        batch = asyncio.run(go())
    finally:
        smuggling.unlink()
    assert batch["state"] == "failed"
    assert "secret.png" in batch["error"] and "outside" in batch["error"]
    assert not storage.exists(f"{tmp_path}/out/a/job.json")


@pytest.mark.parametrize("key", ["secret.csv.gz", "../secret.csv.gz", "in/../secret.csv.gz"])
def test_an_inventory_cannot_have_other_files_read(bucket, key):
    """Who may put a manifest below a prefix that is read could have it name any file as a part of itself."""
    import gzip

    name = bucket.removeprefix("s3://")
    storage.write(f"{bucket}/secret.csv.gz", gzip.compress(b'"the-password","is-1234"\n'))
    manifest = {"fileFormat": "CSV", "fileSchema": "Bucket, Key", "destinationBucket": f"arn:aws:s3:::{name}"}
    manifest["files"] = [{"key": key}]
    storage.write(f"{bucket}/in/manifest.json", json.dumps(manifest).encode())
    spec = ServeSpec(
        model="rectangles",
        batches=f"{bucket}/batches",
        read_prefixes=[f"{bucket}/in"],
        write_prefixes=[f"{bucket}/out"],
    )

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, f"{bucket}/in/manifest.json", f"{bucket}/out/1"))

    batch = asyncio.run(go())
    assert batch["state"] == "failed"
    assert "1234" not in batch["error"] and "password" not in batch["error"]
    assert "outside" in batch["error"] or "dots" in batch["error"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_coco_file_cannot_ask_what_there_is(spec, folder, tmp_path, exists):
    """Whether an image outside is there or not, the answer is the same."""
    secret = tmp_path / "secret.png"
    if exists:
        secret.write_bytes((folder / "000.png").read_bytes())
    asking = folder / "asking.json"
    asking.write_text(json.dumps({"images": [{"id": 1, "file_name": str(secret)}], "annotations": []}))

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, asking, tmp_path / "out" / "a"))

    try:
        batch = asyncio.run(go())
    finally:
        asking.unlink()
    assert batch["state"] == "failed"
    assert "none of the first 1 images" in batch["error"] and "outside" not in batch["error"]


def test_a_folder_of_parquet_lists_cannot_have_other_files_read(spec, folder, tmp_path):
    pq.write_table(pa.table({"uri": ["the-password"]}), tmp_path / "secret.parquet")
    lists = folder / "lists.parquet"
    lists.mkdir()
    (lists / "a.parquet").symlink_to(tmp_path / "secret.parquet")

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, lists, tmp_path / "out" / "a"))

    try:
        batch = asyncio.run(go())
    finally:
        (lists / "a.parquet").unlink()
        lists.rmdir()
    assert batch["state"] == "failed"
    assert "outside" in batch["error"] and "password" not in batch["error"]


def test_a_plan_that_others_wrote_is_not_trusted(spec, folder, tmp_path):
    """Whoever may write below an output could put a plan there; its images are checked again."""
    from rayseg.models.predictor import load
    from rayseg.outputs import job
    from rayseg.outputs.plan import write_plan
    from rayseg.outputs.spec import OutputSpec
    from rayseg.storage import Entry

    out, secret = str(tmp_path / "out" / "a"), tmp_path / "secret.png"
    secret.write_bytes((folder / "000.png").read_bytes())
    asked = OutputSpec(
        images=str(folder), model="rectangles", out=out, max_pixels=spec.max_pixels, max_bytes=spec.max_body_bytes
    )
    plan = write_plan(out, [[Entry(str(secret), -1)]])
    job.write(out, job.Job.of(asked, plan, load("rectangles").info, {}))

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, folder, out))

    batch = asyncio.run(go())
    assert batch["state"] == "failed" and "outside" in batch["error"]
    assert not list((tmp_path / "out" / "a").glob("data/*"))


def test_images_named_one_by_one_are_labelled_once_each(spec, folder, tmp_path):
    out, names = tmp_path / "out" / "a", [f"{folder}/{i:03d}.png" for i in (3, 1, 3, 2)]

    async def go():
        async with running(spec) as runner:
            batch = await runner.create(BatchRequest(names, str(out)))
            return await ended(runner, batch["id"])

    batch = asyncio.run(go())
    assert (batch["state"], batch["total"]) == ("done", 3)
    assert rows(out).keys() == set(names)


def test_replicas_that_come_and_go_cost_nothing(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = lambda chunk: lose(replicas)
        async with running(spec, default=replicas) as runner:
            return await ended(runner, await created(runner, folder, out))

    def lose(replicas):
        if len(replicas.chunks) % 3 == 0:
            raise Problem(503, "replica-lost", "lost")
        if len(replicas.chunks) % 3 == 1:
            raise busy("no room")

    assert asyncio.run(go())["state"] == "done"
    assert verify(str(out)).ok


def test_images_that_take_every_replica_with_them_end_the_batch(spec, folder, tmp_path):
    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = lose
        async with running(spec, default=replicas) as runner:
            return await ended(runner, await created(runner, folder, tmp_path / "out" / "a"))

    def lose(chunk):
        if 30 in chunk.ordinals:
            raise Problem(503, "replica-lost", "lost")

    batch = asyncio.run(go())
    assert batch["state"] == "failed"
    assert "given up after 5 tries" in batch["error"]


def test_an_image_that_breaks_the_model_ends_the_batch_and_is_no_row(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        replicas = PlainReplicas(spec)
        detect = replicas.scheduler._detect

        def breaks(batch, thresholds):
            if len(replicas.chunks) > 2:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return detect(batch, thresholds)

        replicas.scheduler._detect = breaks
        async with running(spec, default=replicas) as runner:
            failed = await ended(runner, await created(runner, folder, out))
            replicas.scheduler._detect = detect
            return failed, await ended(runner, await created(runner, folder, out))

    failed, done = asyncio.run(go())
    assert failed["state"] == "failed" and "given up after 5 tries" in failed["error"] and "CUDA" not in failed["error"]
    assert (done["state"], done["failed"]) == ("done", 1), "the rest is labelled when the model works again"
    assert verify(str(out)).ok


def test_records_that_cannot_go_on_say_why_and_hold_up_no_other(spec, folder, tmp_path):
    store = BatchStore(spec.batches)
    good = OutputSpec(images=str(folder), model="rectangles", out=str(tmp_path / "out" / "good"))
    records = {
        "newer": new_record("default", good.model_dump() | {"invented_later": 1}),
        "elsewhere": new_record("other", good.model_dump()),
        "good": new_record("default", good.model_dump()),
    }
    for record in records.values():
        store.add(record)
    damaged = new_record("default", {}).id
    storage.write(f"{spec.batches}/{damaged}.json", b"{")

    async def go():
        async with running(spec) as runner:
            done = await ended(runner, records["good"].id)
            others = [await runner.get(records[name].id) for name in ("newer", "elsewhere")]
            gone = [await method(damaged) for method in (runner.get, runner.cancel, runner.forget)]
            cancelled = await runner.cancel(records["elsewhere"].id)
            return done, others, gone, cancelled

    done, (newer, elsewhere), gone, cancelled = asyncio.run(go())
    assert done["state"] == "done"
    assert "another version" in newer["error"] and "no model 'other'" in elsewhere["error"]
    assert [(one.status, one.kind) for one in gone] == [(404, "unknown-batch")] * 3
    assert (cancelled["state"], cancelled["error"]) == ("cancelled", None)


def test_what_goes_on_after_a_restart_is_not_created_a_second_time(spec, folder, tmp_path):
    """A caller repeats the request while the server still looks its records up."""
    out, look = tmp_path / "out" / "a", threading.Event()

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = full
        async with running(spec, default=replicas) as runner:
            first = await created(runner, folder, out)
        runner = BatchRunner(spec, {"default": replicas.facts()}, {"default": replicas}, prefixes(spec))
        newest = runner.store.newest

        def slowly(*limit):
            assert look.wait(60)
            return newest(*limit)

        runner.store.newest = slowly
        await runner.start()
        again = asyncio.create_task(created(runner, folder, out))
        await asyncio.sleep(0.05)
        look.set()
        try:
            return first, await again
        finally:
            await runner.close()

    def full(chunk):
        raise busy("no room")

    first, again = asyncio.run(go())
    assert first == again


def test_a_record_whose_put_was_not_answered_is_run_all_the_same(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        async with running(spec) as runner:
            add = runner.store.add

            def unanswered(record):
                add(record)
                raise Unreachable(spec.batches, "no answer")

            runner.store.add = unanswered
            refused = await runner.create(BatchRequest(str(folder), str(out)))
            await until(lambda: runner._going)
            return refused, await ended(runner, next(iter(runner._going)))

    refused, batch = asyncio.run(go())
    assert (refused.status, batch["state"]) == (503, "done")


def test_a_store_that_is_away_is_waited_for(spec, folder, tmp_path, monkeypatch):
    out, read, away = tmp_path / "out" / "a", storage.read, [True]

    def sometimes(uri, *, max_bytes=None):
        if away and uri.endswith(".png"):
            raise Unreachable(uri, "no answer")
        return read(uri, max_bytes=max_bytes)

    async def go():
        async with running(spec) as runner:
            id = await created(runner, folder, out)
            run = await until(lambda: runner._going.get(id))
            await until(lambda: run.run.error)
            waiting = await runner.get(id)
            away.clear()
            return waiting, await ended(runner, id)

    monkeypatch.setattr(storage, "read", sometimes)
    waiting, batch = asyncio.run(go())
    assert waiting["state"] == "running" and "no answer" in waiting["error"]
    assert (batch["state"], batch["error"], batch["failed"]) == ("done", None, 1)


def test_an_output_that_another_run_writes_is_waited_for(spec, folder, tmp_path):
    out = str(tmp_path / "out" / "a")
    lock = locks.acquire(out)

    async def go():
        async with running(spec) as runner:
            id = await created(runner, folder, out)
            run = runner._going[id].run
            await until(lambda: run.error)
            waiting = await runner.get(id)
            lock.release()
            return waiting, await ended(runner, id)

    waiting, batch = asyncio.run(go())
    assert waiting["state"] == "queued" and "another run" in waiting["error"]
    assert batch["state"] == "done"


def test_a_batch_whose_lock_was_taken_over_leaves_the_output_alone(spec, folder, tmp_path):
    out = str(tmp_path / "out" / "a")

    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = lambda chunk: take_over()
        async with running(spec, default=replicas) as runner:
            run = runner._going[await created(runner, folder, out)].run
            await until(lambda: run.state == "queued" and run.error)
            return run.error

    def take_over():
        (lock,) = [one for one in alive if not one.lost.is_set()] or [None]
        if lock is not None:
            lock.lost.set()

    alive: list[locks.Lock] = []
    acquire = locks.acquire

    def noted(*args, **more):
        if alive:
            from rayseg.errors import JobError

            raise JobError("another run is writing this output")
        alive.append(acquire(*args, **more))
        return alive[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "acquire", noted)
        error = asyncio.run(go())
    assert "another run" in error
    assert not storage.exists(f"{out}/manifest.json")
    assert storage.exists(f"{out}/lock.json")  # the other's
    alive[0].lost.clear()
    alive[0].release()


def test_a_batch_that_was_cancelled_on_another_server_stops_here(spec, folder, tmp_path):
    async def go():
        replicas = PlainReplicas(spec)
        replicas.fail = refuse
        async with running(spec, default=replicas) as runner:
            id = await created(runner, folder, tmp_path / "out" / "a")
            await until(lambda: replicas.chunks)
            runner.store.update(id, lambda record: record.with_state("cancelled"))
            await until(lambda: not runner._going)
            return await runner.get(id)

    def refuse(chunk):
        raise busy("no room")

    assert asyncio.run(go())["state"] == "cancelled"


def test_a_model_that_has_changed_ends_the_batch(spec, folder, tmp_path):
    async def go():
        replicas = PlainReplicas(spec)
        import dataclasses

        facts = dataclasses.replace(replicas.facts(), fingerprint="f" * 64)
        runner = BatchRunner(spec, {"default": facts}, {"default": replicas}, prefixes(spec))
        await runner.start()
        try:
            return await ended(runner, await created(runner, folder, tmp_path / "out" / "a"))
        finally:
            await runner.close()

    batch = asyncio.run(go())
    assert batch["state"] == "failed" and "model has changed" in batch["error"]


def test_an_output_of_another_spec_is_not_touched(spec, folder, tmp_path):
    out = tmp_path / "out" / "a"

    async def go():
        async with running(spec) as runner:
            await ended(runner, await created(runner, folder, out))
            before = json.loads((out / "manifest.json").read_text())
            again = await ended(runner, await created(runner, folder, out, score_threshold=0.9))
            return before, again

    before, again = asyncio.run(go())
    assert again["state"] == "failed" and "score_threshold" in again["error"]
    assert json.loads((out / "manifest.json").read_text()) == before


def test_an_object_whose_name_is_not_taken_becomes_an_error_row(bucket, tmp_path, folder):
    from rayseg.storage import write

    spec = ServeSpec(
        model="rectangles",
        batches=f"{bucket}/batches",
        read_prefixes=[f"{bucket}/in"],
        write_prefixes=[f"{bucket}/out"],
    )
    for name in ("a.png", "%2e%2e/c.png"):
        write(f"{bucket}/in/{name}", (folder / "000.png").read_bytes())

    async def go():
        async with running(spec) as runner:
            return await ended(runner, await created(runner, f"{bucket}/in/", f"{bucket}/out/1"))

    batch = asyncio.run(go())
    assert (batch["state"], batch["done"], batch["failed"]) == ("done", 2, 1)
    assert verify(f"{bucket}/out/1").ok
    with storage.open(next(entry.uri for page in storage.list_pages(f"{bucket}/out/1/data") for entry in page)) as part:
        data = io.BytesIO(part.read())
    errors = [row["error"] for row in pq.read_table(data).to_pylist()]
    assert [error and error["kind"] for error in errors] == ["bad_uri", None]
