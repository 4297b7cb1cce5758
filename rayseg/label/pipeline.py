"""The label pipeline on Ray Data: plan, read and decode, model, finished chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from rayseg import cluster
from rayseg.formats.ordinals import OrdinalBitmap, to_ranges
from rayseg.label.chunks import CHUNK_ROWS, MOST_CHUNKS
from rayseg.label.source import PlanSource, ReadJob
from rayseg.label.spec import LabelSpec
from rayseg.label.worker import LabelWorker, WorkerJob
from rayseg.models.preprocess import Preprocess

CHUNK_BYTES = 64 << 20  # most bytes of decoded images in one chunk
MOST_TASKS = 10_000
CALLS_PER_WORKER = 2  # one has the model, one encodes masks
WRITERS_PER_GPU = 4

# On a CPU a model worker takes most of a core and reading the rest, so that n cores run n single-threaded models
# with decoding in between; two threads of one model would wait for each other more than two models do. One read task per
# worker is plenty, as decoding takes a hundredth of the time of a model; more would each be a process to start and keep.
CPU_WORKER_CPUS = 0.9
CPU_READ_CPUS = 0.1


@dataclass(frozen=True)
class Resources:
    """How much of the cluster one worker and one read task take, and how many workers there may be."""

    worker_cpus: float
    worker_gpus: float
    read_cpus: float
    readers: int | None  # most read tasks at a time; None leaves it to the free CPUs
    writers: int  # most parts written at a time
    workers: int
    most_workers: int | None
    threads: int | None
    device: str | None
    worker_places: Mapping[str, float] = field(default_factory=dict)  # custom resources, see the spec
    read_places: Mapping[str, float] = field(default_factory=dict)


def resources(spec: LabelSpec) -> Resources:
    """What the cluster has now, divided: one worker per GPU where there are any, else one per core.

    Raises `UsageError` where no node has what a worker or a read task takes, nor one that an autoscaler may add.
    """
    gpus = ray.cluster_resources().get("GPU", 0.0)
    per_worker = spec.gpus_per_worker if spec.gpus_per_worker is not None else (1.0 if gpus else 0.0)
    places = (spec.worker_resources, spec.read_resources)
    if per_worker:
        cluster.check_fits({"GPU": per_worker} | spec.worker_resources, "a model worker")
        cluster.check_fits(spec.read_resources, "a read task")
        fit = _fitting({"GPU": per_worker} | spec.worker_resources)
        workers = min(fit, spec.workers or fit)
        writers = WRITERS_PER_GPU * workers
        return Resources(0.0, per_worker, 1.0, None, writers, workers, spec.workers, None, "cuda", *places)
    cluster.check_fits({"CPU": CPU_WORKER_CPUS} | spec.worker_resources, "a model worker")
    cluster.check_fits({"CPU": CPU_READ_CPUS} | spec.read_resources, "a read task")
    fit = _fitting({"CPU": 1.0} | spec.worker_resources)
    workers = min(fit, spec.workers or fit)
    return Resources(CPU_WORKER_CPUS, 0.0, CPU_READ_CPUS, workers, workers, workers, spec.workers, 1, "cpu", *places)


def _fitting(needs: Mapping[str, float]) -> int:
    """How many workers that take `needs` the cluster holds now, 1 at least: one may still be added."""
    found = ray.cluster_resources()
    return max(1, min(int(found.get(name, 0.0) / amount) for name, amount in needs.items() if amount))


def chunk_rows(preprocess: Preprocess, remaining: int, workers: int) -> int:
    """Images per chunk: bounded in bytes, and few enough that every worker gets several."""
    image_bytes = 12 * preprocess.min_size * preprocess.max_size if preprocess.min_size else 0  # float32 RGB at most
    by_bytes = max(1, CHUNK_BYTES // max(1, image_bytes))
    by_work = max(1, remaining // (4 * workers))
    return min(CHUNK_ROWS, by_bytes, by_work)


def task_batches(done: OrdinalBitmap, rows_per_chunk: int, workers: int) -> Iterator[np.ndarray]:
    """The ordinals that one execution takes of those without a row, as (K, 2) ranges, one array per read task.

    A task takes a whole number of chunks: few enough to keep every worker fed, enough that a huge plan has no more than
    about `MOST_TASKS` tasks.
    """
    left = min(done.total - done.count(), MOST_CHUNKS * rows_per_chunk)
    chunks_per_task = math.ceil(left / (8 * workers * rows_per_chunk))
    chunks_per_task = min(max(1, chunks_per_task), 32)
    chunks_per_task = max(chunks_per_task, math.ceil(left / (MOST_TASKS * rows_per_chunk)))
    size = chunks_per_task * rows_per_chunk
    waiting = np.empty(0, np.int64)
    for missing in done.missing_chunks():
        waiting = np.concatenate([waiting, missing[: left - len(waiting)]])
        whole = len(waiting) // size * size
        yield from map(to_ranges, waiting[:whole].reshape(-1, size))
        waiting, left = waiting[whole:], left - whole
        if len(waiting) == left:
            break
    if len(waiting):
        yield to_ranges(waiting)


def build(read: ReadJob, work: WorkerJob, have: Resources, batches: Iterator[np.ndarray]) -> Dataset:
    """The pipeline as a lazy Ray Data set whose rows are packed chunks of finished rows."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every packed chunk is a block of its own, see `chunks`
    with DataContext.current(context):
        tasks = list(batches)
        # As many blocks as tasks: with fewer tasks than it wants blocks, Ray Data would cut the chunks up.
        source = ray.data.read_datasource(
            PlanSource(read, tasks),
            num_cpus=have.read_cpus,
            resources=dict(have.read_places) or None,
            concurrency=have.readers,
            override_num_blocks=len(tasks),
        )
        return source.map_batches(
            LabelWorker,
            fn_constructor_args=(work,),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=have.worker_cpus,
            num_gpus=have.worker_gpus,
            resources=dict(have.worker_places) or None,
            compute=ActorPoolStrategy(
                min_size=min(have.workers, len(tasks)),
                max_size=have.most_workers,
                max_concurrent_calls_per_actor=CALLS_PER_WORKER,
                enable_true_multi_threading=True,
            ),
        )
