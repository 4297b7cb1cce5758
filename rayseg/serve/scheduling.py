"""Whose images go through the model next, inside one replica. Knows nothing of Ray, HTTP or the model.

One forward runs at a time, in a thread; masks are finished in other threads beside it. Online images go first, in batches
of those that share their thresholds and came while the last forward ran. Images of batch jobs fill in when no online image
waits, in small bites, one job's after another's: an online image waits for one forward at most.

The time that a forward took per image so far decides how many go into the next: as many as fit into `forward_target_s`,
so that nobody waits long for a batch that brings nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field

import numpy as np

from rayseg.errors import ModelError, RaysegError
from rayseg.models.preprocess import Prepared
from rayseg.models.thresholds import Thresholds
from rayseg.records import Instances, RawDetections

_log = logging.getLogger("rayseg.serve")
Image = Prepared | np.ndarray
Detect = Callable[[Sequence[Image], Thresholds], list[RawDetections]]
Finish = Callable[[RawDetections], Instances]


class QueueFull(RaysegError):
    """More online images wait already than may."""


class ForwardFailed(RaysegError):
    """The model failed where it should have answered: no fault of the image that anybody knows of; the log says more."""


@dataclass(slots=True)
class Times:
    """Seconds that a run's images took, the longest of each, and how many images shared a forward."""

    queue_s: float = 0.0
    forward_s: float = 0.0
    finish_s: float = 0.0
    batch: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    """Images of one call, those that wait and what became of those that do not."""

    images: Sequence[Image]
    thresholds: Thresholds
    future: asyncio.Future[None]
    results: list[Instances | RaysegError | None]
    times: Times
    since: float = field(default_factory=time.perf_counter)
    next: int = 0
    left: int = 0

    def take(self, most: int) -> list[tuple[_Job, int]]:
        """The next images, by place."""
        first, self.next = self.next, min(self.next + most, len(self.images))
        return [(self, place) for place in range(first, self.next)]

    @property
    def taken(self) -> bool:
        return self.next == len(self.images)


class Scheduler:
    """`run` and `results` may be called by many tasks of one event loop; `close` ends it.

    `thresholds` are those of calls that name none: the model's own.
    """

    def __init__(
        self,
        detect: Detect,
        finish: Finish,
        *,
        thresholds: Thresholds | None = None,
        max_batch: int = 8,
        max_waiting: int = 256,
        batch_wait_s: float = 0.0,
        forward_target_s: float = 0.25,
        finish_threads: int = 2,
    ) -> None:
        self._detect, self._finish, self._thresholds = detect, finish, thresholds or Thresholds()
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._batch_wait_s, self._forward_target_s = batch_wait_s, forward_target_s
        self._online: deque[_Job] = deque()
        self._batch: deque[_Job] = deque()
        self._waiting = 0
        self._image_s: float | None = None
        self._forward_thread = ThreadPoolExecutor(1, "rayseg-forward")
        self._finish_threads = ThreadPoolExecutor(finish_threads, "rayseg-finish")
        self._woken = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    @property
    def online_waiting(self) -> int:
        """Online images that no forward has taken yet."""
        return self._waiting

    async def run(
        self,
        images: Sequence[Image],
        *,
        online: bool,
        thresholds: Thresholds | None = None,
        times: Times | None = None,
    ) -> list[Instances]:
        """The instances of each image, in order. Raises what `results` would hold, and `QueueFull`."""
        found = await self.results(images, online=online, thresholds=thresholds, times=times)
        for result in found:
            if isinstance(result, RaysegError):
                raise result
        return [result for result in found if isinstance(result, Instances)]

    async def results(
        self,
        images: Sequence[Image],
        *,
        online: bool,
        thresholds: Thresholds | None = None,
        times: Times | None = None,
    ) -> list[Instances | RaysegError]:
        """As `run`, but in place of an image that the model cannot take, even alone, is its `ModelError`, and a
        `ForwardFailed` where the model failed.

        When the caller is cancelled, its images leave the queue. Raises `QueueFull` for online images beyond the most
        that may wait.
        """
        if not images:
            return []
        if online and self._waiting + len(images) > self._max_waiting:
            raise QueueFull(f"{self._waiting} images wait already, at most {self._max_waiting} may")
        loop = asyncio.get_running_loop()
        none: list[Instances | RaysegError | None] = [None] * len(images)
        job = _Job(
            images, thresholds or self._thresholds, loop.create_future(), none, times or Times(), left=len(images)
        )
        lane = self._online if online else self._batch
        lane.append(job)
        self._waiting += len(images) if online else 0
        self._wake()
        try:
            await job.future
        finally:
            self._forget(job, online)
        return [result for result in job.results if result is not None]

    async def close(self) -> None:
        """End the driver; what waits is cancelled."""
        if self._driver is not None:
            self._driver.cancel()
        for job in (*self._online, *self._batch):
            job.future.cancel()
        self._forward_thread.shutdown(wait=False)
        self._finish_threads.shutdown(wait=False)

    def _wake(self) -> None:
        if self._driver is None or self._driver.done():
            work = self._drive()  # for all callers: what it does and logs is not the first one's
            self._driver = asyncio.get_running_loop().create_task(work, context=Context())
        self._woken.set()

    def _forget(self, job: _Job, online: bool) -> None:
        """Take what is left of a job that was given up out of its queue."""
        lane = self._online if online else self._batch
        if job in lane:
            lane.remove(job)
        if online:
            self._waiting -= len(job.images) - job.next
        job.next = len(job.images)

    async def _drive(self) -> None:
        while True:
            await self._woken.wait()
            if self._batch_wait_s and self._online and self._waiting < self._most():
                await asyncio.sleep(self._batch_wait_s)
            bite = self._next_bite()
            if not bite:
                self._woken.clear()
                continue
            await self._forward(bite)

    def _most(self) -> int:
        """How many images fit the time that a forward should take."""
        if not self._image_s:
            return 1 if self._image_s is None else self._max_batch
        return max(1, min(self._max_batch, int(self._forward_target_s / self._image_s)))

    def _next_bite(self) -> list[tuple[_Job, int]]:
        """Online images of one kind of thresholds, oldest first; without any, the next batch job's."""
        if self._online:
            return self._online_bite()
        if not self._batch:
            return []
        job = self._batch.popleft()
        bite = job.take(self._most())
        if not job.taken:
            self._batch.append(job)  # behind the others: they share the model evenly
        return bite

    def _online_bite(self) -> list[tuple[_Job, int]]:
        most, thresholds = self._most(), self._online[0].thresholds
        bite: list[tuple[_Job, int]] = []
        for job in list(self._online):
            if len(bite) == most:
                break
            if job.thresholds == thresholds:
                bite += job.take(most - len(bite))
                if job.taken:
                    self._online.remove(job)
        self._waiting -= len(bite)
        return bite

    async def _forward(self, bite: list[tuple[_Job, int]]) -> None:
        began = time.perf_counter()
        images, thresholds = [job.images[place] for job, place in bite], bite[0][0].thresholds
        loop = asyncio.get_running_loop()
        raws = await loop.run_in_executor(self._forward_thread, self._detected, images, thresholds)
        seconds = time.perf_counter() - began
        self._image_s = _smoothed(self._image_s, seconds / len(bite))
        for (job, place), raw in zip(bite, raws, strict=True):
            job.times.queue_s = max(job.times.queue_s, began - job.since)
            job.times.forward_s = max(job.times.forward_s, seconds)
            job.times.batch = max(job.times.batch, len(bite))
            if isinstance(raw, RawDetections):
                task = loop.create_task(self._finished(job, place, raw))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)
            else:
                _settle(job, place, raw)

    def _detected(self, images: Sequence[Image], thresholds: Thresholds) -> list[RawDetections | RaysegError]:
        """Detections per image; where a batch does not go through, each image alone."""
        try:
            return list(self._detect(images, thresholds))
        except ModelError as error:
            if len(images) == 1:
                return [error]
        except Exception as error:
            if len(images) == 1:
                return [_failure("the model failed", error)]
        return [result for image in images for result in self._detected([image], thresholds)]

    async def _finished(self, job: _Job, place: int, raw: RawDetections) -> None:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._finish_threads, self._finish, raw)
        except Exception as error:
            _settle(job, place, _failure("masks could not be made", error))
            return
        job.times.finish_s = max(job.times.finish_s, time.perf_counter() - began)
        _settle(job, place, found)


def _failure(what: str, error: Exception) -> ForwardFailed:
    _log.error(what, exc_info=error)
    return ForwardFailed(what)


def _settle(job: _Job, place: int, result: Instances | RaysegError) -> None:
    job.results[place] = result
    job.left -= 1
    if job.left == 0 and not job.future.done():
        job.future.set_result(None)


def _smoothed(before: float | None, now: float) -> float:
    """A mean that forgets: the first forward, which warms up, soon counts for little."""
    return now if before is None else before + 0.3 * (now - before)
