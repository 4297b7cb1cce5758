"""How far a long pass over images has come: a bar on a terminal, a line every ten seconds elsewhere, on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

LINE_EVERY_S = 10.0

Progress = Callable[[int, int | None], None]  # done, and of how many where that is known


@contextmanager
def progress(words: str) -> Iterator[Progress]:
    """A function to call with how much is done, as often as one likes."""
    with phases(words) as (show,):
        yield show


@contextmanager
def phases(*words: str) -> Iterator[tuple[Progress, ...]]:
    """A function for each phase of the work, which begins where its function is first called."""
    if sys.stderr.isatty():
        with _bars(words) as shows:
            yield shows
    else:
        yield tuple(_lines(word, begins=i == 0) for i, word in enumerate(words))


@contextmanager
def _bars(words: Sequence[str]) -> Iterator[tuple[Progress, ...]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = [bar.add_task(word, total=None, visible=i == 0, start=i == 0) for i, word in enumerate(words)]

        def showing(task: TaskID) -> Progress:
            def show(done: int, total: int | None) -> None:
                bar.start_task(task)
                bar.update(task, completed=done, total=total, visible=True)

            return show

        yield tuple(map(showing, tasks))


def _lines(words: str, *, begins: bool) -> Progress:
    """Lines about a phase that begins now, or where it is first told of."""
    last = begin = time.monotonic() if begins else None

    def show(done: int, total: int | None) -> None:
        nonlocal last, begin
        now = time.monotonic()
        if last is None or begin is None:
            last = begin = now
        if now - last >= LINE_EVERY_S and done != total:
            last = now
            of = "" if total is None else f" of {total:,}"
            rate = done / max(now - begin, math.ulp(1.0))
            print(f"{words}: {done:,}{of}, {rate:,.1f} per second", file=sys.stderr, flush=True)

    return show
