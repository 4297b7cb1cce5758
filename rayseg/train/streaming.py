"""Slices from Ray Data: tasks anywhere in the cluster read, decode, augment and batch them while workers compute.

Each worker streams the slices that are its own, in their order, a task for several: which step sees which images is decided
by `order` alone, so nothing changes with the number of workers or tasks, and a run goes on in the middle of an epoch.
"""

from __future__ import annotations

import functools
import itertools
import math
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.data import DataContext, Dataset, Datasource, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata

from rayseg.errors import JobError, RaysegError
from rayseg.train import slice_bytes
from rayseg.train.augmentation import Augmentation
from rayseg.train.loading import load_slice
from rayseg.train.loop import TensorSlice
from rayseg.train.order import Order, Slice
from rayseg.train.records import Records

AHEAD_BYTES = 512 << 20  # most bytes of slices that wait in the object store for one worker
SEGMENTS = (8, 16)  # tasks of one execution: a short run loads little in vain, a long one starts anew rarely
TASK_PIXELS = 16 << 20  # what a task loads: Ray Data's work for it, 20 ms of the worker's interpreter, is to be little
TASK_IMAGES = 128  # at most
SAMPLE = 64  # images that are asked for their size
PATIENCE_S = 120.0  # with tasks that bring nothing: there may be no room for them
_POLL_S = 0.5
_SLICES = pa.schema([("slice", pa.large_binary())])


class NothingLoaded(JobError):
    """Tasks have brought nothing for `PATIENCE_S`."""


@dataclass(frozen=True)
class Loading:
    """What every task needs to know."""

    data: ray.ObjectRef[Records]
    order: Order
    augmentation: Augmentation


@dataclass(frozen=True, slots=True)
class Tasks:
    """How the tasks of one worker run: `count` at a time, each on `cpus()` CPUs and for `slices`; `ahead` steps wait."""

    count: int
    cpus: Callable[[], float]  # asked again for every execution, as the cluster may have changed
    ahead: int = 4
    slices: int = 1


def slices_per_task(data: Records, micro_batch: int) -> int:
    """How many slices make a task that is worth its start: many of small images, few of large ones."""
    ranks = range(0, len(data), max(1, len(data) // SAMPLE))
    sizes = [math.prod(hw) for rank in ranks if (hw := data.image(rank).image_hw) is not None]
    images = min(TASK_IMAGES, TASK_PIXELS * len(sizes) // sum(sizes)) if sizes else 1
    return max(1, images // micro_batch)


def streamed(
    loading: Loading, tasks: Tasks, *, first_step: int, rank: int, workers: int
) -> Generator[Sequence[TensorSlice], None, None]:
    """The slices of each step from `first_step` on that are worker `rank`'s, without end; see `loading.batches`.

    Raises what reading an image raises, at its step; Ray's own error where tasks fail, `NothingLoaded` where none comes to an
    end for a while.
    """
    steps = _Ahead(_steps(loading, tasks, loading.order.of_worker(first_step, rank, workers)), tasks.ahead)
    try:
        while True:
            yield steps.next()
    finally:
        steps.close()


class _Ahead:
    """What an iterator brings, in a thread of its own, up to `most` items before they are asked for."""

    def __init__(self, items: Iterator[Any], most: int) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(most)
        self._stop = threading.Event()
        threading.Thread(target=self._fill, args=(items,), name="rayseg-stream", daemon=True).start()

    def next(self, timeout_s: float | None = None) -> Any:
        """The next item. Raises what the iterator raised in its place, and `queue.Empty` after `timeout_s`."""
        item = self._waiting.get(timeout=timeout_s)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Ask for no more items."""
        self._stop.set()

    def _fill(self, items: Iterator[Any]) -> None:
        while not self._stop.is_set():
            try:
                item = next(items)
            except BaseException as error:  # raised again in the loop, at the step that it is about
                item = error
            while not self._stop.is_set():
                try:
                    self._waiting.put(item, timeout=_POLL_S)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return


class _Segment:
    """Steps that one execution of Ray Data loads, which starts at once."""

    def __init__(self, loading: ray.ObjectRef[Loading], tasks: Tasks, steps: list[list[Slice]]) -> None:
        self.steps = steps
        slices = [one for step in steps for one in step]
        self._execution = _Execution(loading, tasks, slices) if slices else None
        self._packed = self._bytes()

    def next(self) -> TensorSlice:
        """The next slice of the steps, in their order. Raises the error that went in its place."""
        return slice_bytes.unpack(next(self._packed))

    def _bytes(self) -> Iterator[pa.Buffer]:
        while self._execution is not None:
            for packed in self._execution.next()["slice"]:
                yield packed.as_buffer()

    def close(self) -> None:
        if self._execution is not None:
            self._execution.close()


class _Execution:
    """Tasks that load slices, and the tables that they make, in order."""

    def __init__(self, loading: ray.ObjectRef[Loading], tasks: Tasks, slices: list[Slice]) -> None:
        self._cpus = tasks.cpus()
        self._dataset = _dataset(loading, tasks.count, self._cpus, tasks.slices, slices)
        self._executor = self._dataset._create_executor()  # kept, since only it can end tasks that do not start
        self._blocks = _Ahead(self._references(), 2)

    def next(self) -> Any:
        """The next table. Raises `NothingLoaded` where it does not come."""
        try:
            return ray.get(self._blocks.next(PATIENCE_S))
        except queue.Empty:
            free, found = (of.get("CPU", 0) for of in (ray.available_resources(), ray.cluster_resources()))
            raise NothingLoaded(
                f"no task that loads images has come to an end for {PATIENCE_S:g} s; each takes {self._cpus:g} CPU, and "
                f"{free:g} of {found:g} are free in the cluster"
            ) from None

    def close(self) -> None:
        """End the tasks, those that wait for their start as well."""
        self._blocks.close()
        self._executor.shutdown(force=False)

    def _references(self) -> Iterator[Any]:
        for bundle in self._dataset._build_bundle_iterator(self._executor):
            for entry in bundle.blocks:
                yield entry.ref


def _steps(loading: Loading, tasks: Tasks, steps: Iterator[list[Slice]]) -> Iterator[list[TensorSlice]]:
    """Slices of each step; the next execution starts before the last one has ended, so that no step waits for its start."""
    ref = ray.put(loading)
    segments = (_Segment(ref, tasks, one) for one in _segments(steps, tasks.slices))
    now, then = next(segments), None
    try:
        while True:
            for number, step in enumerate(now.steps):
                if then is None and 2 * number >= len(now.steps):
                    then = next(segments)
                yield [now.next() for _ in step]
            now.close()
            now, then = then or next(segments), None
    finally:
        for one in (now, then):
            if one is not None:
                one.close()


def _segments(steps: Iterator[list[Slice]], per_task: int) -> Iterator[list[list[Slice]]]:
    for most in itertools.chain(SEGMENTS, itertools.repeat(SEGMENTS[-1])):
        segment: list[list[Slice]] = []
        while sum(map(len, segment)) < most * per_task and len(segment) < SEGMENTS[-1] * per_task:
            segment.append(next(steps))  # there may be steps without any for us
        yield segment


def _dataset(loading: ray.ObjectRef[Loading], count: int, cpus: float, per_task: int, slices: list[Slice]) -> Dataset:
    """A lazy Ray Data set of one row per slice, in their order; a task loads several, into one block."""
    groups = [slices[begin : begin + per_task] for begin in range(0, len(slices), per_task)]
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=AHEAD_BYTES)
    context.execution_no_progress_timeout_s = -1  # while the network is measured, nobody takes what is loaded
    with DataContext.current(context):
        return ray.data.read_datasource(
            _Slices(loading, groups), num_cpus=cpus, concurrency=count, override_num_blocks=len(groups)
        )


class _Slices(Datasource):
    """Groups of slices that a task each loads."""

    def __init__(self, loading: ray.ObjectRef[Loading], groups: list[list[Slice]]) -> None:
        super().__init__()
        self._loading, self._groups = loading, groups

    def get_name(self) -> str:
        return "LoadSlices"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        tasks = []
        for group in self._groups:
            metadata = BlockMetadata(num_rows=len(group), size_bytes=None, exec_stats=None, input_files=None)
            tasks.append(ReadTask(functools.partial(_load, self._loading, group), metadata))
        return tasks


def _load(loading: ray.ObjectRef[Loading], group: list[Slice]) -> Iterator[pa.Table]:
    torch.set_num_threads(1)  # threads of tiny operations would only keep the network's from their cores
    job = ray.get(loading)
    data = ray.get(job.data)
    for one in group:
        try:
            loaded: TensorSlice | RaysegError = load_slice(
                data.training_image, one, job.augmentation, job.order.seed, len(data)
            )
        except RaysegError as error:
            loaded = error
        yield pa.table([pa.array([slice_bytes.pack(loaded)], pa.large_binary())], schema=_SLICES)
