"""How a training is going, for people and machines: a bar on a terminal, a line every ten seconds elsewhere, or JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any, Literal, Protocol

LINE_EVERY_S = 10.0


class Reporter(Protocol):
    """Where a run says how it goes. An event is a row of metrics with `progress`, `eta_s` and `workers`."""

    def say(self, message: str) -> None: ...
    def show(self, event: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class LineReporter:
    """One line per interval, for logs and pipes."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s, self._last = every_s, -math.inf

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def show(self, event: dict[str, Any]) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self.say(line(event))

    def close(self) -> None:
        pass


class JsonReporter(LineReporter):
    """One JSON object per line on stdout, for machines."""

    def say(self, message: str) -> None:
        print(json.dumps({"event": "message", "message": message}), flush=True)

    def show(self, event: dict[str, Any]) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            print(json.dumps({"event": "progress"} | event), flush=True)


class TerminalReporter:
    """A live bar with the losses beside it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.fields[words]}", style="dim"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("train", total=1.0, words="starting")

    def say(self, message: str) -> None:
        self._progress.console.print(message, highlight=False, markup=False)

    def show(self, event: dict[str, Any]) -> None:
        self._progress.start()
        self._progress.update(self._task, completed=event["progress"], words=line(event))

    def close(self) -> None:
        self._progress.stop()


def reporter(kind: Literal["auto", "lines", "json"] = "auto") -> Reporter:
    """A bar on a terminal, lines elsewhere, JSON when asked."""
    if kind == "json":
        return JsonReporter()
    return TerminalReporter() if kind == "auto" and sys.stderr.isatty() else LineReporter()


def line(event: dict[str, Any]) -> str:
    """An event in one line: losses, rate, where the time goes, what is left."""
    parts = ", ".join(
        f"{name.removeprefix('loss_')} {value:.3f}" for name, value in event.items() if name.startswith("loss_")
    )
    return (
        f"step {event['step'] + 1:,}, epoch {event['epoch']:.2f}: loss {event['loss']:.3f} ({parts}), "
        f"lr {event['learning_rate']:.2e}, {event['images_per_s']:.1f} images/s, {event['wait_share']:.0%} waiting for data, "
        f"{event['memory_mb'] / 1000:.1f} GB, {clock(event['eta_s'])} left"
    )


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss under an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
