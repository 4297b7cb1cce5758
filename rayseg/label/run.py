"""The driver of a label run: lock, plan or resume, label what is left, manifest.

Everything that decides whether a row counts happens here and in `ledger`; Ray only carries images and results.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import asdict, dataclass
from typing import Any

from rayseg import cluster, storage
from rayseg.errors import JobError, UsageError
from rayseg.formats.parts import PartFooter, read_part
from rayseg.label.execution import Execution, Watch
from rayseg.label.spec import LabelSpec
from rayseg.models.cards import ModelInfo
from rayseg.models.checkpoints import describe
from rayseg.outputs import job as jobs
from rayseg.outputs import ledger as ledgers
from rayseg.outputs import lock as locks
from rayseg.outputs.inputs import plan_inputs
from rayseg.outputs.job import Job
from rayseg.outputs.ledger import Counts, Ledger
from rayseg.outputs.plan import write_plan
from rayseg.outputs.progress import Meter, Reporter, clock, reporter
from rayseg.outputs.writing import WriteJob, put_part


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
        self.begin = time.monotonic()
        self.startup_s = self.busy_s = 0.0
        self.listed = 0

    def go(self, overwrite: bool, retry_failed: bool) -> Summary:
        out = self.spec.out
        if overwrite:
            ledgers.clear(out)
        job, new = self._job()
        manifest = ledgers.read_manifest(out)
        if manifest is not None:
            strays = ledgers.remove_strays(out, manifest)
            if strays:
                self.report.say(f"removed {strays} parts of runs that were cut off")
            if not (retry_failed and manifest["failed"]):
                self.report.say("already complete: every image has its row")
                return self._summary(manifest, 0)
            ledgers.reopen(out)
        ledger, dropped = ledgers.begin(out, job.plan.count, drop_failed=retry_failed, afresh=new, say=self.report.say)
        write = WriteJob(out, ledger.epoch, self._footer_metadata())
        self._carry_over(ledger, dropped, write)
        left = ledger.remaining
        if left < ledger.total:
            self.report.say(f"resuming: {ledger.total - left:,} of {ledger.total:,} images have their row")
        self._label(job, ledger, write)
        self.lock.check()
        manifest = ledger.finish(self._manifest(job, ledger))
        return self._summary(manifest, left)

    def _job(self) -> tuple[Job, bool]:
        """The job of this output, and whether this call started it."""
        job = jobs.read(self.spec.out)
        if job is not None:
            jobs.check_same(self.spec.out, job, self.spec, self.model)
            return job, False
        if ledgers.has_parts(self.spec.out):
            raise JobError(
                f"{self.spec.out}: holds parts but no job.json; --overwrite to start afresh, or another --out"
            )
        inputs = plan_inputs(self.spec.images, column=self.spec.column, root=self.spec.images_root)
        plan = write_plan(self.spec.out, inputs.pages(), limit=self.spec.limit, progress=self._planned)
        job = Job.of(self.spec, plan, self.model, dict(inputs.skipped))
        jobs.write(self.spec.out, job)
        skipped = ", ".join(f"{count} {what}" for what, count in sorted(job.skipped.items()))
        self.report.say(f"planned {plan.count:,} images" + (f"; skipped {skipped}" if skipped else ""))
        return job, True

    def _planned(self, count: int) -> None:
        self.lock.check()
        if count - self.listed >= 1_000_000:
            self.listed = count
            self.report.say(f"listed {count:,} images")

    def _carry_over(self, ledger: Ledger, dropped: list[PartFooter], write: WriteJob) -> None:
        """Good rows of parts that also hold errors, written again, so that only the errors are left to do."""
        for part in dropped:
            rows = read_part(storage.join(ledger.out, "data", part.name))
            good = rows.filter(rows["error"].is_null())
            if len(good):
                ledger.accept(put_part(write, good))

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

    def _footer_metadata(self) -> dict[str, str]:
        return {
            "rayseg.spec": json.dumps(self.spec.result_fields()),
            "rayseg.model": json.dumps(jobs.describe_model(self.spec, self.model)),
        }

    def _manifest(self, job: Job, ledger: Ledger) -> dict[str, Any]:
        counts = ledger.counts()
        return {
            "schema_version": jobs.SCHEMA_VERSION,
            "inputs": ledger.total,
            "labelled": counts.labelled,
            "empty": counts.empty,
            "failed": counts.failed,
            "instances": counts.instances,
            "size_bytes": ledgers.total_size_bytes(ledger.parts.values()),
            "seconds": round(time.monotonic() - self.begin, 3),
            "epochs": ledger.epoch,
            "spec": job.spec,
            "model": job.model,
            "versions": jobs.versions(),
        }

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
    if (spec.out.rstrip("/") + "/").startswith(spec.images.rstrip("/") + "/"):
        raise UsageError(f"out: {spec.out} lies inside images ({spec.images}); its own files would be listed as images")
    return spec
