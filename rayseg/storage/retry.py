"""The one retry policy, of storage and of the client: how long, how often, and what to do when it is used up."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from rayseg.errors import UsageError

T = TypeVar("T")
_LOG = logging.getLogger("rayseg.storage")


class Transient(Exception):
    """This attempt failed in a way that the next one may not; the text says how.

    `after_s` is how long the other side asks to be left alone, 0 where it does not say.
    """

    def __init__(self, message: str = "", *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential waits with full jitter, bounded in number and in time.

    Wait n is uniform in [0, min(max_s, base_s * 2**n)] (Brooker, "Exponential Backoff And Jitter", 2015).
    The defaults ride out a server that is away for twenty seconds and give up after a minute. The environment
    variable RAYSEG_RETRY_S sets another `total_s`; 0 means a single attempt.
    """

    attempts: int = 100
    base_s: float = 0.1
    max_s: float = 4.0
    total_s: float = 60.0

    @classmethod
    def from_environment(cls) -> Retry:
        text = os.environ.get("RAYSEG_RETRY_S", "")
        try:
            return cls(total_s=float(text)) if text else cls()
        except ValueError:
            raise UsageError(f"RAYSEG_RETRY_S: expected a number of seconds, found {text!r}") from None

    def call(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns; its last `Transient` once the attempts or the seconds are used up."""
        waits = _Waits(self)
        while True:
            try:
                return attempt()
            except Transient as error:
                wait_s = waits.after(error)
            time.sleep(wait_s)

    async def call_async(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The same, on asyncio's loop."""
        waits = _Waits(self)
        while True:
            try:
                return await attempt()
            except Transient as error:
                wait_s = waits.after(error)
            await asyncio.sleep(wait_s)


class _Waits:
    """How long one call still waits, and whether it does."""

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._start_s = time.monotonic()
        self._tried = 0
        self._warned = False

    def after(self, error: Transient) -> float:
        """Seconds to wait after a failed attempt; `error` itself once the attempts or the seconds are used up."""
        policy = self._policy
        wait_s = error.after_s + random.uniform(0, min(policy.max_s, policy.base_s * 2**self._tried))
        elapsed_s = time.monotonic() - self._start_s
        self._tried += 1
        if self._tried >= policy.attempts or elapsed_s + wait_s > policy.total_s:
            raise error
        if elapsed_s > policy.max_s and not self._warned:
            _LOG.warning("trying again for up to %g s: %s", policy.total_s, error)
            self._warned = True
        return wait_s
