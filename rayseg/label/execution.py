"""One execution of the pipeline: start it, store what comes out as it comes, stop it without losing anything."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.exceptions import RayError

from rayseg.errors import JobError, RaysegError, StorageError
from rayseg.label import chunks, pipeline
from rayseg.label.commit import Committer
from rayseg.label.source import ReadJob
from rayseg.label.spec import LabelSpec
from rayseg.label.worker import WorkerJob
from rayseg.models.cards import ModelInfo
from rayseg.outputs.ledger import Ledger
from rayseg.outputs.lock import Lock
from rayseg.outputs.plan import PlanInfo
from rayseg.outputs.progress import Meter, Reporter
from rayseg.outputs.writing import WriteJob

POLL_S = 0.25
MOST_CHUNKS_WAITING = 16

Chunk = tuple["ray.ObjectRef[pa.Table]", int]  # a packed chunk of result rows, and its bytes


class Interrupted(JobError):
    """Ctrl-C: what was finished is stored, the same command goes on from there."""


@dataclass(frozen=True)
class Watch:
    """What a driver keeps an eye on while the pipeline runs."""

    lock: Lock
    meter: Meter
    report: Reporter


class Execution:
    """One execution of the pipeline over everything that has no row yet."""

    def __init__(
        self, spec: LabelSpec, model: ModelInfo, plan: PlanInfo, ledger: Ledger, write: WriteJob, watch: Watch
    ) -> None:
        self._ledger, self._watch = ledger, watch
        have = pipeline.resources(spec)
        self._committer = Committer(write, spec.part_bytes, spec.flush_s, have.writers)
        self._chunk_rows = pipeline.chunk_rows(model.preprocess, ledger.remaining, have.workers)
        read = ReadJob(spec.out, plan, model.preprocess, self._chunk_rows, spec.max_pixels, spec.max_bytes)
        work = WorkerJob(spec, model.fingerprint, have.device, have.threads)
        batches = pipeline.task_batches(ledger.done, self._chunk_rows, have.workers)
        self._dataset = pipeline.build(read, work, have, batches)

    def go(self) -> None:
        """Run to the end; whatever goes wrong, what is finished is stored first."""
        try:
            for ref, size_bytes in _Stream(self._dataset, self._idle):
                self._note_start(ref)
                self._committer.add(ref, size_bytes)
                self._watch.meter.labelled(self._chunk_rows)
                while self._committer.full:
                    self._idle(POLL_S)
            self._store_rest()
        except KeyboardInterrupt:
            self._store_rest()
            left = self._ledger.remaining
            raise Interrupted(f"stopped; {left:,} images left. Run the same command again to go on.") from None
        except RayError as error:
            with contextlib.suppress(RaysegError):
                self._store_rest()
            raise _cause(error) from error

    def _note_start(self, ref: ray.ObjectRef[pa.Table]) -> None:
        """Start-up ends where the first chunk that comes out went into its model."""
        if self._watch.meter.started is None:
            _, seconds = chunks.unpack(ray.get(ref))
            self._watch.meter.started = time.monotonic() - seconds["detect"] - seconds["finish"]

    def _idle(self, wait_s: float = 0) -> None:
        """Between chunks, and while waiting for one: store what is due, count what is stored, show it."""
        self._watch.lock.check()
        self._committer.flush_if_due()
        self._count(wait_s)
        self._watch.report.show(self._watch.meter.snapshot())

    def _store_rest(self) -> None:
        self._committer.flush()
        self._count(None)

    def _count(self, wait_s: float | None) -> None:
        for ref in self._committer.finished(wait_s):
            try:
                written = ray.get(ref)
            except RayError as error:
                if isinstance(cause := _cause(error), StorageError):
                    raise cause from error
                self._watch.report.say(f"a part was lost before it was stored, its images are left to do: {error}")
                continue
            if self._ledger.accept(written.part):
                self._watch.meter.part(written.part.rows, written.part.counts["failed"], written.seconds)


class _Stream:
    """Chunks of a running data set; `idle` is called between them and at least every `POLL_S` seconds.

    While chunks are not taken, Ray Data holds back its tasks.
    """

    def __init__(self, dataset: Dataset, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._queue: queue.Queue[Any] = queue.Queue(MOST_CHUNKS_WAITING)
        threading.Thread(target=self._consume, args=(dataset,), name="rayseg-chunks", daemon=True).start()

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            self._idle()
            try:
                item = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _consume(self, dataset: Dataset) -> None:
        try:
            for bundle in dataset.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    self._queue.put((entry.ref, entry.metadata.size_bytes or 0))
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)


def _cause(error: RayError) -> RaysegError:
    """The error of ours inside a Ray error, or a `JobError` that quotes Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RaysegError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    cause = getattr(error, "cause", None) or error
    return JobError(
        f"the pipeline stopped: {type(cause).__name__}: {cause}\nWhat is stored is kept; run again to go on."
    )
