"""The driver of a label run: lock, plan or resume, label what is left, manifest.

Everything that decides whether a row counts happens in `outputs`; Ray only carries images and results.
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import asdict, dataclass
from typing import Any

from rayseg import cluster, storage
from rayseg.errors import JobError
from rayseg.label.execution import Execution, Watch
from rayseg.label.spec import LabelSpec
from rayseg.models.cards import ModelInfo
from rayseg.models.checkpoints import describe
from rayseg.outputs import lock as locks
from rayseg.outputs.driver import Driver
from rayseg.outputs.job import Job
from rayseg.outputs.ledger import Counts, Ledger
from rayseg.outputs.progress import Meter, Reporter, clock, reporter
from rayseg.outputs.writing import WriteJob


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished run left behind, and how long this call took."""

    out: str
    counts: Counts
    parts: int
    size_bytes: int
    epochs: int
    labelled_now: int
    startup_s: float  # until the first images went into a model
    busy_s: float  # from there until the last part was stored
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The summary as one JSON object."""
        return {"event": "done"} | asdict(self) | {"rate": self.rate}

    def text(self) -> str:
        """The summary in words."""
        counts = self.counts
        lines = [
            f"{counts.images:,} images: {counts.labelled:,} labelled, {counts.empty:,} empty, {counts.failed:,} failed; "
            f"{counts.instances:,} instances in {self.parts} parts, {self.size_bytes / 1e6:,.1f} MB",
        ]
        if self.labelled_now:
            lines.append(
                f"{self.rate:.1f} images/s, start-up {self.startup_s:.1f} s apart; {clock(self.seconds)} in all"
            )
        if counts.failed:
            lines.append("failed images have an `error`; --retry-failed does them again")
        lines.append(f"check it with: rayseg verify {shlex.quote(self.out)}")
        return "\n".join(lines)

    @property
    def rate(self) -> float:
        """Images per second of this call, start-up apart; 0 when there was nothing left to do."""
        return self.labelled_now / self.busy_s if self.labelled_now and self.busy_s else 0.0


def run(
    spec: LabelSpec, *, overwrite: bool = False, retry_failed: bool = False, report: Reporter | None = None
) -> Summary:
    """Label `spec.images` into `spec.out`, or go on with what is there.

    Returns when every image has exactly one row and `manifest.json` is in place. Raises `UsageError` for a spec that cannot
    be, `StorageError` and `ModelError` for what they name, `JobError` when another run owns the output, when it was started
    with another spec or model, or when rows are missing; `Interrupted` on Ctrl-C. Nothing written so far is lost by any.
    """
    report = report or reporter()
    spec = _resolve(spec)
    model = describe(spec.model)
    storage.check_output(spec.out)
    lock = locks.acquire(spec.out, say=report.say)
    try:
        return _Run(spec, model, lock, report).go(overwrite, retry_failed)
    finally:
        report.close()
        lock.release()


class _Run:
    def __init__(self, spec: LabelSpec, model: ModelInfo, lock: locks.Lock, report: Reporter) -> None:
        self.spec, self.model, self.lock, self.report = spec, model, lock, report
        self.driver = Driver(spec, model, lock, report.say)
        self.begin = time.monotonic()
        self.startup_s = self.busy_s = 0.0

    def go(self, overwrite: bool, retry_failed: bool) -> Summary:
        if not self.driver.begin(overwrite=overwrite, retry_failed=retry_failed):
            assert self.driver.manifest is not None
            self.report.say("already complete: every image has its row")
            return self._summary(self.driver.manifest, 0)
        left = self.driver.ledger.remaining
        self._label(self.driver.job, self.driver.ledger, self.driver.write)
        return self._summary(self.driver.finish(), left)

    def _label(self, job: Job, ledger: Ledger, write: WriteJob) -> None:
        if not ledger.remaining:
            return
        started = _connect(self.spec)
        meter = Meter(ledger.total, stored=ledger.total - ledger.remaining, failed=ledger.counts().failed)
        try:
            while ledger.remaining:
                before = ledger.remaining
                Execution(self.spec, self.model, job.plan, ledger, write, Watch(self.lock, meter, self.report)).go()
                if ledger.remaining == before:
                    raise JobError(f"{ledger.out}: {before:,} images were labelled but could not be stored; run again")
        finally:
            if meter.started is not None:
                self.startup_s = meter.started - self.begin
                self.busy_s = time.monotonic() - meter.started
            if started:
                cluster.disconnect()

    def _summary(self, manifest: dict[str, Any], labelled_now: int) -> Summary:
        return Summary(
            out=self.spec.out,
            counts=Counts(**{key: manifest[key] for key in ("labelled", "empty", "failed", "instances")}),
            parts=len(manifest["parts"]),
            size_bytes=manifest["size_bytes"],
            epochs=manifest["epochs"],
            labelled_now=labelled_now,
            startup_s=self.startup_s,
            busy_s=self.busy_s,
            seconds=time.monotonic() - self.begin,
        )


def _connect(spec: LabelSpec) -> bool:
    try:
        return cluster.connect(spec.address)
    except ConnectionError as error:
        raise JobError(f"no Ray cluster at {spec.address or os.environ.get('RAY_ADDRESS')}: {error}") from None


def _resolve(spec: LabelSpec) -> LabelSpec:
    """Local paths made absolute, since workers may stand elsewhere."""
    changes = {
        name: os.path.abspath(value)
        for name in ("images", "model", "out", "images_root")
        if (value := getattr(spec, name)) and "://" not in value and (name != "model" or os.path.exists(value))
    }
    spec = spec.model_copy(update=changes)
    spec.check_apart()
    return spec
