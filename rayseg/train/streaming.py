"""Slices from Ray Data: tasks anywhere in the cluster read, decode, augment and batch them while workers compute.

Each worker streams the slices that are its own, in their order, a task for each: which step sees which images is decided
by `order` alone, so nothing changes with the number of workers or tasks, and a run goes on in the middle of an epoch.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset, Datasource, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from rayseg.errors import JobError, RaysegError
from rayseg.train import slice_bytes
from rayseg.train.augmentation import Augmentation
from rayseg.train.loading import load_slice
from rayseg.train.loop import TensorSlice
from rayseg.train.order import Order, Slice
from rayseg.train.records import Records

AHEAD_BYTES = 512 << 20  # most bytes of slices that wait in the object store for one worker
SEGMENTS = (32, 128, 512, 2048)  # slices of one execution: a short run plans little, a long one starts anew rarely
_POLL_S = 0.5
_SLICES = pa.schema([("slice", pa.large_binary())])


@dataclass(frozen=True)
class Loading:
    """What every task needs to know."""

    data: ray.ObjectRef[Records]
    order: Order
    augmentation: Augmentation


@dataclass(frozen=True, slots=True)
class Tasks:
    """How the tasks of one worker run: `count` at a time, each on `cpus()` CPUs; `ahead` steps wait in the worker."""

    count: int
    cpus: Callable[[], float]  # asked again for every segment, as the cluster may have changed
    ahead: int = 4


def streamed(
    loading: Loading, tasks: Tasks, *, first_step: int, rank: int, workers: int
) -> Generator[Sequence[TensorSlice], None, None]:
    """The slices of each step from `first_step` on that are worker `rank`'s, without end; see `loading.batches`."""
    waiting: queue.Queue[Any] = queue.Queue(tasks.ahead)
    stop = threading.Event()
    steps = loading.order.of_worker(first_step, rank, workers)
    thread = threading.Thread(
        target=_fill, args=(waiting, stop, _steps(loading, tasks, steps)), name="rayseg-stream", daemon=True
    )
    thread.start()
    try:
        while True:
            step = waiting.get()
            if isinstance(step, BaseException):
                raise step if isinstance(step, RaysegError) else _told(step)
            yield step
    finally:
        stop.set()


def _fill(waiting: queue.Queue[Any], stop: threading.Event, steps: Iterator[list[TensorSlice]]) -> None:
    """Put steps, or what ended them, until the worker has had enough."""
    while not stop.is_set():
        try:
            item: Any = next(steps)
        except BaseException as error:  # raised again in the loop, at the step that it is about
            item = error
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
                break
            except queue.Full:
                continue
        if isinstance(item, BaseException):
            return


def _steps(loading: Loading, tasks: Tasks, steps: Iterator[list[Slice]]) -> Iterator[list[TensorSlice]]:
    ref = ray.put(loading)
    for most in itertools.chain(SEGMENTS, itertools.repeat(SEGMENTS[-1])):
        segment: list[list[Slice]] = []
        while sum(map(len, segment)) < most and len(segment) < SEGMENTS[-1]:  # there may be steps without any for us
            segment.append(next(steps))
        loaded = _loaded(ref, tasks, [one for step in segment for one in step])
        for step in segment:
            yield [next(loaded) for _ in step]


def _loaded(loading: ray.ObjectRef[Loading], tasks: Tasks, slices: list[Slice]) -> Iterator[TensorSlice]:
    if not slices:
        return
    for bundle in _dataset(loading, tasks, slices).iter_internal_ref_bundles():
        for entry in bundle.blocks:
            reference: Any = entry.ref
            table: Any = ray.get(reference)
            for packed in table["slice"]:
                yield slice_bytes.unpack(packed.as_buffer())


def _dataset(loading: ray.ObjectRef[Loading], tasks: Tasks, slices: list[Slice]) -> Dataset:
    """A lazy Ray Data set of one row and block per slice, in their order."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every slice is a block of its own
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=AHEAD_BYTES)
    with DataContext.current(context):
        return ray.data.read_datasource(
            _Slices(loading, slices), num_cpus=tasks.cpus(), concurrency=tasks.count, override_num_blocks=len(slices)
        )


class _Slices(Datasource):
    """Slices that a task each loads."""

    def __init__(self, loading: ray.ObjectRef[Loading], slices: list[Slice]) -> None:
        super().__init__()
        self._loading, self._slices = loading, slices

    def get_name(self) -> str:
        return "LoadSlices"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=1, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(functools.partial(_load, self._loading, one), metadata) for one in self._slices]


def _load(loading: ray.ObjectRef[Loading], one: Slice) -> Iterator[pa.Table]:
    job = ray.get(loading)
    data = ray.get(job.data)
    try:
        loaded: TensorSlice | RaysegError = load_slice(
            data.training_image, one, job.augmentation, job.order.seed, len(data)
        )
    except RaysegError as error:
        loaded = error
    yield pa.table([pa.array([slice_bytes.pack(loaded)], pa.large_binary())], schema=_SLICES)


def _told(error: BaseException) -> JobError:
    if not isinstance(error, RayError):
        raise error
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return JobError(f"loading images failed: {lines[-1] if lines else error!r}; the same command goes on")
