"""The board between the workers of a training and its driver: messages, progress, the wish to stop.

It is an actor in a process of its own, so it imports nothing that is slow to import.
"""

from __future__ import annotations

from collections import deque
from typing import Any


class Board:
    """An actor between the workers and the driver: what they tell waits here, and so does the wish to stop."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=1000)
        self._stop = False
        self._failure: tuple[str, str] | None = None

    def tell(self, event: dict[str, Any]) -> None:
        """From a worker."""
        self._events.append(event)

    def take(self) -> list[dict[str, Any]]:
        """All that was told since the last call."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def stop(self) -> None:
        """Ask the workers to save and end."""
        self._stop = True

    def wish(self) -> tuple[bool, tuple[str, str] | None]:
        """Whether to save and end, and why to end at once if that is so."""
        return self._stop, self._failure

    def fail(self, kind: str, message: str) -> None:
        """No new worker can help, or none may: say why, for the driver, the workers, and those that are started again."""
        self._failure = self._failure or (kind, message)

    def failure(self) -> tuple[str, str] | None:
        return self._failure
