"""The driver of a training: read the data, start or go on, wait for the workers, say how it goes.

OUT/model.json, model.safetensors    the result: OUT is a checkpoint folder
OUT/job.json                         the spec, the data and the versions
OUT/checkpoints/                     what a run goes on from, see `checkpointing`
OUT/metrics.csv, tensorboard/        see `metrics_log`
OUT/report.html                      curves, and samples beside the truth, see `reporting`
OUT/non-finite/                      what the network saw where its loss was not finite
OUT/lock.json                        while a run writes here, see `outputs.lock`
"""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayseg import cluster, errors, storage
from rayseg.errors import JobError, ObjectNotFound, UsageError
from rayseg.formats.registry import read
from rayseg.models.checkpoints import CARD_NAME, WEIGHTS_NAME
from rayseg.outputs import lock as locks
from rayseg.train import bad_slices, checkpointing, job, metrics_log, reporting, tracking
from rayseg.train.board import Board
from rayseg.train.order import Order
from rayseg.train.records import Records, packed
from rayseg.train.session import Overtaken
from rayseg.train.spec import TrainSpec
from rayseg.train.waiting import Failures, Waiting, last_line
from rayseg.train.watching import Reporter, clock, reporter
from rayseg.train.worker import Work, work

POLL_S = 0.25
RESIZE_S = 60.0  # at most so often workers are added where there is room: it costs what was learnt since the last save
_GROUP_TIMEOUT_S = 1800  # validation of the lead is waited for this long


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run left behind; images are those of all workers, seconds those of training, start-up and validation apart."""

    out: str
    steps: int
    images: int
    skipped: int
    left_out: int
    seconds: float
    best: float | None
    scores: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        names = ("out", "steps", "images", "skipped", "left_out", "seconds", "best", "scores")
        return {"event": "done"} | {name: getattr(self, name) for name in names}

    def text(self) -> str:
        """In words."""
        lines = [
            f"{self.steps:,} steps, {clock(self.seconds)} of training"
            + (f", {self.skipped} skipped" if self.skipped else "")
            + (f", {self.left_out} broken images left out" if self.left_out else "")
        ]
        for measure, name in (("segm", "mask"), ("bbox", "box")):
            values = self.scores.get(measure)
            if values and values.get("AP") is not None:
                lines.append(f"{name} AP {values['AP']:.3f}, AP50 {values['AP50']:.3f}")
        lines.append(f"use it with: rayseg label --model {shlex.quote(self.out)} --images PHOTOS --out LABELS")
        return "\n".join(lines)


class Stopped(JobError):
    """The run was asked to stop, by Ctrl-C or SIGTERM; what it had learnt is saved."""

    exit_code = 130


def run(spec: TrainSpec, *, overwrite: bool = False, report: Reporter | None = None) -> Summary:
    """Train as `spec` says into `spec.out`, or go on with what is there.

    Raises `UsageError` for a spec that cannot be, `JobError` when the output was started with another spec or the training
    diverges or workers are lost too often, `Stopped` after Ctrl-C or SIGTERM, and what reading data and models raises.
    """
    report = report or reporter()
    tracking.check(spec)
    spec = absolute(spec)
    lock = None
    try:
        storage.check_output(spec.out)
        lock = locks.acquire(spec.out, say=report.say)
        _claim(spec.out, overwrite)
        data, val = read_data(spec, report)
        spec = job.begin(spec, data, val)
        if storage.exists(storage.join(spec.out, CARD_NAME)):
            report.say("already complete: the model is there")
            return _of_finished(spec, data)
        return _train(spec, data, val, lock, report)
    finally:
        report.close()
        if lock is not None:
            lock.release()


def _train(spec: TrainSpec, data: Records, val: Records | None, lock: locks.Lock, report: Reporter) -> Summary:
    started = _connect(spec)
    try:
        needs = _check_resources(spec, started)
        # on this very node: were it on a worker's, the training would end with that node
        here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
        refs = [ray.put(records) for records in (data, val) if records is not None]
        with tempfile.TemporaryDirectory(prefix="rayseg-train-") as folder, _signals(board, report) as stopped:
            trainer = _trainer(Work(spec, refs, board), needs, folder)
            outcome = _follow(trainer, board, lock, report, Waiting(spec.least_workers, needs, report.say))
        if outcome is None or not outcome["finished"]:
            raise Stopped(f"stopped{' by ' + stopped[0] if stopped else ''}: saved; the same command goes on from here")
        return Summary(spec.out, **{name: outcome[name] for name in Summary.__slots__ if name != "out"})
    finally:
        if started:
            cluster.disconnect()


def _trainer(job: Work, needs: dict[str, float], folder: str) -> TorchTrainer:
    return TorchTrainer(
        work,
        train_loop_config={"work": job},
        torch_config=TorchConfig(backend="nccl" if "GPU" in needs else "gloo", timeout_s=_GROUP_TIMEOUT_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.spec.workers,
            use_gpu="GPU" in needs,
            resources_per_worker=needs,
            elastic_resize_monitor_interval_s=max(RESIZE_S, job.spec.save_every_s or 0),
        ),
        run_config=ray.train.RunConfig(
            name="rayseg",
            storage_path=folder,
            failure_config=ray.train.FailureConfig(job.spec.max_failures),
            callbacks=[Failures(job.board)],
        ),
    )


def _follow(
    trainer: TorchTrainer, board: Any, lock: locks.Lock, report: Reporter, waiting: Waiting
) -> dict[str, Any] | None:
    """Run the trainer beside this thread, which hears signals and passes on what is told; the lead's outcome.

    Where the lock is lost the workers end without saving: what is there is another run's now.
    """
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised again in the thread that can say it
            failures.append(error)

    thread = threading.Thread(target=fit, name="rayseg-train", daemon=True)
    thread.start()
    outcome, left_out = None, set[str]()
    while True:
        alive = thread.is_alive()  # asked before the board, so that nothing told at the end is missed
        for event in ray.get(board.take.remote()):
            if event["event"] == "message":
                report.say(event["message"])
            elif event["event"] == "left_out" and event["why"] not in left_out:
                left_out.add(event["why"])
                report.say(f"left out: {event['why']}")
            elif event["event"] == "progress":
                report.show(event)
            elif event["event"] == "started":
                waiting.end()
            elif event["event"] == "failed" and ray.get(board.failure.remote()) is None:
                report.say(f"a worker failed: {event['error']}")
                waiting.begin()
            elif event["event"] == "outcome":
                outcome = event
        if not alive:
            break
        waiting.look()
        try:
            lock.check()
        except JobError as lost:
            board.fail.remote(Overtaken.__name__, str(lost))
        thread.join(POLL_S)
    if outcome is None:
        _raise(failures, ray.get(board.failure.remote()))
    return outcome and {**outcome, "left_out": len(left_out)}


def _raise(failures: list[BaseException], told: tuple[str, str] | None) -> None:
    """What a worker raised, where it was one of rayseg's errors, else what Ray says in one line, if there is anything."""
    if told is not None:
        kind, message = told
        known = getattr(errors, kind, None)
        simple = known if known in (JobError, UsageError, errors.ModelError) else JobError
        raise simple(message)
    if not failures:
        return
    failure = failures[0]
    raise JobError(f"the workers failed: {last_line(failure)}; the same command goes on") from failure


@contextmanager
def _signals(board: Any, report: Reporter) -> Iterator[list[str]]:
    """The first Ctrl-C or SIGTERM asks the workers to save and stop, the second ends at once; the names of those heard."""
    heard: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def hear(number: int, frame: object) -> None:
        heard.append(signal.Signals(number).name)
        if len(heard) > 1:
            raise KeyboardInterrupt
        report.say(f"{heard[0]}: saving, then stopping; once more to stop at once")
        board.stop.remote()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _connect(spec: TrainSpec) -> bool:
    try:
        return cluster.connect(spec.address)
    except ConnectionError as error:
        raise JobError(f"no Ray cluster at {spec.address or os.environ.get('RAY_ADDRESS')}: {error}") from None


def _check_resources(spec: TrainSpec, own: bool) -> dict[str, float]:
    """What each worker takes. Raises `UsageError` where this machine can never hold them all, or no node of a cluster one."""
    found = ray.cluster_resources()
    gpu = spec.gpu if spec.gpu is not None else found.get("GPU", 0) >= 1
    needs = {"CPU": spec.cpus_per_worker} | ({"GPU": 1.0} if gpu else {})
    if not own:
        cluster.check_fits(needs, "a worker")
        return needs
    for name, each in needs.items():
        if spec.least_workers * each > found.get(name, 0):
            raise UsageError(
                f"workers: {spec.least_workers} need {spec.least_workers * each:g} {name}s, this machine has "
                f"{found.get(name, 0):g}; fewer workers, or less cpus_per_worker"
            )
    return needs


def read_data(spec: TrainSpec, report: Reporter) -> tuple[Records, Records | None]:
    """The images to learn from, and those to measure on. Raises `UsageError` where there is nothing to learn."""
    data = packed(read(spec.data, spec.data_format, spec.images, spec.on_error), spec.split)
    if not sum(data.instances.values()):
        raise UsageError(f"data: nothing to learn: {len(data)} images of {spec.data}, none with an object")
    val = None
    if spec.val is not None:
        val = packed(read(spec.val, spec.val_format, spec.val_images, spec.on_error), spec.val_split)
    held_out = f", {len(val):,} to measure on" if val else ""
    count = sum(data.instances.values())
    report.say(f"{len(data):,} images, {count:,} objects of {len(data.class_names)} classes{held_out}")
    return data, val


def _claim(out: str, overwrite: bool) -> None:
    """Check that `out` may be written to; with `overwrite`, remove what an earlier training left there."""
    if overwrite:
        for name in (CARD_NAME, WEIGHTS_NAME, job.NAME, metrics_log.NAME, reporting.NAME, tracking.NAME):
            storage.delete(storage.join(out, name))
        for folder in ("checkpoints", bad_slices.FOLDER, metrics_log.EVENTS):
            _clear(storage.join(out, folder))
    elif storage.exists(storage.join(out, CARD_NAME)) and not job.exists(out):
        raise UsageError(f"out: {out} holds a model that no training put there; another --out, or --overwrite")


def _clear(prefix: str) -> None:
    try:
        for page in list(storage.list_pages(prefix)):
            for entry in page:
                storage.delete(entry.uri)
    except ObjectNotFound:
        pass


def _of_finished(spec: TrainSpec, data: Records) -> Summary:
    checkpoints = checkpointing.all_of(spec.out)
    last = checkpoints[-1] if checkpoints else None
    best = checkpointing.best_of(checkpoints)
    scores = best.card["notes"]["scores"] if best else {}
    position = last.card["position"] if last else {"step": 0, "elapsed_s": 0.0}
    step, score = position["step"], best.score if best else None
    images = Order(len(data), spec.batch_size, spec.batch_size).images_before(step)
    return Summary(spec.out, step, images, 0, 0, position["elapsed_s"], score, scores)


def absolute(spec: TrainSpec) -> TrainSpec:
    """Local paths made absolute, since workers stand elsewhere."""
    names = ("data", "images", "val", "val_images", "out", "model", "weights", "backbone_weights")
    changes = {
        name: os.path.abspath(value)
        for name in names
        if (value := getattr(spec, name))
        and "://" not in value
        and (name not in ("model", "weights", "backbone_weights") or os.path.exists(value))
    }
    return spec.model_copy(update=changes)


__all__ = ["Stopped", "Summary", "run"]
