"""The batch size's search, on made-up costs."""

from __future__ import annotations

import pytest
import torch

from rayseg.errors import ModelError
from rayseg.models.batching import BatchSizer, in_batches, is_out_of_memory


def settle(sizer: BatchSizer, seconds_of) -> list[int]:
    """Run batches until the size stays, and return the sizes tried."""
    sizes = []
    for _ in range(200):
        sizes.append(sizer.size)
        if sizer.settled:
            break
        sizer.record(sizer.size, seconds_of(sizer.size))
    assert sizer.settled
    return sizes


def test_grows_while_it_pays():
    # a fixed second per batch and next to nothing per image, until 8 images fill the machine
    sizer = BatchSizer(cap=64)
    sizes = settle(sizer, lambda n: max(1.0, n / 8))
    assert sizer.size == 8
    assert max(sizes) == 16, "it tried the next size and went back"


def test_stays_small_where_size_does_not_pay():
    sizer = BatchSizer(cap=64)
    settle(sizer, lambda n: 0.1 * n)
    assert sizer.size == 1


def test_stops_at_the_cap():
    sizer = BatchSizer(cap=12)
    sizes = settle(sizer, lambda n: 1.0)
    assert sizer.size == 12 and max(sizes) == 12


def test_a_slow_first_batch_is_warming_up():
    sizer = BatchSizer(cap=64)
    calls = iter([60.0] + [1.0] * 300)
    settle(sizer, lambda n: next(calls))
    assert sizer.size == 64


def test_part_full_batches_teach_nothing():
    sizer = BatchSizer(start=4, cap=8)
    for _ in range(20):
        sizer.record(3, 1.0)
    assert sizer.size == 4 and not sizer.settled


class Memory:
    """A device that holds `room` items and counts its failures."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.failures, self.largest = room, error, 0, 0

    def run(self, batch):
        if len(batch) > self.room:
            self.failures += 1
            raise self.error
        self.largest = max(self.largest, len(batch))
        return [item * 10 for item in batch]


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "gpu", "cpu"])
def test_halves_when_memory_runs_out_and_loses_nothing(error):
    memory, sizer = Memory(5, error), BatchSizer(start=16, cap=64)
    items = list(range(50))
    assert list(in_batches(items, memory.run, sizer, str)) == [item * 10 for item in items]
    assert memory.failures == 2, "16, then 8"
    assert list(in_batches(items, memory.run, sizer, str)) == [item * 10 for item in items]
    assert memory.failures == 2 and sizer.size == 4, "it never tries a failed size again"


def test_a_single_item_that_does_not_fit_is_named():
    memory = Memory(0, MemoryError())
    with pytest.raises(ModelError, match="item 7"):
        list(in_batches([7], memory.run, BatchSizer(), lambda item: f"item {item}"))


def test_other_errors_pass_through():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(ZeroDivisionError):
        list(in_batches([1], lambda batch: [1 / 0 for _ in batch], BatchSizer(), str))
