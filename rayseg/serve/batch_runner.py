"""All batches of a server: asked for, going on after a restart, listed, cancelled. A plain class; one of it runs.

Its methods are called by `batch_routes` through Ray Serve, so what a caller did wrong comes back as a `Problem`. What it
knows is in storage (`batch_store`, and each batch's output); a new one starts from there, wherever the last one was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rayseg import storage
from rayseg.errors import RaysegError, StorageError, UsageError
from rayseg.outputs.spec import OutputSpec
from rayseg.serve.batch_run import BatchRun, Means
from rayseg.serve.batch_store import BatchRecord, BatchStore, State, is_id, new_record
from rayseg.serve.fair_share import FairShare
from rayseg.serve.labelling import chunk_calls
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem, busy
from rayseg.serve.service import ModelFacts, Replicas
from rayseg.serve.spec import ServeSpec
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

MOST_AT_ONCE = 8  # batches under way; the others are queued
MOST_UNENDED = 1000
WATCH_S = 5.0
_THREADS = 4 * MOST_AT_ONCE

Value = TypeVar("Value")
_log = logging.getLogger("rayseg.serve")


@dataclass(frozen=True)
class BatchRequest:
    """What a caller asks for. `images` is a prefix, glob or list, or the images themselves; options as `OutputSpec`'s."""

    images: str | Sequence[str]
    out: str
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Going:
    """A batch that has not ended, and the task that runs it."""

    record: BatchRecord
    run: BatchRun
    task: asyncio.Task[None]


class BatchRunner:
    """`start` it in the event loop that it will be used in, `close` it there.

    `store` has the records, `facts` and `replicas` are those of the models by name.
    """

    def __init__(
        self, spec: ServeSpec, facts: Mapping[str, ModelFacts], replicas: Mapping[str, Replicas], prefixes: Prefixes
    ) -> None:
        if spec.batches is None:
            raise UsageError("batches: names no folder for their records")
        self.store = BatchStore(spec.batches)
        local = scheme_of(spec.batches) in ("", "file")
        self._records = os.path.realpath(path_of(spec.batches)) if local else spec.batches
        self._spec, self._facts, self._replicas, self._prefixes = spec, facts, replicas, prefixes
        self._calls = chunk_calls(spec)
        self._shares = {name: FairShare(self._calls) for name in facts}
        self._threads = ThreadPoolExecutor(_THREADS, "rayseg-batches")
        self._going: dict[str, _Going] = {}
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)
        self._creating = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Go on with the batches that have not ended, oldest first, as soon as storage names them."""
        self._keep(self._resume())
        self._keep(self._watch())

    async def close(self) -> None:
        """Stop them all and give their outputs back; whoever starts next goes on."""
        tasks = [*self._tasks, *(going.task for going in self._going.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    # ---- what routes call

    async def create(self, request: BatchRequest) -> dict[str, Any] | Problem:
        """The new batch; the one that is there, where the same was asked for and has not ended.

        Should the caller go away meanwhile, it is created all the same: a record that nobody runs must not be left.
        """
        try:
            return await asyncio.shield(self._keep(self._created(request)))
        except Problem as problem:
            return problem
        except StorageError as error:
            return _unstored(error)

    async def listing(self, limit: int) -> dict[str, Any] | Problem:
        """The latest batches first."""
        try:
            records = await self._in_thread(self.store.newest, limit)
        except StorageError as error:
            return _unstored(error)
        return {"batches": [self._described(record) for record in records]}

    async def get(self, id: str) -> dict[str, Any] | Problem:
        """One batch as it is now."""
        try:
            return self._described(await self._found(id))
        except Problem as problem:
            return problem
        except StorageError as error:
            return _unstored(error)

    async def cancel(self, id: str) -> dict[str, Any] | Problem | None:
        """Cancel a batch, which it says of itself then; one that has ended is forgotten, None. Outputs stay."""
        try:
            record = await self._found(id)
            if record.ended:
                await self._in_thread(self.store.remove, id)
                return None
            going = self._going.get(id)
            counts = _counts(going.run) if going else {}
            changed = await self._in_thread(
                self.store.update, id, lambda found: found.with_state("cancelled", **counts)
            )
            if going is not None:
                going.task.cancel()
            return self._described(changed or record)
        except Problem as problem:
            return problem
        except StorageError as error:
            return _unstored(error)

    # ---- asking

    async def _created(self, request: BatchRequest) -> dict[str, Any]:
        async with self._creating:
            return await self._create(request)

    async def _create(self, request: BatchRequest) -> dict[str, Any]:
        model = self._model(request.model)
        spec = await self._in_thread(self._output_spec, request, model)
        for going in [going for going in self._going.values() if not going.run.over]:
            if going.run.spec == spec and not going.task.cancelling():
                return self._described(going.record)
            if _overlap(going.run.spec.out, spec.out):
                raise Problem(409, "output-in-use", f"out: batch {going.run.id} is writing {going.run.spec.out}")
        if len(self._going) >= MOST_UNENDED:
            raise busy(f"{MOST_UNENDED} batches wait or run; try again when some have ended", 60)
        record = new_record(model.name, spec.model_dump())
        await self._in_thread(self.store.add, record)
        self._go(record)
        return self._described(record)

    def _model(self, name: str | None) -> ModelFacts:
        chosen = name or next(iter(self._facts))
        if chosen not in self._facts:
            raise Problem(404, "unknown-model", f"model {chosen[:64]!r}: expected one of {', '.join(self._facts)}")
        return self._facts[chosen]

    def _output_spec(self, request: BatchRequest, model: ModelFacts) -> OutputSpec:
        """What the output shall be. Raises a `Problem` for URIs outside and for what contradicts itself."""
        options = dict(request.options)
        if options.get("images_root") is not None:
            options["images_root"] = self._prefixes.readable(options["images_root"])
        out = self._prefixes.writable(request.out).rstrip("/")
        if _overlap(out, self._records):
            raise Problem(403, "uri-not-allowed", "out: the records of batches lie there; give another folder")
        spec = OutputSpec(
            images=self._images(request.images),
            model=model.uri,
            out=out,
            max_pixels=self._spec.max_pixels,
            max_bytes=self._spec.max_body_bytes,
            **options,
        )
        try:
            spec.check_apart()
        except UsageError as error:
            raise Problem(422, "bad-request", str(error)) from None
        return spec

    def _images(self, images: str | Sequence[str]) -> str:
        if isinstance(images, str):
            allowed = self._prefixes.readable(images)
            return f"{allowed.rstrip('/')}/" if images.endswith("/") else allowed
        return self.store.put_list([self._prefixes.readable(image) for image in images])

    async def _found(self, id: str) -> BatchRecord:
        record = await self._in_thread(self.store.read, id) if is_id(id) else None
        if record is None:
            raise Problem(404, "unknown-batch", f"there is no batch {id[:64]!r}")
        return record

    def _described(self, record: BatchRecord) -> dict[str, Any]:
        going = self._going.get(record.id)
        return described(record, None if record.ended or going is None else going.run)

    # ---- running

    async def _resume(self) -> None:
        while True:
            try:
                records = await self._in_thread(self.store.newest)
                break
            except StorageError as error:
                _log.warning("batches cannot be listed yet", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(WATCH_S)
        for record in reversed(records):
            if not record.ended and record.model in self._facts and record.id not in self._going:
                self._go(record)

    def _go(self, record: BatchRecord) -> None:
        facts = self._facts[record.model]
        share, replicas = self._shares[record.model], self._replicas[record.model]
        means = Means(replicas, facts, share, self._calls, self._prefixes, self._threads, self._at_once)
        run = BatchRun(record, means, self._note)
        task = asyncio.get_running_loop().create_task(self._run(run))
        self._going[record.id] = _Going(record, run, task)

    async def _run(self, run: BatchRun) -> None:
        """One batch to its end, which its record tells; stopped with the server it stays as it is."""
        try:
            manifest = await run.go()
            counts = {"total": manifest["inputs"], "done": manifest["inputs"], "failed": manifest["failed"]}
            await self._end(run, "done", counts)
        except (RaysegError, OSError) as error:
            await self._end(run, "failed", _counts(run) | {"error": str(error)})
        except Exception as error:
            _log.error("a batch failed", extra={"fields": {"batch": run.id}}, exc_info=error)
            await self._end(run, "failed", _counts(run) | {"error": "failed on our side; the server's log says why"})
        finally:
            self._going.pop(run.id, None)

    async def _end(self, run: BatchRun, state: State, changes: Mapping[str, Any]) -> None:
        _log.info("a batch ended", extra={"fields": {"batch": run.id, "state": state, **changes}})
        await self._insist(lambda: self.store.update(run.id, lambda record: record.with_state(state, **changes)))

    def _note(self, run: BatchRun) -> None:
        """Put a batch's new state into its record, in its own time; the latest one, whichever put is the last."""
        self._keep(
            self._insist(lambda: self.store.update(run.id, lambda record: record.with_state(run.state, **_counts(run))))
        )

    async def _insist(self, put: Callable[[], Any]) -> None:
        """Put something, again and again while the store does not answer."""
        while True:
            try:
                await self._in_thread(put)
                return
            except (StorageError, OSError) as error:
                if not storage.is_transient(error):
                    _log.error("a batch's record cannot be written", extra={"fields": {"error": str(error)}})
                    return
                await asyncio.sleep(WATCH_S)

    async def _watch(self) -> None:
        """Stop batches whose records say that they have ended: cancelled, or done, by another server."""
        while True:
            await asyncio.sleep(WATCH_S)
            for going in list(self._going.values()):
                with contextlib.suppress(RaysegError, OSError):
                    record = await self._in_thread(self.store.read, going.run.id)
                    if record is None or record.ended:
                        going.task.cancel()

    def _keep(self, work: Coroutine[Any, Any, Value]) -> asyncio.Task[Value]:
        """Run `work` until it ends or `close` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._kept)
        return task

    def _kept(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Problem | StorageError):
            _log.error("work on batches failed", exc_info=error)

    async def _in_thread(self, work: Callable[..., Value], *args: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def described(record: BatchRecord, run: BatchRun | None) -> dict[str, Any]:
    """A batch as callers see it; `run` is what is going on here and now."""
    spec = record.spec
    found: dict[str, Any] = {
        "id": record.id,
        "state": record.state if run is None else run.state,
        "model": record.model,
        "images": spec["images"],
        "out": spec["out"],
        "options": {name: spec[name] for name in OPTIONS if spec.get(name) is not None},
        "created": record.created,
        "finished": record.finished,
        "total": record.total,
        "done": record.done,
        "failed": record.failed,
        "rate": None,
        "eta_s": None,
        "error": record.error if run is None else run.error,
    }
    if run is not None and run.meter is not None:
        now = run.meter.snapshot()
        found |= {"total": now.total, "done": now.stored, "failed": now.failed, "rate": now.rate, "eta_s": now.eta_s}
    return found


OPTIONS = ("score_threshold", "iou_threshold", "max_detections", "limit", "column", "images_root")


def _counts(run: BatchRun) -> dict[str, Any]:
    if run.meter is None:
        return {}
    return {"total": run.meter.total, "done": run.meter.stored, "failed": run.meter.failed}


def _overlap(a: str, b: str) -> bool:
    """Whether one of two folders lies in the other, or is it."""
    a, b = a.rstrip("/") + "/", b.rstrip("/") + "/"
    return a.startswith(b) or b.startswith(a)


def _unstored(error: StorageError) -> Problem:
    _log.error("the records of batches", extra={"fields": {"error": str(error)}})
    return busy("the store that holds the records of batches does not answer; try again", 5)
