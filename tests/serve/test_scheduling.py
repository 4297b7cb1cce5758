"""Whose images go next; the model is a stand-in whose forwards the test lets through one by one."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rayseg.errors import ModelError
from rayseg.models.thresholds import Thresholds
from rayseg.records import Instances, RawDetections
from rayseg.serve.scheduling import ForwardFailed, QueueFull, Scheduler, Times

NONE = np.empty((0, 4), np.float32)
A, B = Thresholds(score=0.1), Thresholds(score=0.2)


class Model:
    """Each image is an array whose height is its name. Forwards wait for `let`; `forwards` says who was in each."""

    def __init__(self, *, gated: bool = False) -> None:
        self.forwards: list[list[int]] = []
        self.thresholds: list[Thresholds] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0 if gated else 10**6)
        self.bad: set[int] = set()

    def detect(self, images: Sequence[np.ndarray], thresholds: Thresholds) -> list[RawDetections]:
        self.begun.release()
        assert self.let.acquire(timeout=30)
        names = [len(image) for image in images]
        self.forwards.append(names)
        self.thresholds.append(thresholds)
        if self.bad & set(names):
            raise ModelError("out of memory")
        return [RawDetections(NONE, NONE[:, 0], NONE[:, 0], NONE, (name, 1)) for name in names]

    def finish(self, raw: RawDetections) -> Instances:
        return Instances(raw.boxes_xyxy, raw.scores, raw.classes, None, raw.image_hw)  # type: ignore[arg-type]


def images(*names: int) -> list[np.ndarray]:
    return [np.empty((name, 1, 3), np.uint8) for name in names]


def heights(found: Sequence[Instances]) -> list[int]:
    return [one.image_hw[0] for one in found]


def run(model: Model, check: Callable[[Scheduler], Awaitable[None]], **options: object) -> None:
    async def go() -> None:
        scheduler = Scheduler(model.detect, model.finish, **options)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(30):
                await check(scheduler)
        finally:
            await scheduler.close()

    asyncio.run(go())


async def begun(model: Model) -> None:
    """Until the next forward is in the model."""
    await asyncio.get_running_loop().run_in_executor(None, model.begun.acquire)


async def settled() -> None:
    """Until every task that could run has run."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_results_come_in_the_order_of_the_images():
    async def check(scheduler: Scheduler) -> None:
        times = Times()
        assert heights(await scheduler.run(images(3, 1, 2), online=True, times=times)) == [3, 1, 2]
        assert await scheduler.run([], online=True) == []
        assert times.forward_s > 0
        many = await asyncio.gather(*(scheduler.run(images(i), online=i % 2 == 0) for i in range(1, 40)))
        assert [heights(found) for found in many] == [[i] for i in range(1, 40)]

    run(Model(), check)


def test_online_images_go_before_batch_images_and_wait_for_one_forward_at_most():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        slow = asyncio.create_task(scheduler.run(images(*range(10, 20)), online=False))
        await begun(model)
        now = asyncio.create_task(scheduler.run(images(1), online=True))
        await settled()
        model.let.release(2)
        assert heights(await now) == [1]
        assert model.forwards == [[10], [1]]
        assert not slow.done()
        model.let.release(10**6)
        assert heights(await slow) == list(range(10, 20))

    run(model, check)


def test_batch_jobs_share_the_model_bite_by_bite():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        first = asyncio.create_task(scheduler.run(images(*range(10, 30)), online=False))
        second = asyncio.create_task(scheduler.run(images(*range(40, 60)), online=False))
        await settled()
        model.let.release(10**6)
        await asyncio.gather(first, second)
        owners = [names[0] // 40 for names in model.forwards]
        assert all(a != b for a, b in itertools.pairwise(owners)), model.forwards
        assert all(len({name // 40 for name in names}) == 1 for names in model.forwards)

    run(model, check, max_batch=4)


def test_online_images_that_wait_share_a_forward_if_they_share_thresholds():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        await_first = asyncio.create_task(scheduler.run(images(1), online=True))
        await begun(model)
        waiting = [
            asyncio.create_task(scheduler.run(images(name), online=True, thresholds=thresholds))
            for name, thresholds in ((2, A), (3, B), (4, A), (5, A), (6, B))
        ]
        await settled()
        assert scheduler.online_waiting == 5
        model.let.release(10**6)
        assert [heights(found) for found in await asyncio.gather(*waiting)] == [[2], [3], [4], [5], [6]]
        await await_first
        assert model.forwards == [[1], [2, 4], [3, 6], [5]]
        assert model.thresholds[1:] == [A, B, A]
        assert scheduler.online_waiting == 0

    run(model, check, max_batch=2, forward_target_s=1e9)


def test_slow_images_are_not_held_up_by_larger_batches():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        first = asyncio.create_task(scheduler.run(images(1), online=True))
        await begun(model)
        waiting = [asyncio.create_task(scheduler.run(images(name), online=True)) for name in (2, 3)]
        await settled()
        model.let.release(10**6)
        await asyncio.gather(first, *waiting)
        assert model.forwards == [[1], [2], [3]]

    run(model, check, max_batch=8, forward_target_s=1e-12)


def test_more_online_images_than_may_wait_are_refused_at_once():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        waiting = [asyncio.create_task(scheduler.run(images(1), online=True))]
        await begun(model)
        waiting += [asyncio.create_task(scheduler.run(images(2), online=True)) for _ in range(2)]
        await settled()
        with pytest.raises(QueueFull):
            await scheduler.run(images(3), online=True)
        batch = asyncio.create_task(scheduler.run(images(4), online=False))  # batches bound themselves
        model.let.release(10**6)
        await asyncio.gather(*waiting, batch)
        assert heights(await scheduler.run(images(3), online=True)) == [3]

    run(model, check, max_waiting=2)


def test_whoever_gives_up_leaves_the_queue():
    model = Model(gated=True)

    async def check(scheduler: Scheduler) -> None:
        running = asyncio.create_task(scheduler.run(images(1), online=True))
        await begun(model)
        gone = [asyncio.create_task(scheduler.run(images(2, 3), online=online)) for online in (True, False)]
        stays = asyncio.create_task(scheduler.run(images(4), online=True))
        await settled()
        for task in gone:
            task.cancel()
        running.cancel()  # in the model already: its answer is thrown away
        await settled()
        assert scheduler.online_waiting == 1
        model.let.release(10**6)
        assert heights(await stays) == [4]
        assert model.forwards == [[1], [4]]

    run(model, check)


def test_an_image_that_the_model_cannot_take_fails_alone():
    model = Model(gated=True)
    model.bad = {3}

    async def check(scheduler: Scheduler) -> None:
        first = asyncio.create_task(scheduler.run(images(1), online=True))
        await begun(model)
        waiting = [asyncio.create_task(scheduler.results(images(name), online=True)) for name in (2, 3, 4)]
        await settled()
        model.let.release(10**6)
        await first
        good, bad, other = [found[0] for found in await asyncio.gather(*waiting)]
        assert isinstance(bad, ModelError)
        assert [good.image_hw[0], other.image_hw[0]] == [2, 4]
        with pytest.raises(ModelError):
            await scheduler.run(images(5, 3), online=False)

    run(model, check, forward_target_s=1e9)


def test_a_crash_of_the_model_or_the_masks_is_an_answer_too():
    model = Model()

    async def check(scheduler: Scheduler) -> None:
        with pytest.raises(ForwardFailed, match="masks could not be made"):
            await scheduler.run(images(1), online=True)

    def broken(raw: RawDetections) -> Instances:
        raise ValueError("broken")

    model.finish = broken  # type: ignore[method-assign]
    run(model, check)


def test_a_model_that_breaks_is_not_the_images_fault():
    """Its error is none that says the image cannot be taken, and none of the inside is told."""
    model = Model()

    async def check(scheduler: Scheduler) -> None:
        first, second = await scheduler.results(images(1, 2), online=False)
        assert isinstance(first, ForwardFailed) and isinstance(second, ForwardFailed)
        assert not isinstance(first, ModelError) and "device-side" not in str(first)

    def broken(batch: Any, thresholds: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    model.detect = broken  # type: ignore[method-assign]
    run(model, check)
