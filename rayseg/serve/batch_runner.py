"""All batches of a server: asked for, going on after a restart, listed, cancelled. A plain class; one of it runs.

Its methods are called by `batch_routes` through Ray Serve, so what a caller did wrong comes back as a `Problem`. What it
knows is in storage (`batch_store`, and each batch's output); a new one starts from there, wherever the last one was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from rayseg import storage
from rayseg.errors import JobError, RaysegError, StorageError, UsageError
from rayseg.serve.batch_requests import Asking, BatchRequest, counts, described, overlap, unstored
from rayseg.serve.batch_run import BatchRun, Means
from rayseg.serve.batch_store import BatchRecord, BatchStore, State, is_id, new_record
from rayseg.serve.fair_share import FairShare
from rayseg.serve.labelling import chunk_calls
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem, busy
from rayseg.serve.service import ModelFacts, Replicas
from rayseg.serve.spec import ServeSpec

MOST_AT_ONCE = 8  # batches under way; the others are queued
MOST_UNENDED = 1000
WATCH_S = 5.0
RESUME_WAIT_S = 10.0  # that a new batch waits until those of before the restart are known
_THREADS = 4 * MOST_AT_ONCE

Value = TypeVar("Value")
_log = logging.getLogger("rayseg.serve")


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
        self._asking = Asking(spec, facts, prefixes, self.store)
        self._facts, self._replicas, self._prefixes = facts, replicas, prefixes
        self._calls = chunk_calls(spec)
        self._shares = {name: FairShare(self._calls) for name in facts}
        self._threads = ThreadPoolExecutor(_THREADS, "rayseg-batches")
        self._going: dict[str, _Going] = {}
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)
        self._creating = asyncio.Lock()
        self._resumed = asyncio.Event()
        self._stuck: dict[str, str] = {}  # batches that cannot go on here, and why
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
            return unstored(error)

    async def listing(self, limit: int) -> dict[str, Any] | Problem:
        """The latest batches first."""
        try:
            records = await self._in_thread(self.store.newest, limit)
        except StorageError as error:
            return unstored(error)
        return {"batches": [self._described(record) for record in records]}

    async def get(self, id: str) -> dict[str, Any] | Problem:
        """One batch as it is now."""
        try:
            return self._described(await self._found(id))
        except Problem as problem:
            return problem
        except StorageError as error:
            return unstored(error)

    async def cancel(self, id: str) -> dict[str, Any] | Problem:
        """Cancel a batch, which it says of itself then; one that has ended stays as it is. Outputs stay."""
        try:
            record = await self._found(id)
            if record.ended:
                return self._described(record)
            going = self._going.get(id)
            reached = counts(going.run) if going else {}
            changed = await self._in_thread(
                self.store.update, id, lambda found: found.with_state("cancelled", **reached)
            )
            if going is not None:
                going.task.cancel()
            return self._described(changed or record)
        except Problem as problem:
            return problem
        except StorageError as error:
            return unstored(error)

    async def forget(self, id: str) -> Problem | None:
        """Remove the record of a batch that has ended. Outputs stay."""
        try:
            if not (await self._found(id)).ended:
                raise Problem(409, "not-ended", f"batch {id} has not ended; cancel it first")
            await self._in_thread(self.store.remove, id)
        except Problem as problem:
            return problem
        except StorageError as error:
            return unstored(error)

    # ---- asking

    async def _created(self, request: BatchRequest) -> dict[str, Any]:
        async with self._creating:
            return await self._create(request)

    async def _create(self, request: BatchRequest) -> dict[str, Any]:
        model = self._asking.model(request.model)
        await self._wait_until_resumed()
        spec = await self._in_thread(self._asking.output_spec, request, model)
        for going in [going for going in self._going.values() if not going.run.over]:
            if going.run.spec == spec and not going.task.cancelling():
                return self._described(going.record)
            if overlap(going.run.spec.out, spec.out):
                raise Problem(409, "output-in-use", f"out: batch {going.run.id} is writing {going.run.spec.out}")
        if len(self._going) >= MOST_UNENDED:
            raise busy(f"{MOST_UNENDED} batches wait or run; try again when some have ended", 60)
        record = new_record(model.name, spec.model_dump())
        try:
            await self._in_thread(self.store.add, record)
        except StorageError:
            self._keep(self._adopt(record))
            raise
        self._go(record)
        return self._described(record)

    async def _wait_until_resumed(self) -> None:
        """Else what is under way already would be created a second time."""
        try:
            await asyncio.wait_for(self._resumed.wait(), RESUME_WAIT_S)
        except TimeoutError:
            raise busy("the batches that there are, are still being looked up; try again", 5) from None

    async def _adopt(self, record: BatchRecord) -> None:
        """Run a batch whose record may have been put though the store did not say so; nobody else would."""
        found = None
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                found = await self._in_thread(self.store.read, record.id)
                break
            except StorageError as error:
                _log.warning("a batch's record cannot be read yet", extra={"fields": {"error": str(error)}})
        if found is None or found.ended or found.id in self._going:
            return
        if any(overlap(going.run.spec.out, record.spec["out"]) for going in self._going.values()):
            await self._insist(lambda: self.store.remove(record.id))  # it was asked for again meanwhile
        else:
            self._go(found)

    async def _found(self, id: str) -> BatchRecord:
        try:
            record = await self._in_thread(self.store.read, id) if is_id(id) else None
        except JobError as error:
            _log.error("a record cannot be read", extra={"fields": {"batch": id, "error": str(error)}})
            raise Problem(404, "unknown-batch", f"the record of batch {id} is damaged; the log says how") from None
        if record is None:
            raise Problem(404, "unknown-batch", f"there is no batch {id[:64]!r}")
        return record

    def _described(self, record: BatchRecord) -> dict[str, Any]:
        going = self._going.get(record.id)
        if record.ended or going is None:
            stuck = None if record.ended else self._stuck.get(record.id)
            return described(record, None) | ({"error": stuck} if stuck else {})
        return described(record, going.run)

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
            if record.ended or record.id in self._going:
                continue
            try:
                self._go(record)
            except (KeyError, ValueError) as error:
                known = record.model in self._facts
                why = "its record is of another version" if known else f"there is no model {record.model!r} here now"
                self._stuck[record.id] = f"it cannot go on: {why}"
                fields = {"batch": record.id, "why": why, "error": str(error)}
                _log.error("a batch cannot go on", extra={"fields": fields})
        self._resumed.set()

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
            whole = {"total": manifest["inputs"], "done": manifest["inputs"], "failed": manifest["failed"]}
            await self._end(run, "done", whole)
        except (RaysegError, OSError) as error:
            await self._end(run, "failed", counts(run) | {"error": str(error)})
        except Exception as error:
            _log.error("a batch failed", extra={"fields": {"batch": run.id}}, exc_info=error)
            await self._end(run, "failed", counts(run) | {"error": "failed on our side; the server's log says why"})
        finally:
            self._going.pop(run.id, None)

    async def _end(self, run: BatchRun, state: State, changes: Mapping[str, Any]) -> None:
        _log.info("a batch ended", extra={"fields": {"batch": run.id, "state": state, **changes}})
        await self._insist(lambda: self.store.update(run.id, lambda record: record.with_state(state, **changes)))

    def _note(self, run: BatchRun) -> None:
        """Put a batch's new state into its record, in its own time; the latest one, whichever put is the last."""
        self._keep(
            self._insist(lambda: self.store.update(run.id, lambda record: record.with_state(run.state, **counts(run))))
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
