"""`metrics.csv` and TensorBoard's events: what a training did, step by step.

A row is the mean over some steps, or holds what validation found. A run that goes on from a checkpoint drops the rows of
the steps that it does again, so that the file reads as if nothing had happened.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rayseg import storage
from rayseg.errors import ObjectNotFound
from rayseg.train.loop import Step

NAME = "metrics.csv"
EVENTS = "tensorboard"
_FLUSH_S = 30.0


class MetricsLog:
    """Rows of `OUT/metrics.csv`; `every` steps make one. Kept in memory, and written whole.

    `waiting` is what another log had begun to gather before the first step: its `waiting()`. `listen` hears of every row.
    """

    def __init__(
        self,
        out: str,
        first_step: int,
        every: int,
        waiting: Sequence[dict[str, Any]] = (),
        listen: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self.uri, self.every = storage.join(out, NAME), every
        self.rows = [row for row in _read(self.uri) if int(row["step"]) < first_step]
        self._events, self._listen = _events(out, first_step), listen
        self._waiting = [_Waiting(**{**one, "step": Step(**one["step"])}) for one in waiting]
        self._written = time.monotonic()

    def step(self, step: Step, epoch: float, memory_bytes: int, images: int, end_s: float) -> dict[str, Any] | None:
        """Take in a step of `images` of all workers that ended at `end_s` of training; the row that it completes, if any."""
        self._waiting.append(_Waiting(step, epoch, memory_bytes, images, end_s))
        return self.flush() if len(self._waiting) >= self.every else None

    def flush(self) -> dict[str, Any] | None:
        """A row of the steps that wait for one, however few; None where there are none."""
        if not self._waiting:
            return None
        row = _row(self._waiting)
        self._waiting = []
        self._add(row)
        if time.monotonic() - self._written > _FLUSH_S:
            self.write()
        return row

    def waiting(self) -> list[dict[str, Any]]:
        """The steps that wait for their row, as JSON."""
        return [asdict(one) for one in self._waiting]

    def scores(self, step: int, epoch: float, values: dict[str, float | None]) -> None:
        """A row with what validation found after `step`, in the place of an earlier one."""
        self.rows = [row for row in self.rows if int(row["step"]) != step or row.get("loss", "") != ""]
        self._add({"step": step, "epoch": round(epoch, 4), **values})

    def write(self) -> None:
        """Put the file."""
        self._written = time.monotonic()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        storage.write(self.uri, text.getvalue().encode())

    def close(self) -> None:
        """Put the file, and end the events."""
        self.write()
        if self._events is not None:
            self._events.close()

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._listen(row)
        if self._events is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, row["step"])


def read(out: str) -> list[dict[str, str]]:
    """The rows of `OUT/metrics.csv` as they stand there; none where there is no such file."""
    return _read(storage.join(out, NAME))


@dataclass(frozen=True, slots=True)
class _Waiting:
    step: Step
    epoch: float
    memory_bytes: int
    images: int
    end_s: float


def _row(waiting: Sequence[_Waiting]) -> dict[str, Any]:
    steps, count, last = [one.step for one in waiting], len(waiting), waiting[-1]
    spent = {name: sum(step.seconds.get(name, 0.0) for step in steps) for name in last.step.seconds}
    losses = {name: sum(step.losses.get(name, 0.0) for step in steps) / count for name in last.step.losses}
    seconds = last.end_s - steps[0].elapsed_s
    return {
        "step": last.step.number,
        "epoch": round(last.epoch, 4),
        "learning_rate": last.step.learning_rate,
        "loss": sum(losses.values()),
        **losses,
        "skipped": sum(step.skipped for step in steps),
        "images_per_s": sum(one.images for one in waiting) / max(seconds, 1e-9),
        "wait_share": spent["wait"] / max(sum(spent.values()), 1e-9),
        **{f"{name}_s": value / count for name, value in spent.items()},
        "memory_mb": round(last.memory_bytes / 1e6),
        "elapsed_s": round(last.step.elapsed_s, 3),
    }


def _read(uri: str) -> list[dict[str, str]]:
    try:
        text = storage.read(uri).decode()
    except ObjectNotFound:
        return []
    return [row for row in csv.DictReader(io.StringIO(text)) if row.get("step", "").isdigit()]


def _events(out: str, first_step: int) -> Any:
    """TensorBoard's writer below a local `out`."""
    if "://" in out:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(storage.join(out, EVENTS), purge_step=first_step)
