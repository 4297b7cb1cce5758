"""From slices of the order to tensors: read, decode, draw the masks, augment, ahead of the network and in order.

Threads do it: reading waits for storage, and decoding, drawing and resizing leave the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from rayseg.train.augmentation import Augmentation, TrainingImage, augment
from rayseg.train.batches import Target, to_tensors
from rayseg.train.loop import TensorSlice
from rayseg.train.order import Order, Slice

ImageOf = Callable[[int], TrainingImage]
Loaded = tuple[Tensor, Target, str]  # an image and its target, as `to_tensors` gives them, and its name


def load_slice(image_of: ImageOf, one: Slice, augmentation: Augmentation, seed: int, images: int) -> TensorSlice:
    """The images of a slice, augmented, as tensors; `images` is how many `image_of` knows, for those that lend objects."""
    return _joined(one, [_load(image_of, one.epoch, index, augmentation, seed, images) for index in one.indices])


def batches(
    image_of: ImageOf,
    order: Order,
    augmentation: Augmentation,
    *,
    first_step: int = 0,
    rank: int = 0,
    workers: int = 1,
    threads: int = 0,
    ahead: int = 4,
) -> Generator[Sequence[TensorSlice], None, None]:
    """The slices of each step from `first_step` on that are worker `rank`'s, without end.

    `threads` load up to `ahead` steps before they are asked for, none of them with 0; without threads the caller's loads.
    What `image_of` raises is raised at the step whose image it is.
    """
    steps = order.of_worker(first_step, rank, workers)
    if not threads:
        for slices in steps:
            yield [load_slice(image_of, one, augmentation, order.seed, order.images) for one in slices]
    pool = _threads(threads)

    def load(one: Slice, index: int) -> Future[Loaded]:
        return pool.submit(_load, image_of, one.epoch, index, augmentation, order.seed, order.images)

    waiting: deque[list[tuple[Slice, list[Future[Loaded]]]]] = deque()
    try:
        for slices in steps:
            waiting.append([(one, [load(one, index) for index in one.indices]) for one in slices])
            if len(waiting) > ahead:
                yield [_joined(one, [image.result() for image in futures]) for one, futures in waiting.popleft()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _load(image_of: ImageOf, epoch: int, index: int, augmentation: Augmentation, seed: int, images: int) -> Loaded:
    donor = (lambda n: image_of(n % images)) if augmentation.needs_donors else None
    image = augment(image_of(index), augmentation, seed=seed, epoch=epoch, index=index, donor=donor)
    return *to_tensors(image), image.name


def _joined(one: Slice, loaded: Sequence[Loaded]) -> TensorSlice:
    images, targets, names = zip(*loaded, strict=True)
    return TensorSlice(images, targets, names, one.weight, one.seed)


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that each compute alone, all of them started.

    Torch would give each a team of its own; with more of OpenMP's threads than cores every team sleeps between two
    operations instead of spinning, and the network's operations are a third slower.
    """
    own = torch.get_num_threads()
    together = threading.Barrier(count)
    pool = ThreadPoolExecutor(count, "rayseg-load", _alone)
    for started in [pool.submit(together.wait) for _ in range(count)]:
        started.result()
    torch.set_num_threads(own)  # what a thread sets is also the default of those that have not computed yet
    return pool


def _alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # the first question after it makes it this thread's own
