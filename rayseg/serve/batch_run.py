"""One batch from its record to its end: lock, plan or go on, chunks to the replicas, manifest. As `rayseg label` does it.

What passes by itself is waited for: a store that does not answer, replicas that come and go, another run that writes the
same output. What does not pass ends the batch with its reason. Whatever stops it, nothing written so far is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rayseg import storage
from rayseg.errors import JobError, RaysegError
from rayseg.formats.parts import RowError
from rayseg.outputs import lock as locks
from rayseg.outputs.driver import Driver
from rayseg.outputs.ledger import Ledger
from rayseg.outputs.lock import Lock
from rayseg.outputs.plan import plan_uris
from rayseg.outputs.progress import Meter
from rayseg.outputs.spec import OutputSpec
from rayseg.outputs.writing import Written
from rayseg.serve.batch_store import BatchRecord, State
from rayseg.serve.fair_share import FairShare
from rayseg.serve.labelling import BatchChunk, ChunkFailed, first_error
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem
from rayseg.serve.service import ModelFacts, Replicas
from rayseg.storage import Entry

CHUNK_S, SHORTEST_S = 15.0, 2.0  # what a replica needs for a chunk, about: what a crash may cost, and small change
FIRST_ROWS, MOST_ROWS = 8, 4096
MOST_FAILURES = 5  # of one chunk
LONGEST_WAIT_S = 30.0
FORBIDDEN = 403

Value = TypeVar("Value")
_COUNTED = ("internal", "replica-lost")  # problems that a chunk may itself be the cause of
_log = logging.getLogger("rayseg.serve")


class OutputLocked(RaysegError):
    """Another run writes this output now."""


class Stopped(RaysegError):
    """The batch was stopped while it was planned."""


@dataclass(frozen=True)
class Means:
    """What a batch works with: its model's replicas and what is known of it, its part of them, threads to wait in."""

    replicas: Replicas
    model: ModelFacts
    share: FairShare
    calls: int
    prefixes: Prefixes
    threads: ThreadPoolExecutor
    at_once: asyncio.Semaphore


@dataclass(frozen=True)
class _Fault:
    """Why a chunk has no part yet; `counts` towards giving it up."""

    message: str
    counts: bool


class BatchRun:
    """One batch under way. `state`, `error` and `meter` may be looked at; `changed` is called when `state` has changed.

    `over`: its output is given back, whether its record says so yet or not.
    """

    def __init__(self, record: BatchRecord, means: Means, changed: Callable[[BatchRun], None]) -> None:
        self.id = record.id
        self.spec = OutputSpec(**record.spec)
        self.state: State = "queued"
        self.error: str | None = None
        self.meter: Meter | None = None
        self.over = False
        self._means, self._changed = means, changed
        self._image_s: float | None = None
        self._stopped = False

    async def go(self) -> dict[str, Any]:
        """The manifest. Raises what ended the batch; where it is cancelled, its lock is given back first."""
        try:
            return await self._attempts()
        finally:
            self.over = True

    async def _attempts(self) -> dict[str, Any]:
        tries = 0
        while True:
            try:
                async with self._means.at_once:
                    return await self._attempt()
            except (RaysegError, OSError) as error:
                if not (isinstance(error, OutputLocked) or storage.is_transient(error)):
                    raise
                _log.warning("a batch waits", extra={"fields": {"batch": self.id, "error": str(error)}})
                self._enter("queued", str(error))
                tries += 1
            await asyncio.sleep(_wait_s(tries))

    async def _attempt(self) -> dict[str, Any]:
        lock = await self._acquired()
        try:
            driver = Driver(self.spec, self._means.model, lock, lambda message: None)
            self._enter("planning")
            if await self._begun(driver):
                self._enter("running")
                await self._label(driver, lock)
                return await self._in_thread(driver.finish)
            return driver.manifest or {}
        except JobError as error:
            if lock.lost.is_set():
                raise OutputLocked(str(error)) from None
            raise
        finally:
            await asyncio.shield(self._in_thread(lock.release))

    def _enter(self, state: State, error: str | None = None) -> None:
        self.state, self.error = state, error
        self._changed(self)

    async def _acquired(self) -> Lock:
        """The output's lock; where this is cancelled meanwhile, it is given back as soon as it is there."""
        acquiring = asyncio.get_running_loop().run_in_executor(self._means.threads, _acquire, self.spec.out)
        try:
            return await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            acquiring.add_done_callback(_release_late)
            raise

    async def _begun(self, driver: Driver) -> bool:
        """Whether there is something to label. Planning has ended when this does, also where it is cancelled."""
        beginning = asyncio.ensure_future(self._in_thread(self._begin, driver))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([beginning])
            raise

    def _begin(self, driver: Driver) -> bool:
        return driver.begin(inspect=self._inspect, check_read=self._check_read)

    def _check_read(self, uri: str) -> None:
        """Raise `JobError` for a file that a list names as a part of it and that may not be read."""
        if isinstance(source := self._source(uri), RowError):
            raise JobError(f"images: {source.message}")

    def _inspect(self, page: list[Entry]) -> None:
        if self._stopped:
            raise Stopped("stopped while it was planned")
        for entry in page:
            self._source(entry.uri)

    def _source(self, uri: str) -> str | RowError:
        """Where to read `uri`, or why not where it is spelt as none should be.

        Raises `JobError` for one that is outside the prefixes: a list may hold it, or a plan that lies where others write.
        """
        try:
            return self._means.prefixes.readable(uri)
        except Problem as problem:
            if problem.status == FORBIDDEN:
                raise JobError(f"images: {problem.detail}") from None
            return RowError("read", problem.kind.replace("-", "_"), problem.detail)

    async def _label(self, driver: Driver, lock: Lock) -> None:
        """Bring whatever has no row yet through the replicas."""
        ledger, share = driver.ledger, self._means.share
        self.meter = Meter(ledger.total, stored=ledger.total - ledger.remaining, failed=ledger.counts().failed)
        self.meter.labelled(0)
        left = _Left(ledger)
        share.join(self.id)
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._means.calls):
                    workers.create_task(self._work(driver, lock, left))
        except ExceptionGroup as group:
            raise first_error(group) from None
        finally:
            share.leave(self.id)

    async def _work(self, driver: Driver, lock: Lock, left: _Left) -> None:
        """Label one chunk after the other; one that fails for what passes is tried again."""
        ordinals, failures, tries = np.empty(0, np.int64), 0, 0
        while len(ordinals) or left.count:
            async with self._means.share.call(self.id, self._estimate_s(left.count)) as turn:
                lock.check()
                if not len(ordinals):
                    ordinals = left.take(self._rows(left.count))
                if not len(ordinals):
                    return
                began = time.monotonic()
                fault = await self._try(driver, ordinals)
                turn.seconds = time.monotonic() - began
            if fault is None:
                ordinals, failures, tries = np.empty(0, np.int64), 0, 0
                continue
            failures, tries = failures + fault.counts, tries + 1
            if failures == MOST_FAILURES:
                where = f"images {ordinals[0]} to {ordinals[-1]} of the plan"
                raise JobError(f"{where} were given up after {failures} tries: {fault.message}")
            self.error = fault.message
            await asyncio.sleep(_wait_s(tries))

    async def _try(self, driver: Driver, ordinals: np.ndarray) -> _Fault | None:
        """Have one chunk labelled; None when its part counts. Raises `JobError` for what does not pass."""
        chunk = await self._in_thread(self._chunk, driver, ordinals)
        try:
            outcome = await self._means.replicas.call("label", chunk)
        except Problem as problem:
            return _Fault(problem.detail, problem.kind in _COUNTED)
        if isinstance(outcome, ChunkFailed):
            if not outcome.transient:
                raise JobError(outcome.message)
            return _Fault(outcome.message, outcome.counts)
        self._count(driver.ledger, outcome)
        return None

    def _chunk(self, driver: Driver, ordinals: np.ndarray) -> BatchChunk:
        spec, uris = self.spec, plan_uris(self.spec.out, driver.job.plan, ordinals)
        return BatchChunk(
            write=driver.write,
            fingerprint=self._means.model.fingerprint,
            ordinals=ordinals,
            uris=uris,
            sources=[self._source(uri) for uri in uris],
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            max_detections=spec.max_detections,
            max_pixels=spec.max_pixels,
            max_bytes=spec.max_bytes,
        )

    def _count(self, ledger: Ledger, written: Written) -> None:
        if not ledger.accept(written.part):
            raise JobError(f"{ledger.out}: {written.part.name} holds rows that are there already")
        rows, counts = written.part.rows, written.part.counts
        image_s = written.seconds["busy"] / rows
        self._image_s = image_s if self._image_s is None else (self._image_s + image_s) / 2
        self.error = None
        if self.meter is not None:
            self.meter.labelled(rows)
            self.meter.part(rows, counts["failed"], written.seconds)

    def _rows(self, left: int) -> int:
        """How many images the next chunk takes: as many as fit its time, fewer near the end so that all end together."""
        if self._image_s is None:
            return FIRST_ROWS
        most = min(MOST_ROWS, int(CHUNK_S / self._image_s))
        return max(FIRST_ROWS, int(SHORTEST_S / self._image_s), min(most, -(-left // self._means.calls)))

    def _estimate_s(self, left: int) -> float:
        return SHORTEST_S if self._image_s is None else self._image_s * self._rows(left)

    async def _in_thread(self, work: Callable[..., Value], *args: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._means.threads, work, *args)


class _Left:
    """The ordinals that nobody has taken yet, ascending; `count` of them."""

    def __init__(self, ledger: Ledger) -> None:
        self.count = ledger.remaining
        self._windows: Iterator[np.ndarray] = ledger.done.missing_chunks()
        self._window = np.empty(0, np.int64)

    def take(self, most: int) -> np.ndarray:
        """The next ones, (K,) int64 with K at most `most`; none when all are taken."""
        if not len(self._window):
            self._window = next(self._windows, self._window)
        taken, self._window = self._window[:most], self._window[most:]
        self.count -= len(taken)
        return taken


def _acquire(out: str) -> Lock:
    storage.check_output(out)
    try:
        return locks.acquire(out)
    except JobError as error:
        raise OutputLocked(str(error)) from None


def _release_late(acquiring: asyncio.Future[Lock]) -> None:
    if not acquiring.cancelled() and acquiring.exception() is None:
        threading.Thread(target=acquiring.result().release, name="rayseg-release", daemon=True).start()


def _wait_s(tries: int) -> float:
    """Longer from try to try, and not the same for all who wait."""
    return random.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, 2.0 ** min(tries, 10) / 2)
