"""Where a worker's slices come from, step by step: its own threads, or tasks until they bring nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from rayseg.train.loading import batches
from rayseg.train.loop import TensorSlice
from rayseg.train.network import Place
from rayseg.train.order import Order
from rayseg.train.records import Records
from rayseg.train.spec import TrainSpec

Feed = Callable[[Order, int], Generator[Sequence[TensorSlice], None, None]]


def from_threads(spec: TrainSpec, data: Records, place: Place) -> Feed:
    """Slices that threads of this worker load."""

    def feed(order: Order, first: int) -> Generator[Sequence[TensorSlice], None, None]:
        return batches(
            data.training_image,
            order,
            spec.augmentation,
            first_step=first,
            rank=place.rank,
            workers=place.workers,
            threads=spec.loaders,
            ahead=spec.ahead,
        )

    return feed


def micro_batch(spec: TrainSpec, workers: int) -> int:
    """Images that go through the network at once: as asked, or a worker's share of the batch."""
    return spec.micro_batch or -(-spec.batch_size // workers)
