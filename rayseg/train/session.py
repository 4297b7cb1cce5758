"""One worker's part of a run, from the model to the finished checkpoint: build, resume, train, measure, save.

It needs a `torch.distributed` group where there is more than one worker, and storage; Ray it does not know.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from rayseg.errors import JobError, StorageError
from rayseg.models.maskrcnn import build
from rayseg.models.predictor import from_model
from rayseg.train import bad_slices, checkpointing
from rayseg.train.checkpointing import Checkpoint
from rayseg.train.feeds import Feed, from_threads, micro_batch
from rayseg.train.finishing import finish
from rayseg.train.loop import History, Loop, Step, TensorSlice
from rayseg.train.metrics_log import MetricsLog
from rayseg.train.network import Place, described, network
from rayseg.train.order import Order
from rayseg.train.records import Records
from rayseg.train.spec import TrainSpec
from rayseg.train.tracking import Tracking
from rayseg.train.validation import Scores, validate

_ASK_S = 5.0  # of training between two questions whether a machine is about to be taken away
_SAVE_AGAIN_S = 30.0  # and between two checkpoints until it is


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has come to: `finished` is false where it was stopped before its end."""

    finished: bool
    steps: int
    images: int  # that all workers have seen, over all epochs
    skipped: int  # steps of this session
    seconds: float  # of training, start-up and validation apart
    best: float | None
    scores: dict[str, Any] = field(default_factory=dict)


class Overtaken(JobError):
    """Another run has taken over the output: nothing may be written there any more."""


class Session:
    """See `go`. `tell` hears of progress, from the lead alone; `stop_wanted` is asked once per step and image of validation.

    `feed` gives this worker's slices of each step of an order, from a step on; none: threads load them.
    """

    def __init__(
        self,
        spec: TrainSpec,
        data: Records,
        val: Records | None = None,
        place: Place = Place(),
        tell: Callable[[dict[str, Any]], None] = lambda event: None,
        stop_wanted: Callable[[], bool] = lambda: False,
        feed: Feed | None = None,
        notice: Callable[[], bool] = lambda: False,
    ) -> None:
        self.spec, self.data, self.val, self.place, self.tell = spec, data, val, place, tell
        self.feed, self.notice = feed or from_threads(spec, data, place), notice
        self.lead = place.rank == 0
        self.model, self.start = network(spec, data, place)
        self.loop = Loop(self.model, spec.recipe(), place.device)
        micro = micro_batch(spec, place.workers)
        self.order = Order(len(data), spec.batch_size, micro, spec.seed, even=self.loop.joined)
        self.budget = spec.budget(self.order.steps_per_epoch)
        self.loop.stop_wanted, self.loop.on_bad_slice = stop_wanted, self._keep_bad_slice
        self.loop.on_stand_in = self._leave_out
        self.scores: Scores | None = None
        self.best: float | None = None
        self.since_best = 0
        self._saved_step, self._saved_s, self._measured_step = -1, 0.0, -1
        self._checkpoint: Checkpoint | None = None  # of the saved step, on the lead
        self._asked_s, self._noticed = 0.0, False
        self._waiting: list[dict[str, Any]] = []  # steps before the resume that have no row yet

    def go(self) -> Outcome:
        """Train to the end of the budget, or until stopped, and leave checkpoints behind; at the end the model itself.

        Raises `JobError` when the training diverges or a checkpoint is of another model, and what reading images and
        `stop_wanted` raise; what was measured until then is in metrics.csv, but for `Overtaken`.
        """
        self._resume()
        self.tracking = Tracking(self.spec, self._say) if self.lead and self.spec.mlflow is not None else None
        self.log = self._log() if self.lead else None
        try:
            history, finished = self._learn()
        except Overtaken:
            raise
        except Exception:
            with suppress(StorageError):  # it would hide what went wrong
                self._close_logs(finished=False)
            raise
        self._close_logs(finished)
        if self.lead and finished:
            finish(self.spec, self.start, self.loop, self.data, self.val, self.place.device, self._say)
        step, scores = self.loop.step, self.scores.to_json() if self.scores else {}
        images = self.order.images_before(step)
        return Outcome(finished, step, images, history.skipped, self.loop.elapsed_s, self.best, scores)

    def _learn(self) -> tuple[History, bool]:
        """Do the steps that are left; whether the run has come to its end."""
        if self._to_be_measured():  # the last session ended in the middle of it
            self._measure()
        if self._out_of_patience():
            self.loop.stopping = True
        with closing(self.feed(self.order, self.loop.step)) as source:
            history = self.loop.run(source, self.budget, self._after)
        if self._at_its_end():
            if self.log is not None:
                self.log.flush()
            self._measure()
        self._save()
        return history, self._at_its_end()

    def _at_its_end(self) -> bool:
        return not self.loop.stopping or self._out_of_patience()

    def _log(self) -> MetricsLog:
        out, first, every = self.spec.out, self.loop.step, self.spec.report_every_steps
        if self.tracking is None:
            return MetricsLog(out, first, every, self._waiting)
        return MetricsLog(out, first, every, self._waiting, self.tracking.row)

    def _close_logs(self, finished: bool) -> None:
        if self.tracking is not None:
            self.tracking.close(finished)
        if self.log is not None:
            self.log.close()

    def _resume(self) -> None:
        self.loop.share_weights()
        found = checkpointing.restore_latest(self.spec.out, self.loop, self._say)
        if found is None:
            self._say(described(self.start))
            return
        notes = found.card["notes"]
        self.best, self.since_best = notes["best"], notes["since_best"]
        self._waiting = notes.get("waiting", [])
        if notes["scores"]:
            self.scores, self._measured_step = Scores(**notes["scores"]), found.step
        self._checkpoint, self._saved_step, self._saved_s = found, found.step, self.loop.elapsed_s
        self._asked_s = self.loop.elapsed_s
        self._say(f"going on from step {found.step:,} ({found.uri})")

    def _after(self, step: Step) -> None:
        """After each step, on every worker alike: all decide by what all of them know."""
        self._report(step)
        every, every_s = self.spec.save_every_steps or self.order.steps_per_epoch, self.spec.save_every_s
        late = every_s is not None and self.loop.elapsed_s - self._saved_s >= every_s
        if self.loop.step % every == 0 or late or self._to_be_lost():
            self._save()
        if self._to_be_measured() and not self.loop.stopping:
            self._measure()

    def _to_be_measured(self) -> bool:
        """Whether an epoch that is to be measured ends here, and has not been."""
        epoch, into = divmod(self.loop.step, self.order.steps_per_epoch)
        wanted = self.val is not None and epoch > 0 and into == 0 and epoch % self.spec.evaluate_every == 0
        return wanted and self._measured_step != self.loop.step

    def _to_be_lost(self) -> bool:
        """Whether a machine is about to be taken away: asked now and then, after the same steps on all workers."""
        if self.loop.elapsed_s - self._asked_s < (_SAVE_AGAIN_S if self._noticed else _ASK_S):
            return False
        self._asked_s = self.loop.elapsed_s
        found = self.notice()
        if found and not self._noticed:
            self._say("a machine is about to be taken away: saving")
        self._noticed = found
        return found

    def _report(self, step: Step) -> None:
        if self.log is None:
            return
        images = sum(len(one.indices) for one in self.order.slices(step.number))
        epoch, memory = self.loop.step / self.order.steps_per_epoch, _memory(self.place.device)
        row = self.log.step(step, epoch, memory, images, self.loop.elapsed_s)
        if row is not None:
            progress = self.budget.progress(self.loop.step, self.loop.elapsed_s)
            left_s = self.loop.elapsed_s * (1 - min(progress, 1.0)) / max(progress, 1e-9)
            self.tell({"event": "progress", **row, "progress": min(progress, 1.0), "eta_s": left_s})

    def _measure(self) -> None:
        """AP on the validation images, once per step, not counted as training time; what was learnt is saved before.

        Where a worker is asked to stop in the middle, all do: the next session measures first.
        """
        if self.val is None or self._measured_step == self.loop.step:
            return
        self._save()
        begin = time.monotonic()
        settings, names = self.start.settings, self.data.class_names
        network = build(self.start.architecture, len(names), settings)
        network.load_state_dict(self.loop.weights_to_keep())
        predictor = from_model(network, self.start.architecture, settings, names, self.place.device)
        scores = validate(predictor, self.val, self.loop.stop_wanted, self._leave_out)
        took_s = time.monotonic() - begin
        self.loop.leave_out(took_s)
        if scores is None:
            self.loop.stopping = True
            return
        self.scores, self._measured_step = scores, self.loop.step
        self._compare(scores.of(self.spec.metric))
        epoch = self.loop.step / self.order.steps_per_epoch
        values = {"mask_ap": scores.segm.get("AP"), "box_ap": scores.bbox.get("AP")}
        if self.log is not None:
            self.log.scores(self.loop.step - 1, epoch, values)
        self._save()
        if self.lead:
            self.tell({"event": "scores", "epoch": epoch, **values})
            told = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in values.items())
            self._say(f"epoch {epoch:.4g}: {told} ({took_s:.1f} s)")

    def _compare(self, found: float | None) -> None:
        """Whether it gets better; where it does not for too long, that was the last step."""
        if found is not None and (self.best is None or found > self.best):
            self.best, self.since_best = found, 0
        else:
            self.since_best += 1
        if self._out_of_patience():
            self.loop.stopping = True

    def _save(self) -> None:
        """A checkpoint of this step; where it is there already, what has become known since goes into its card."""
        new = self._saved_step != self.loop.step
        if new:
            self.loop.share_statistics()
            self._saved_step, self._saved_s = self.loop.step, self.loop.elapsed_s
        if not self.lead:
            return
        scores = self.scores if self._measured_step == self.loop.step else None
        score = scores.of(self.spec.metric) if scores else None
        notes: dict[str, Any] = {"best": self.best, "since_best": self.since_best}
        notes["waiting"] = self.log.waiting() if self.log else []
        notes["scores"] = scores.to_json() if scores else {}
        before = None if new else self._checkpoint
        if before is not None and before.card["notes"] == notes:
            return
        if self.log is not None:
            self.log.write()  # before the checkpoint: a resume drops rows too many, but cannot bring back lost ones
        if before is None:
            self._checkpoint = checkpointing.save(self.spec.out, self.loop, score, notes)
        else:
            self._checkpoint = checkpointing.add_to(before, score, notes)
        checkpointing.prune(self.spec.out, self.spec.keep)

    def _out_of_patience(self) -> bool:
        return self.spec.patience is not None and self.since_best >= self.spec.patience

    def _keep_bad_slice(self, step: int, one: TensorSlice, losses: dict[str, float]) -> None:
        """Name the images of a loss that is not finite, and keep what the network saw of them."""
        message = bad_slices.keep(self.spec.out, self.place.rank, step, one, losses)
        self.tell({"event": "message", "message": message})

    def _leave_out(self, why: str) -> None:
        self.tell({"event": "left_out", "why": why})

    def _say(self, message: str) -> None:
        if self.lead:
            self.tell({"event": "message", "message": message})


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(torch.device(device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
