"""What a run waits for, said to whoever started it: CPUs or GPUs for workers that cannot start, or start again.

Ray Train's controller imports this, so it imports nothing that is slow to import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train

from rayseg.errors import RaysegError

SAY_S = 40.0  # without a worker: by then one has started, where there is room for it
SAY_AGAIN_S = 600.0


class Failures(ray.train.UserCallback):
    """Tells the board that workers have failed, which it does not hear from workers that are gone."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Told by Ray Train. One worker brings down the others, so it is one error that counts, ours if there is one."""
        first = min(worker_exceptions.values(), key=lambda error: not isinstance(error, RaysegError))
        self._board.tell.remote({"event": "failed", "error": last_line(first)})


class Waiting:
    """Says once in a while what `workers` wait for, each of which `needs` resources, as long as none has started."""

    def __init__(self, workers: int, needs: Mapping[str, float], say: Callable[[str], None]) -> None:
        self._workers, self._needs, self._say = workers, needs, say
        self.begin()

    def begin(self) -> None:
        """There are no workers, but should be."""
        self._say_at: float | None = time.monotonic() + SAY_S

    def end(self) -> None:
        """They have started."""
        self._say_at = None

    def look(self) -> None:
        """Say it, if it is time to."""
        if self._say_at is None or time.monotonic() < self._say_at:
            return
        self._say_at = time.monotonic() + SAY_AGAIN_S
        free, found = ray.available_resources(), ray.cluster_resources()
        needs = ", ".join(f"{count:g} {name}" for name, count in self._needs.items())
        rest = ", ".join(f"{free.get(name, 0):g} of {found.get(name, 0):g} {name}" for name in self._needs)
        self._say(f"no worker has started yet: {self._workers} wanted, with {needs} each; free in the cluster: {rest}")


def last_line(error: BaseException) -> str:
    """The end of a traceback, or all of a short message."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
