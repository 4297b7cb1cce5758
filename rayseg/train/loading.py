"""From slices of the order to tensors: read, decode, draw the masks, augment, ahead of the network and in order.

Threads do it: reading waits for storage, and decoding, drawing and resizing leave the interpreter's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rayseg.train.augmentation import Augmentation, TrainingImage, augment
from rayseg.train.batches import to_tensors
from rayseg.train.loop import TensorSlice
from rayseg.train.order import Order, Slice

ImageOf = Callable[[int], TrainingImage]


def load_slice(image_of: ImageOf, one: Slice, augmentation: Augmentation, seed: int, images: int) -> TensorSlice:
    """The images of a slice, augmented, as tensors; `images` is how many `image_of` knows, for those that lend objects."""
    tensors, targets, names = [], [], []
    for index in one.indices:
        image = augment(
            image_of(index),
            augmentation,
            seed=seed,
            epoch=one.epoch,
            index=index,
            donor=(lambda n: image_of(n % images)) if augmentation.needs_donors else None,
        )
        tensor, target = to_tensors(image)
        tensors.append(tensor)
        targets.append(target)
        names.append(image.name)
    return TensorSlice(tensors, targets, names, one.weight, one.seed)


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

    `threads` load up to `ahead` steps before they are asked for; 0 load when asked. What `image_of` raises is raised at
    the step whose image it is.
    """

    def load(one: Slice) -> TensorSlice:
        return load_slice(image_of, one, augmentation, order.seed, order.images)

    steps = order.of_worker(first_step, rank, workers)
    if not threads:
        for slices in steps:
            yield [load(one) for one in slices]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="rayseg-load")
    waiting: deque[list[Future[TensorSlice]]] = deque()
    try:
        for slices in steps:
            waiting.append([pool.submit(load, one) for one in slices])
            if len(waiting) > ahead:
                yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
