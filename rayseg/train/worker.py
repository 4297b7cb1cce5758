"""What runs in a Ray Train worker."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from rayseg import storage
from rayseg.errors import JobError, RaysegError
from rayseg.train.feeds import Feed, from_threads
from rayseg.train.loop import TensorSlice
from rayseg.train.network import Place
from rayseg.train.order import Order
from rayseg.train.records import Records
from rayseg.train.session import Overtaken, Session
from rayseg.train.spec import TrainSpec
from rayseg.train.streaming import Loading, NothingLoaded, Tasks, slices_per_task, streamed


@dataclass(frozen=True)
class Work:
    """All that a worker needs: the spec, and where the images and the board are."""

    spec: TrainSpec
    data: list[ray.ObjectRef]  # of Records: the training images, and those of validation where there are any
    board: Any

    def feed(self, place: Place, records: Records, threads: int = 1) -> Feed | None:
        """Ray Data's tasks, where the spec wants them and the cluster has CPUs for them; threads where they do not start.

        Unless told to, none beside a network that computes with `threads` on all cores: a team of threads of which one has
        to wait for its core is several times slower.
        """
        spec, held = self.spec, held_by_others(self.spec, place.workers)
        computing = threads if place.device == "cpu" else 0
        free = loader_cpus(spec, place.workers, held + place.workers * max(0.0, computing - spec.cpus_per_worker))
        if not spec.loaders or spec.loading == "threads" or (spec.loading == "auto" and free < 1):
            return None
        cpus = functools.partial(loader_cpus, spec, place.workers, held)

        def from_tasks(order: Order, first: int) -> Generator[Sequence[TensorSlice], None, None]:
            return streamed(
                Loading(self.data[0], order, spec.augmentation),
                Tasks(spec.loaders, cpus, spec.ahead, slices_per_task(records, order.micro_batch)),
                first_step=first,
                rank=place.rank,
                workers=place.workers,
            )

        def say(message: str) -> None:
            self.board.tell.remote({"event": "message", "message": f"worker {place.rank}: {message}"})

        return in_turn(from_tasks, from_threads(spec, records, place), say)


def in_turn(tasks: Feed, threads: Feed, say: Callable[[str], None]) -> Feed:
    """What tasks load; from the step on at which they bring nothing, what threads load."""

    def feed(order: Order, first: int) -> Generator[Sequence[TensorSlice], None, None]:
        step = first
        try:
            with closing(tasks(order, first)) as source:
                for slices in source:
                    yield slices
                    step += 1
        except NothingLoaded as error:
            say(f"{error}; its own threads load from step {step:,} on")
        yield from threads(order, step)

    return feed


def held_by_others(spec: TrainSpec, workers: int) -> float:
    """CPUs that neither these workers hold, which have started, nor anything of this run may take."""
    total, free = ray.cluster_resources().get("CPU", 0.0), ray.available_resources().get("CPU", 0.0)
    return max(0.0, total - free - workers * spec.cpus_per_worker)


def loader_cpus(spec: TrainSpec, workers: int, held: float = 0.0) -> float:
    """CPUs of each task that loads images: no more than the workers and others leave, as tasks that never start load nothing.

    Of the cluster as it is now: a node may have gone since the run began. Others hold `held` CPUs.
    """
    if spec.loader_cpus is not None:
        return spec.loader_cpus
    spare = ray.cluster_resources().get("CPU", 0.0) - held - workers * spec.cpus_per_worker
    share = spare / max(1, workers * spec.loaders)
    return 1.0 if share >= 1 else max(0.0, math.floor(100 * share) / 100)


class _Wish:
    """Whether the driver wants to stop: asked at each step, answered by the next, so that no step waits for it.

    Raises `JobError` where the run may not go on, `Overtaken` where another one has taken over its output.
    """

    def __init__(self, board: Any) -> None:
        self._board, self._asked = board, board.wish.remote()

    def __call__(self) -> bool:
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return False
        stop, failure = ray.get(self._asked)
        if failure is not None:
            kind, message = failure
            raise (Overtaken if kind == Overtaken.__name__ else JobError)(message)
        self._asked = self._board.wish.remote()
        return stop


def work(config: dict[str, Work]) -> None:
    """One worker's part, from a fresh start or from where the last workers left off.

    What will not go away ends the run; after anything else Ray Train starts the workers again, `max_failures` times.
    """
    job = config["work"]
    if ray.get(job.board.failure.remote()) is not None:
        return  # started again for nothing: ends the run, however many failures it would put up with
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))
    torch.set_num_threads(threads_of(job.spec, context.get_local_world_size()))
    lead = place.rank == 0
    if lead:
        job.board.tell.remote({"event": "started"})
    records: list[Records] = [ray.get(ref) for ref in job.data]
    try:
        session = Session(
            job.spec,
            records[0],
            records[1] if len(records) > 1 else None,
            place,
            tell=job.board.tell.remote,
            stop_wanted=_Wish(job.board),
            feed=job.feed(place, records[0], torch.get_num_threads()),
            notice=lambda: ray.train.get_preemption_info() is not None,
        )
        outcome = session.go()
    except RaysegError as error:
        if not storage.is_transient(error):
            ray.get(job.board.fail.remote(type(error).__name__, str(error)))
        raise
    if lead:
        ray.get(job.board.tell.remote({"event": "outcome"} | asdict(outcome)))


def threads_of(spec: TrainSpec, workers: int) -> int:
    """What each of `workers` on a machine computes with: its share of the cores, less those of the tasks that it is to have."""
    share = len(os.sched_getaffinity(0)) // workers
    return spec.threads or max(1, share - (spec.loaders if spec.loading == "tasks" else 0))
