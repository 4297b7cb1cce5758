"""What every driver of an output does around the labelling itself: plan it or go on with it, one epoch, the manifest.

Everything that decides whether a row counts happens here and in `ledger`. The caller holds the output's lock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from rayseg import storage
from rayseg.errors import JobError
from rayseg.formats.parts import PartFooter, read_part
from rayseg.outputs import job as jobs
from rayseg.outputs import ledger as ledgers
from rayseg.outputs.inputs import Inputs, plan_inputs
from rayseg.outputs.job import Job, Model
from rayseg.outputs.ledger import Ledger
from rayseg.outputs.lock import Lock
from rayseg.outputs.plan import write_plan
from rayseg.outputs.spec import OutputSpec
from rayseg.outputs.writing import WriteJob, put_part
from rayseg.storage import Entry

Inspect = Callable[[list[Entry]], None]
CheckRead = Callable[[str], object]
_SAY_EVERY = 1_000_000  # images listed


class Driver:
    """One driver's turn at an output; `begin` makes `job`, `ledger` and `write`, or finds `manifest`."""

    job: Job
    ledger: Ledger
    write: WriteJob
    manifest: dict[str, Any] | None = None

    def __init__(self, spec: OutputSpec, model: Model, lock: Lock, say: Callable[[str], None]) -> None:
        self._spec, self._model, self._lock, self._say = spec, model, lock, say
        self._begin = time.monotonic()

    def begin(
        self,
        *,
        overwrite: bool = False,
        retry_failed: bool = False,
        inspect: Inspect = lambda page: None,
        check_read: CheckRead = lambda uri: None,
    ) -> bool:
        """Plan, or go on with what is there; False when it is complete already.

        `inspect` sees each page of inputs before it is planned, `check_read` each file beside the one asked for that is read
        for the plan; what they raise ends the planning. Raises `JobError` for an
        output that was started with another spec or model, and what planning raises.
        """
        out = self._spec.out
        if overwrite:
            ledgers.clear(out)
        self.job, new = self._job(inspect, check_read)
        self.manifest = ledgers.read_manifest(out)
        if self.manifest is not None and not self._reopened(self.manifest, retry_failed):
            return False
        self.manifest = None
        self.ledger, dropped = ledgers.begin(
            out, self.job.plan.count, drop_failed=retry_failed, afresh=new, say=self._say
        )
        self.write = WriteJob(out, self.ledger.epoch, self._footer_metadata())
        self._carry_over(dropped)
        left, total = self.ledger.remaining, self.ledger.total
        if left < total:
            self._say(f"resuming: {total - left:,} of {total:,} images have their row")
        return True

    def finish(self) -> dict[str, Any]:
        """Put the manifest; returns the one that stands. Raises `JobError` when rows are missing or the lock was lost."""
        self._lock.check()
        self.manifest = self.ledger.finish(self._manifest())
        return self.manifest

    def _job(self, inspect: Inspect, check_read: CheckRead) -> tuple[Job, bool]:
        """The job of this output, and whether this call started it."""
        out = self._spec.out
        job = jobs.read(out)
        if job is not None:
            jobs.check_same(out, job, self._spec, self._model)
            return job, False
        if ledgers.has_parts(out):
            raise JobError(f"{out}: holds parts but no job.json; --overwrite to start afresh, or another --out")
        spec = self._spec
        inputs = plan_inputs(spec.images, column=spec.column, root=spec.images_root, check_read=check_read)
        plan = write_plan(out, self._inspected(inputs, inspect), limit=self._spec.limit)
        job = Job.of(self._spec, plan, self._model, dict(inputs.skipped))
        jobs.write(out, job)
        skipped = ", ".join(f"{count} {what}" for what, count in sorted(job.skipped.items()))
        self._say(f"planned {plan.count:,} images" + (f"; skipped {skipped}" if skipped else ""))
        return job, True

    def _inspected(self, inputs: Inputs, inspect: Inspect) -> Iterator[list[Entry]]:
        count = said = 0
        for page in inputs.pages():
            self._lock.check()
            inspect(page)
            yield page
            count += len(page)
            if count - said >= _SAY_EVERY:
                said = count
                self._say(f"listed {count:,} images")

    def _reopened(self, manifest: dict[str, Any], retry_failed: bool) -> bool:
        """Whether a complete output was taken back, for its failed images to be done again."""
        strays = ledgers.remove_strays(self._spec.out, manifest)
        if strays:
            self._say(f"removed {strays} parts of runs that were cut off")
        if not (retry_failed and manifest["failed"]):
            return False
        ledgers.reopen(self._spec.out)
        return True

    def _carry_over(self, dropped: list[PartFooter]) -> None:
        """Good rows of parts that also hold errors, written again, so that only the errors are left to do."""
        for part in dropped:
            rows = read_part(storage.join(self._spec.out, "data", part.name))
            good = rows.filter(rows["error"].is_null())
            if len(good):
                self.ledger.accept(put_part(self.write, good))

    def _footer_metadata(self) -> dict[str, str]:
        return {
            "rayseg.spec": json.dumps(self._spec.result_fields()),
            "rayseg.model": json.dumps(jobs.describe_model(self._spec, self._model)),
        }

    def _manifest(self) -> dict[str, Any]:
        ledger, counts = self.ledger, self.ledger.counts()
        return {
            "schema_version": jobs.SCHEMA_VERSION,
            "inputs": ledger.total,
            "labelled": counts.labelled,
            "empty": counts.empty,
            "failed": counts.failed,
            "instances": counts.instances,
            "size_bytes": ledgers.total_size_bytes(ledger.parts.values()),
            "seconds": round(time.monotonic() - self._begin, 3),
            "epochs": ledger.epoch,
            "spec": self.job.spec,
            "model": self.job.model,
            "versions": jobs.versions(),
        }
