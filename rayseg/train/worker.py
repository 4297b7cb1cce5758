"""What runs in a Ray Train worker."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from rayseg.errors import JobError, RaysegError
from rayseg.train.records import Records
from rayseg.train.session import Feed, Place, Session
from rayseg.train.spec import TrainSpec
from rayseg.train.streaming import Loading, Tasks, slices_per_task, streamed


@dataclass(frozen=True)
class Work:
    """All that a worker needs: the spec, and where the images and the board are."""

    spec: TrainSpec
    data: list[ray.ObjectRef]  # of Records: the training images, and those of validation where there are any
    board: Any

    def feed(self, place: Place, records: Records) -> Feed | None:
        """Ray Data's tasks, where the spec wants them and the workers leave CPUs for them."""
        spec, free = self.spec, loader_cpus(self.spec, place.workers)
        if not spec.loaders or spec.loading == "threads" or (spec.loading == "auto" and free < 1):
            return None
        cpus = functools.partial(loader_cpus, spec, place.workers)
        return lambda order, first: streamed(
            Loading(self.data[0], order, spec.augmentation),
            Tasks(spec.loaders, cpus, spec.ahead, slices_per_task(records, order.micro_batch)),
            first_step=first,
            rank=place.rank,
            workers=place.workers,
        )


def loader_cpus(spec: TrainSpec, workers: int) -> float:
    """CPUs of each task that loads images: no more than the workers leave, since tasks that never start load nothing.

    Of the cluster as it is now: a node may have gone since the run began.
    """
    if spec.loader_cpus is not None:
        return spec.loader_cpus
    spare = ray.cluster_resources().get("CPU", 0.0) - workers * spec.cpus_per_worker
    share = spare / max(1, workers * spec.loaders)
    return 1.0 if share >= 1 else max(0.0, math.floor(100 * share) / 100)


class _Wish:
    """Whether the driver wants to stop: asked at each step, answered by the next, so that no step waits for it.

    Raises `JobError` where the run may not go on, as when another one has taken over its output.
    """

    def __init__(self, board: Any) -> None:
        self._board, self._asked = board, board.wish.remote()

    def __call__(self) -> bool:
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return False
        stop, failure = ray.get(self._asked)
        if failure is not None:
            raise JobError(failure[1])
        self._asked = self._board.wish.remote()
        return stop


def work(config: dict[str, Work]) -> None:
    """One worker's part, from a fresh start or from where the last workers left off."""
    job = config["work"]
    if ray.get(job.board.failure.remote()) is not None:
        return  # started again for nothing: ends the run, however many failures it would put up with
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))
    torch.set_num_threads(job.spec.threads or _share_of_cores(context.get_local_world_size()))
    records: list[Records] = [ray.get(ref) for ref in job.data]
    lead = place.rank == 0
    try:
        session = Session(
            job.spec,
            records[0],
            records[1] if len(records) > 1 else None,
            place,
            tell=job.board.tell.remote,
            stop_wanted=_Wish(job.board) if lead else lambda: False,
            feed=job.feed(place, records[0]),
            notice=lambda: ray.train.get_preemption_info() is not None,
        )
        outcome = session.go()
    except RaysegError as error:
        ray.get(job.board.fail.remote(type(error).__name__, str(error)))
        raise
    if lead:
        ray.get(job.board.tell.remote({"event": "outcome"} | asdict(outcome)))


def _share_of_cores(workers: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // workers)
