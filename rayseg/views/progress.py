"""How far a long pass over images has come: a bar on a terminal, a line every ten seconds elsewhere, on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 10.0

Progress = Callable[[int, int | None], None]  # done, and of how many where that is known


@contextmanager
def progress(words: str) -> Iterator[Progress]:
    """A function to call with how much is done, as often as one likes."""
    if sys.stderr.isatty():
        with _bar(words) as show:
            yield show
    else:
        yield _lines(words)


@contextmanager
def _bar(words: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(words: str) -> Progress:
    last = begin = time.monotonic()

    def show(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and done != total:
            last = now
            of = "" if total is None else f" of {total:,}"
            rate = done / max(now - begin, math.ulp(1.0))
            print(f"{words}: {done:,}{of}, {rate:,.1f} per second", file=sys.stderr, flush=True)

    return show
