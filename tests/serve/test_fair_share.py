"""Batches that share a model: who goes next, how evenly, and what happens to those that give up."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from rayseg.serve.fair_share import FairShare


async def take_turns(share, batch, cost_s, done, estimate_s=1.0):
    """Calls of `cost_s` each, one after the other, noted in `done`; for ever."""
    while True:
        async with share.call(batch, estimate_s) as turn:
            await asyncio.sleep(0)
            turn.seconds = cost_s
            done.append(batch)


async def run_until(total, done, workers):
    tasks = [asyncio.create_task(worker) for worker in workers]
    while len(done) < total:
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_batches_get_the_same_time_whatever_their_images_cost(calls):
    done: list[str] = []

    async def go():
        share = FairShare(calls)
        for batch in ("cheap", "dear"):
            share.join(batch)
        workers = [
            take_turns(share, batch, cost, done)
            for batch, cost in (("cheap", 1.0), ("dear", 4.0))
            for _ in range(calls)
        ]
        await run_until(500, done, workers)

    asyncio.run(go())
    counts = Counter(done)
    assert counts["dear"] * 4.0 == pytest.approx(counts["cheap"] * 1.0, abs=4.0 * calls + 1)


def test_one_that_comes_later_shares_from_then_on():
    done: list[str] = []

    async def go():
        share = FairShare(2)
        share.join("first")
        workers = [take_turns(share, "first", 1.0, done) for _ in range(2)]
        await run_until(100, done, workers)
        share.join("second")
        again = [take_turns(share, batch, 1.0, done) for batch in ("first", "second") for _ in range(2)]
        await run_until(160, done, again)

    asyncio.run(go())
    assert Counter(done[:100]) == {"first": 100}
    later = Counter(done[100:160])
    assert abs(later["first"] - later["second"]) <= 4


def test_no_more_calls_than_there_may_be_and_all_of_them_are_used():
    under_way, most = 0, 0

    async def call(share):
        nonlocal under_way, most
        async with share.call("a", 1.0):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    async def go():
        share = FairShare(3)
        share.join("a")
        await asyncio.gather(*(call(share) for _ in range(20)))

    asyncio.run(go())
    assert (under_way, most) == (0, 3)


def test_who_gives_up_waiting_or_fails_leaves_its_place_to_others():
    async def go():
        share = FairShare(1)
        share.join("a")
        async with share.call("a", 1.0):
            waiting = asyncio.create_task(_held(share))
            await asyncio.sleep(0)
            waiting.cancel()
        with pytest.raises(RuntimeError):
            async with share.call("a", 1.0):
                raise RuntimeError
        # cancelled in the moment in which it gets its turn
        async with share.call("a", 1.0):
            unlucky = asyncio.create_task(_held(share))
            await asyncio.sleep(0)
        unlucky.cancel()
        await asyncio.gather(waiting, unlucky, return_exceptions=True)
        async with asyncio.timeout(5), share.call("a", 1.0):
            return True

    assert asyncio.run(go())


async def _held(share):
    async with share.call("a", 1.0):
        await asyncio.sleep(3600)
