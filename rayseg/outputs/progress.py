"""How a run is going, in numbers and words: rate, time left, and which stage holds the others up."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

WINDOW_S = 30.0
RECENT_PARTS = 8
LINE_EVERY_S = 10.0
STARVED = 0.25  # share of a worker's time without images from which on the model is said to starve


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run; times in seconds, rate in images per second."""

    done: int
    total: int
    failed: int
    stored: int
    rate: float
    eta_s: float | None
    elapsed_s: float
    bottleneck: str

    def line(self) -> str:
        eta = "" if self.eta_s is None else f", {clock(self.eta_s)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done:,}/{self.total:,} images, {self.rate:.1f}/s{eta}{failed}; {self.bottleneck}"


class Reporter(Protocol):
    """Where a run says how it goes."""

    def say(self, message: str) -> None: ...
    def show(self, snapshot: Snapshot) -> None: ...
    def close(self) -> None: ...


@dataclass
class Meter:
    """Counts images and stage seconds of one run."""

    total: int
    stored: int = 0
    failed: int = 0
    started: float | None = None  # monotonic time at which the first images went into a model
    _done: int = 0
    _begin: float = field(default_factory=time.monotonic)
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=600))
    _recent: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=RECENT_PARTS))

    def __post_init__(self) -> None:
        self._done = self.stored

    def labelled(self, images: int) -> None:
        """`images` more came out of the pipeline; they are not stored yet."""
        self._done = min(self.total, self._done + images)
        self._samples.append((time.monotonic(), self._done))

    def part(self, images: int, failed: int, seconds: Mapping[str, float]) -> None:
        """One part reached storage."""
        self.stored += images
        self.failed += failed
        self._recent.append(seconds)

    def snapshot(self) -> Snapshot:
        now = time.monotonic()
        while len(self._samples) > 2 and self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        rate = self._rate(now)
        left = self.total - self._done
        return Snapshot(
            done=max(self._done, self.stored),
            total=self.total,
            failed=self.failed,
            stored=self.stored,
            rate=rate,
            eta_s=left / rate if rate > 0 else None,
            elapsed_s=now - self._begin,
            bottleneck=bottleneck(add_seconds(self._recent)),
        )

    def _rate(self, now: float) -> float:
        if len(self._samples) < 2:
            return 0.0
        (begin, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(now - begin, 1e-9)


def add_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum of seconds by stage."""
    total: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def bottleneck(seconds: Mapping[str, float]) -> str:
    """In words, the stage that limits the run, from the seconds of `read`, `decode`, `idle`, `detect`, `finish`."""
    detect, idle, finish = (seconds.get(stage, 0.0) for stage in ("detect", "idle", "finish"))
    if not detect:
        return "starting"
    if idle > STARVED * (idle + detect):
        if seconds.get("read", 0.0) > seconds.get("decode", 0.0):
            return "storage starves the model: reads are slow"
        return "decode starves the model: add CPUs"
    if finish > detect:
        return "mask encoding holds the model up: raise the score threshold, or add CPUs"
    return "the model is the limit: add GPUs or nodes"


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss under an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class LineReporter:
    """One line per interval, for logs and pipes."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._last = -math.inf

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self.say(snapshot.line())

    def close(self) -> None:
        pass


class JsonReporter(LineReporter):
    """One JSON object per line on stdout, for machines."""

    def say(self, message: str) -> None:
        print(json.dumps({"event": "message", "message": message}), flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            print(json.dumps({"event": "progress"} | asdict(snapshot)), flush=True)


class TerminalReporter:
    """A live bar, with the bottleneck in words beside it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = (
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[words]}", style="dim"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("label", total=None, rate="", failed="", words="starting")

    def say(self, message: str) -> None:
        self._progress.console.print(message, highlight=False, markup=False)

    def show(self, snapshot: Snapshot) -> None:
        self._progress.start()
        eta = "" if snapshot.eta_s is None else f", {clock(snapshot.eta_s)} left"
        self._progress.update(
            self._task,
            total=snapshot.total,
            completed=snapshot.done,
            rate=f"{snapshot.rate:.1f} images/s{eta}",
            failed=f"{snapshot.failed} failed" if snapshot.failed else "",
            words=snapshot.bottleneck,
        )

    def close(self) -> None:
        self._progress.stop()


def reporter(kind: Literal["auto", "lines", "json"] = "auto") -> Reporter:
    """A bar on a terminal, lines elsewhere, JSON when asked."""
    if kind == "json":
        return JsonReporter()
    return TerminalReporter() if kind == "auto" and sys.stderr.isatty() else LineReporter()
