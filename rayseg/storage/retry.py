"""The one retry policy of storage: how long, how often, and what to do when it is used up."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rayseg.errors import UsageError

T = TypeVar("T")
_LOG = logging.getLogger("rayseg.storage")


class Transient(Exception):
    """This attempt failed in a way that the next one may not; the text says how."""


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
        start_s = time.monotonic()
        warned = False
        n = 0
        while True:
            try:
                return attempt()
            except Transient as error:
                wait_s = random.uniform(0, min(self.max_s, self.base_s * 2**n))
                elapsed_s = time.monotonic() - start_s
                n += 1
                if n >= self.attempts or elapsed_s + wait_s > self.total_s:
                    raise
                if elapsed_s > self.max_s and not warned:
                    _LOG.warning("trying again for up to %g s: %s", self.total_s, error)
                    warned = True
            time.sleep(wait_s)
