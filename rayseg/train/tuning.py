"""`rayseg tune`: trainings with drawn fields, side by side on Ray Tune; poor ones end early, the best spec is written down.

OUT/job.json                 what was searched for, in what data: see `job`
OUT/best.yaml                the training spec of the best trial, for `rayseg train -f`
OUT/trials.csv               what was drawn for each, how far it came, its best AP
OUT/trials/NNNN/             each trial's own output, a checkpoint folder where it came to its end

Trial N draws the same values whenever the seed is the same, and goes on from its own checkpoints: a search that was cut off
is taken up by the same command. ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import ray
import torch
import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from rayseg import cluster, storage
from rayseg.errors import JobError, UsageError
from rayseg.outputs import lock as locks
from rayseg.train import job, metrics_log
from rayseg.train.network import Place
from rayseg.train.run import absolute, read_data
from rayseg.train.session import Session
from rayseg.train.tune_spec import Search, TuneSpec
from rayseg.train.watching import Reporter, reporter

_MOST_EVALUATIONS = 100_000
_COLUMNS = {"segm": "mask_ap", "bbox": "box_ap"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial: what was drawn, its evaluations so far, and the best AP of them."""

    number: int
    drawn: dict[str, Any]
    evaluations: int
    best: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a search found, the best trial first."""

    out: str
    trials: list[Trial]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        rows = [{name: getattr(one, name) for name in Trial.__slots__} for one in self.trials]
        return {"event": "done", "out": self.out, "trials": rows}

    def text(self) -> str:
        """In words."""
        best = self.trials[0]
        drawn = ", ".join(f"{name} {_short(value)}" for name, value in best.drawn.items())
        return (
            f"{len(self.trials)} trials; the best is {best.number:04d}, AP {best.best:.3f}: {drawn}\n"
            f"train it with: rayseg train -f {storage.join(self.out, 'best.yaml')} --out MODEL"
        )


def run(spec: TuneSpec, *, report: Reporter | None = None) -> Summary:
    """Search as `spec` says, or go on with what is there.

    Raises `UsageError` for a spec that cannot be, `JobError` where the trials there are of another search, or none was measured.
    """
    report = report or reporter("lines")
    spec = spec.model_copy(update={"out": spec.out if "://" in spec.out else os.path.abspath(spec.out)})
    first = absolute(spec.training({name: one.example() for name, one in spec.search.items()}, spec.out))
    if first.worker_range != (1, 1):
        raise UsageError(f"train.workers: a trial is one worker, found {first.workers}; trials run side by side")
    storage.check_output(spec.out)
    lock = locks.acquire(spec.out, say=report.say)
    try:
        data = read_data(first, report)
        job.begin_search(spec, *data)
        started = cluster.connect(spec.address)
        try:
            found = _search(spec, [ray.put(records) for records in data])
        finally:
            if started:
                cluster.disconnect()
        lock.check()
        return _written(spec, found, first.metric)
    finally:
        report.close()
        lock.release()


def _search(spec: TuneSpec, refs: list[Any]) -> list[Trial]:
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our own metrics.csv holds more
    gpus = spec.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    scheduler = ASHAScheduler(
        time_attr="evaluations", max_t=_MOST_EVALUATIONS, grace_period=spec.grace, reduction_factor=spec.reduction
    )
    with tempfile.TemporaryDirectory(prefix="rayseg-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, spec=spec, refs=refs), {"cpu": spec.cpus_per_trial, "gpu": gpus}
            ),
            param_space={name: _domain(one) for name, one in spec.search.items()},
            tune_config=tune.TuneConfig(
                metric="ap",
                mode="max",
                num_samples=spec.trials,
                scheduler=scheduler,
                search_alg=BasicVariantGenerator(max_concurrent=spec.at_once or 0, random_state=spec.seed),
            ),
            run_config=tune.RunConfig(name="rayseg", storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        return [_as_trial(number, results[number]) for number in range(len(results))]


def _trial(drawn: dict[str, Any], *, spec: TuneSpec, refs: list[Any]) -> None:
    """One training, in this process; each evaluation is reported once, the earlier ones first where it goes on."""
    number = int(tune.get_context().get_trial_id().rpartition("_")[2])
    training = absolute(spec.training(drawn, storage.join(spec.out, job.TRIALS, f"{number:04d}")))
    best: dict[float, float] = {}  # of the evaluations up to that after an epoch

    def heard(epoch: float, scores: float | None) -> None:
        if round(epoch, 4) in best:  # measured again after the trial was cut off
            return
        best[round(epoch, 4)] = max([scores or 0.0, *best.values()])
        tune.report({"ap": best[round(epoch, 4)], "evaluations": len(best)})

    column = _COLUMNS[training.metric]
    for row in metrics_log.read(training.out):
        if row.get("box_ap") or row.get("mask_ap"):
            heard(float(row["epoch"]), float(row[column]) if row.get(column) else None)
    if storage.exists(storage.join(training.out, "model.json")):
        return
    torch.set_num_threads(training.threads or max(1, int(spec.cpus_per_trial)))
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "scores":
            heard(event["epoch"], event[column])

    data, val = ray.get(refs)
    Session(training, data, val, Place(device=device), tell=tell).go()


def _domain(search: Search) -> Any:
    if search.choice is not None:
        return tune.choice(list(search.choice))
    if search.uniform is not None:
        return tune.uniform(*search.uniform)
    if search.loguniform is not None:
        return tune.loguniform(*search.loguniform)
    low, high = search.integers or (0, 0)
    return tune.randint(low, high + 1)


def _as_trial(number: int, result: Any) -> Trial:
    metrics = result.metrics or {}
    error = str(result.error).strip().splitlines()[-1] if result.error else ""
    return Trial(number, dict(result.config or {}), metrics.get("evaluations", 0), metrics.get("ap"), error)


def _written(spec: TuneSpec, trials: list[Trial], metric: str) -> Summary:
    order = sorted(trials, key=lambda one: -1.0 if one.best is None else one.best, reverse=True)
    if order[0].best is None:
        raise JobError(
            f"none of {len(trials)} trials was measured; the first: {trials[0].error or 'it ended too early'}"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *spec.search, "evaluations", f"best_{_COLUMNS[metric]}", "error"])
    for one in order:
        writer.writerow(
            [f"{one.number:04d}", *(one.drawn.get(name) for name in spec.search), one.evaluations, one.best, one.error]
        )
    storage.write(storage.join(spec.out, "trials.csv"), text.getvalue().encode())
    best = yaml.safe_dump(spec.fields(order[0].drawn), sort_keys=False)
    storage.write(storage.join(spec.out, "best.yaml"), best.encode())
    return Summary(spec.out, order)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
