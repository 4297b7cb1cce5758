"""How much callers may ask at once: budgets, rates, and request bodies that are bounded in size and time.

`BodyGate` is an ASGI middleware that reads the whole body before anything else sees the request. It stands in the ingress,
and where a server may set it up, in Ray Serve's HTTP proxy too (`proxy`), which else takes bodies of any size into memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayseg.serve.auth import ANONYMOUS
from rayseg.serve.problems import Problem, busy

CALLER = "caller"
"""In a request's state: whose body it is. A caller may have half of the room for bodies, those without a name all of it."""
_MOST_BUCKETS = 10_000


class Budget:
    """`total` of something, shared fairly: who waits first is served first. Of one event loop."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        return self._total - self._left

    def take(self, amount: int) -> bool:
        """Take `amount` if it is there."""
        if amount > self._left or self._waiting:
            return False
        self._left -= amount
        return True

    def give(self, amount: int) -> None:
        """Give `amount` back, and let go on who waited for it."""
        self._left += amount
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._left):
            wanted, future = self._waiting.popleft()
            if not future.done():
                self._left -= wanted
                future.set_result(None)

    @asynccontextmanager
    async def held(self, amount: int) -> AsyncIterator[None]:
        """Wait for `amount` and hold it; more than the total counts as the total."""
        amount = min(amount, self._total)
        if not self.take(amount):
            await self._wait(amount)
        try:
            yield
        finally:
            self.give(amount)

    async def _wait(self, amount: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(amount)
            self.give(0)
            raise


class Rates:
    """A bucket of `burst` requests per caller that fills at `per_s`; `per_s` None lets everything through."""

    def __init__(self, per_s: float | None, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, caller: str) -> None:
        """Count one request. Raises a `Problem` (429) that says when to come again."""
        if self._per_s is None:
            return
        now = self._clock()
        tokens, since = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, round((1 - tokens) / self._per_s + 0.5))
            detail = f"more than {self._per_s:g} requests per second; wait {wait_s} s"
            raise Problem(429, "too-many-requests", detail, headers={"Retry-After": str(wait_s)})


@dataclass(frozen=True)
class BodyLimits:
    """Of one request's body, and of all that wait together."""

    max_body_bytes: int
    max_waiting_bytes: int
    body_timeout_s: float


class BodyGate:
    """Reads bodies within `limits`; `refuse` answers with a `Problem`. The bytes count until the request is answered."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, refuse: Callable[[Scope, Send, Problem], Any]) -> None:
        self._app, self._limits, self._refuse = app, limits, refuse
        self.budget = Budget(limits.max_waiting_bytes)
        self._most_of_one = max(limits.max_body_bytes, limits.max_waiting_bytes // 2)
        self._of_callers: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        caller = scope.get("state", {}).get(CALLER, ANONYMOUS)
        held = _Held(self.budget, self._of_callers, caller, self._most_of_one)
        try:
            try:
                body = await self._read(scope, receive, held)
            except Problem as problem:
                await self._refuse(scope, send, problem)
                return
            if body is not None:
                await self._app(scope, _Replay(body, receive), send)
        finally:
            held.release()

    async def _read(self, scope: Scope, receive: Receive, held: _Held) -> bytes | None:
        """The whole body; None when the caller has gone."""
        self._check_declared(scope)
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._collect(receive, held)
        except TimeoutError:
            detail = f"the body did not arrive within {self._limits.body_timeout_s:g} s"
            raise Problem(408, "too-slow", detail, headers={"Connection": "close"}) from None

    def _check_declared(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._limits.max_body_bytes:
                raise self._too_large()

    async def _collect(self, receive: Receive, held: _Held) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limits.max_body_bytes:
                raise self._too_large()
            if not held.add(len(chunk)):
                raise busy("the server holds as many request bodies as it may; try again")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> Problem:
        detail = f"the body is larger than {self._limits.max_body_bytes:,} bytes"
        return Problem(413, "too-large", detail, headers={"Connection": "close"})


class _Held:
    """What one request has of a budget, and of its caller's part of it."""

    def __init__(self, budget: Budget, of_callers: Counter[str], caller: str, most_of_one: int) -> None:
        self._budget, self._bytes = budget, 0
        self._of_callers, self._caller, self._most_of_one = of_callers, caller, most_of_one

    def add(self, count: int) -> bool:
        if self._caller != ANONYMOUS and self._of_callers[self._caller] + count > self._most_of_one:
            return False
        if not self._budget.take(count):
            return False
        self._bytes += count
        self._of_callers[self._caller] += count
        return True

    def release(self) -> None:
        self._budget.give(self._bytes)
        self._of_callers[self._caller] -= self._bytes
        if not self._of_callers[self._caller]:
            del self._of_callers[self._caller]


class _Replay:
    """A `receive` that gives the body that was read, then whatever comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
