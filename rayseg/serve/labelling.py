"""One chunk of a batch inside a replica: its images read, decoded, labelled and put as one part of the batch's output.

Images are taken as they are ready, whatever their order, so that a slow read holds up nobody and what is decoded never waits
for what is not: rows are sorted when the part is made. The model is the scheduler's to share out: online images go first. A
replica works on few chunks at a time, and holds few decoded pixels for them; further chunks wait, which costs nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rayseg import images, storage
from rayseg.errors import ImageError, ModelError, RaysegError
from rayseg.formats.parts import RowError, rows_table
from rayseg.models.predictor import Predictor
from rayseg.models.preprocess import Prepared
from rayseg.models.thresholds import Thresholds
from rayseg.outputs.loading import prepare_image, read_image
from rayseg.outputs.writing import WriteJob, Written, put_part
from rayseg.records import Instances
from rayseg.serve.limits import Budget
from rayseg.serve.scheduling import ForwardFailed, Scheduler
from rayseg.serve.spec import ServeSpec

CHUNKS_AT_ONCE = 2  # one has the model while the other is read, or written
READ_AHEAD = 8  # images of a chunk that are read, decoded or ready
DECODE_THREADS = 2
_PIXELS = 3  # images of the largest size that may be decoded at a time

Value = TypeVar("Value")
Result = Instances | RowError


@dataclass(frozen=True)
class BatchChunk:
    """What one call labels: K images, and where their rows go.

    ordinals  (K,) int64, ascending
    uris      as the plan has them, and as their rows will
    sources   where they are read from, found to be allowed, or why they are not
    """

    write: WriteJob
    fingerprint: str
    ordinals: np.ndarray
    uris: list[str]
    sources: list[str | RowError]
    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    max_pixels: int
    max_bytes: int

    def thresholds(self, own: Thresholds) -> Thresholds:
        """The model's `own` with what the batch asks for."""
        return Thresholds(
            own.score if self.score_threshold is None else self.score_threshold,
            own.iou if self.iou_threshold is None else self.iou_threshold,
            own.max_detections if self.max_detections is None else self.max_detections,
            own.mask,
        )


@dataclass(frozen=True)
class ChunkFailed:
    """Why there is no part; `transient`: the same chunk may well succeed later. `counts`: it may itself be the cause."""

    message: str
    transient: bool
    counts: bool = False


def chunk_calls(spec: ServeSpec) -> int:
    """Chunks of all batches on one model that are under way at a time: enough to call for every replica there may be."""
    return math.ceil(max(float(CHUNKS_AT_ONCE), spec.target_ongoing_requests) * spec.max_replicas)


class Labeller:
    """Of one replica; `own` are the thresholds of its model."""

    def __init__(self, predictor: Predictor, scheduler: Scheduler, own: Thresholds, spec: ServeSpec) -> None:
        self.predictor, self.scheduler, self.own = predictor, scheduler, own
        self.most_in_group = 2 * spec.max_batch
        self.pixels = Budget(_PIXELS * spec.max_pixels)
        self.reading = ThreadPoolExecutor(CHUNKS_AT_ONCE * READ_AHEAD, "rayseg-batch-read")
        self.decoding = ThreadPoolExecutor(DECODE_THREADS, "rayseg-batch-decode")
        self._at_once = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def label(self, chunk: BatchChunk) -> Written | ChunkFailed:
        """Label the images of `chunk` and put their part, whose name follows from them: a second call does no harm."""
        if chunk.fingerprint != self.predictor.fingerprint:
            found = f"expected fingerprint {chunk.fingerprint[:12]}, found {self.predictor.fingerprint[:12]}"
            return ChunkFailed(f"the model has changed since the batch was started: {found}", transient=False)
        async with self._at_once:
            began = time.perf_counter()
            try:
                results = await _Labelling(self, chunk).results()
                part = await in_threads(self.reading, self._put, chunk, results)
            except ForwardFailed as error:
                return ChunkFailed(f"{error}; the server's log says why", transient=True, counts=True)
            except (RaysegError, OSError) as error:
                return ChunkFailed(str(error), storage.is_transient(error))
            return Written(part, {"busy": time.perf_counter() - began})

    def _put(self, chunk: BatchChunk, results: list[Result]) -> Any:
        rows = rows_table(chunk.ordinals, chunk.uris, results, self.predictor.class_names)
        return put_part(chunk.write, rows)


class _Labelling:
    """One chunk under way: each image is a task that loads it and waits for its turn; one loop takes groups of them."""

    def __init__(self, labeller: Labeller, chunk: BatchChunk) -> None:
        self._labeller, self._chunk = labeller, chunk
        self._thresholds = chunk.thresholds(labeller.own)
        self._ready: asyncio.Queue[tuple[Prepared, asyncio.Future[Result]]] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(READ_AHEAD)
        self._results: list[Result | None] = [None] * len(chunk.uris)

    async def results(self) -> list[Result]:
        """What became of each image, in the chunk's order. Raises `StorageError` where storage does not answer, and
        `ForwardFailed` where the model does not."""
        try:
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(self._take_groups())
                async with asyncio.TaskGroup() as images_under_way:
                    for place in range(len(self._chunk.uris)):
                        await self._ahead.acquire()
                        images_under_way.create_task(self._one(place))
                taking.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from None
        return [result for result in self._results if result is not None]

    async def _one(self, place: int) -> None:
        source = self._chunk.sources[place]
        data = source if isinstance(source, RowError) else await in_threads(self._labeller.reading, self._read, source)
        self._results[place] = data if isinstance(data, RowError) else await self._labelled(data)
        self._ahead.release()

    async def _labelled(self, data: bytes) -> Result:
        async with self._labeller.pixels.held(self._declared_pixels(data)):
            prepared = await in_threads(self._labeller.decoding, self._prepare, data)
            if isinstance(prepared, RowError):
                return prepared
            result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            self._ready.put_nowait((prepared, result))
            return await result

    def _read(self, source: str) -> bytes | RowError:
        return read_image(lambda: storage.read(source, max_bytes=self._chunk.max_bytes))

    def _prepare(self, data: bytes) -> Prepared | RowError:
        chunk = self._chunk
        preprocess = self._labeller.predictor.preprocess
        return prepare_image(data, preprocess, max_pixels=chunk.max_pixels, max_bytes=chunk.max_bytes)

    def _declared_pixels(self, data: bytes) -> int:
        """How many pixels decoding will need room for; 0 where it will refuse."""
        try:
            declared = images.header(data)
        except ImageError:
            return 0
        pixels = declared.width * declared.height
        return pixels if pixels <= self._chunk.max_pixels else 0

    async def _take_groups(self) -> None:
        """Bring what is ready through the model, as much at a time as a few forwards take."""
        while True:
            group = [await self._ready.get()]
            while len(group) < self._labeller.most_in_group and not self._ready.empty():
                group.append(self._ready.get_nowait())
            await self._take(group)

    async def _take(self, group: list[tuple[Prepared, asyncio.Future[Result]]]) -> None:
        prepared = [image for image, _ in group]
        found = await self._labeller.scheduler.results(prepared, online=False, thresholds=self._thresholds)
        for one, (image, result) in zip(found, group, strict=True):
            if result.done():
                continue
            if isinstance(one, ModelError):
                result.set_result(RowError("model", one.kind, str(one), image.image_hw))
            elif isinstance(one, RaysegError):
                result.set_exception(one)
            else:
                result.set_result(one)


def first_error(group: ExceptionGroup) -> Exception:
    """The first error inside a group, one of ours before others."""
    flat = [first_error(error) if isinstance(error, ExceptionGroup) else error for error in group.exceptions]
    return next((error for error in flat if isinstance(error, RaysegError)), flat[0])


async def in_threads(threads: ThreadPoolExecutor, work: Callable[..., Value], *args: Any) -> Value:
    """What `work` returns, done by one of `threads` while the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(threads, work, *args)
