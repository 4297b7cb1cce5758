"""Finds the batch size by itself: grows while that pays, halves when memory runs out.

Knows nothing of images or networks; torch is imported only to recognise its out-of-memory errors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rayseg.errors import ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_ALLOCATOR = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")


class BatchSizer:
    """How many items the next batch should hold.

    Starts at `start` and doubles up to `cap` for as long as a doubling raises the throughput by `gain`; each size is
    judged by the best of `trials` full batches after one that warms up. Once a doubling does not pay, or memory has
    run out, the size stays.
    """

    def __init__(self, start: int = 1, cap: int = 64, gain: float = 1.05, trials: int = 3) -> None:
        if not 1 <= start <= cap:
            raise ValueError(f"start must be within 1..cap, found start={start}, cap={cap}")
        self.size = start
        self.settled = start == cap
        self._cap = cap
        self._gain = gain
        self._trials = trials
        self._seen = 0
        self._rate = 0.0
        self._best: tuple[int, float] = (start, 0.0)

    def record(self, count: int, seconds: float) -> None:
        """Learn that a batch of `count` items took `seconds`; batches that were not full teach nothing."""
        if self.settled or count != self.size:
            return
        self._seen += 1
        if self._seen > 1:
            self._rate = max(self._rate, count / max(seconds, 1e-9))
        if self._seen > self._trials:
            self._judge()

    def shrink_below(self, count: int) -> None:
        """Learn that a batch of `count` did not fit: half of that from now on, and never more."""
        self.size = max(1, count // 2)
        self.settled = True

    def _judge(self) -> None:
        """Compare this size with the best one so far, then double or go back."""
        best_size, best_rate = self._best
        if self._rate < best_rate * self._gain:
            self.size, self.settled = best_size, True
            return
        self._best = (self.size, self._rate)
        self.size = min(self.size * 2, self._cap)
        self.settled = self.size == self._best[0]
        self._seen, self._rate = 0, 0.0


def in_batches(
    items: Sequence[Item],
    run: Callable[[Sequence[Item]], list[Result]],
    sizer: BatchSizer,
    describe: Callable[[Item], str],
) -> Iterator[Result]:
    """The results of `run` over `items`, in order, in batches of the size that `sizer` asks for.

    A batch that runs out of memory is tried again at half the size. Raises `ModelError`, naming the item by
    `describe`, when a single one does not fit.
    """
    done = 0
    while done < len(items):
        batch = items[done : done + sizer.size]
        began = time.perf_counter()
        results = _run_or_none(run, batch)
        if results is not None:
            sizer.record(len(batch), time.perf_counter() - began)
            done += len(batch)
            yield from results
        elif len(batch) == 1:
            raise ModelError(f"out of memory on a single image: {describe(batch[0])}")
        else:
            sizer.shrink_below(len(batch))


def _run_or_none(run: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item]) -> list[Result] | None:
    """What `run` returns, or None when memory ran out.

    The error must be gone before the next try: its traceback keeps the failed batch's tensors alive.
    """
    try:
        return run(batch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    _release_cached_memory()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: Python's, torch's on a GPU, or torch's on the CPU."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_ALLOCATOR)


def _release_cached_memory() -> None:
    """Give the GPU's cached blocks back, so that a smaller batch does not meet the fragments of a larger one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
