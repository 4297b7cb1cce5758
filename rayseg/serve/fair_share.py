"""Calls to one model, shared evenly by the batches that want them.

Each batch's bill is the seconds that its calls took. Whoever has the smallest goes next, so that two batches get as much of
the model each, whatever their images cost; one that comes later starts with the smallest bill of those that are there, and
owes nobody, and is owed nothing, for the time before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Charge:
    """What one call is billed: an estimate when it begins, what it took when it ends."""

    seconds: float


class FairShare:
    """`calls` at a time, of one event loop. A batch joins before its first call and leaves after its last."""

    def __init__(self, calls: int) -> None:
        self._free = calls
        self._bills: dict[str, float] = {}
        self._waiting: dict[str, list[tuple[float, asyncio.Future[None]]]] = {}

    def join(self, batch: str) -> None:
        """Take part from now on."""
        self._bills[batch] = min(self._bills.values(), default=0.0)

    def leave(self, batch: str) -> None:
        """Take part no longer."""
        self._bills.pop(batch, None)

    @asynccontextmanager
    async def call(self, batch: str, estimate_s: float) -> AsyncIterator[Charge]:
        """Wait for a turn and hold it. The caller corrects the charge once it knows better."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(batch, []).append((estimate_s, turn))
        self._grant_soon()
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(batch, estimate_s, turn)
            raise
        charge = Charge(estimate_s)
        try:
            yield charge
        finally:
            self._settle(batch, charge.seconds - estimate_s)

    def _grant_soon(self) -> None:
        """Once whoever has just ended a call had the chance to ask for its next one: else it would never be compared."""
        asyncio.get_running_loop().call_soon(self._grant)

    def _grant(self) -> None:
        while self._free and self._waiting:
            batch = min(self._waiting, key=lambda one: self._bills.get(one, 0.0))
            estimate_s, turn = self._waiting[batch].pop(0)
            if not self._waiting[batch]:
                del self._waiting[batch]
            if turn.done():
                continue  # given up while it waited
            self._free -= 1
            self._bills[batch] = self._bills.get(batch, 0.0) + estimate_s
            turn.set_result(None)

    def _settle(self, batch: str, correction_s: float) -> None:
        if batch in self._bills:
            self._bills[batch] += correction_s
        self._free += 1
        self._grant_soon()

    def _give_up(self, batch: str, estimate_s: float, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self._settle(batch, -estimate_s)
