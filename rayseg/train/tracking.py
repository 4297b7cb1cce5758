"""A training's rows in MLflow, where it is asked for; needs the extra `rayseg[mlflow]`.

A thread sends them, so that no step waits for a server. What it cannot take is said once, and costs no training. A run
that goes on from a checkpoint goes on in its MLflow run too, which OUT/mlflow.json names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rayseg import storage
from rayseg.errors import ObjectNotFound, UsageError
from rayseg.train.spec import TrainSpec

NAME = "mlflow.json"
_LONGEST = 500  # characters of a parameter's value


def check(spec: TrainSpec) -> None:
    """Raise `UsageError` where MLflow is asked for and not installed."""
    if spec.mlflow is not None and importlib.util.find_spec("mlflow") is None:
        raise UsageError(f"mlflow: {spec.mlflow} is asked for, MLflow is not installed; pip install 'rayseg[mlflow]'")


class Tracking:
    """One MLflow run; `say` hears when it stops taking rows."""

    def __init__(self, spec: TrainSpec, say: Callable[[str], None]) -> None:
        self._spec, self._say, self._failed = spec, say, False
        self._run = ""
        self._thread = ThreadPoolExecutor(1, "rayseg-mlflow")
        self._thread.submit(self._do, self._begin)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of `metrics.csv`, at its step."""
        self._thread.submit(self._do, self._send, dict(row))

    def close(self, finished: bool) -> None:
        """Send what waits; a run that is not finished may go on."""
        self._thread.submit(self._do, self._end, finished)
        self._thread.shutdown(wait=True)

    def _do(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever it is, the training is worth more
            self._failed = True
            self._say(f"{self._spec.mlflow}: no more rows go to MLflow: {str(error).strip().splitlines()[0]}")

    def _begin(self) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own seven take minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self._spec.mlflow)
        self._run = _known_run(self._spec)
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(self._spec.mlflow_experiment)
        number = (
            experiment.experiment_id if experiment else self._client.create_experiment(self._spec.mlflow_experiment)
        )
        name = self._spec.out.rstrip("/").rpartition("/")[2]
        self._run = self._client.create_run(number, run_name=name).info.run_id
        values = self._spec.model_dump(mode="json").items()
        params = [Param(key, _short(value)) for key, value in values if value is not None]
        self._client.log_batch(self._run, params=params)
        record = {"uri": self._spec.mlflow, "run_id": self._run}
        storage.write(storage.join(self._spec.out, NAME), json.dumps(record).encode())

    def _send(self, row: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now, step = round(1000 * time.time()), int(row["step"])
        numbers = {key: float(value) for key, value in row.items() if key != "step" and value is not None}
        metrics = [Metric(key, value, now, step) for key, value in numbers.items() if math.isfinite(value)]
        self._client.log_batch(self._run, metrics=metrics)

    def _end(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


def _known_run(spec: TrainSpec) -> str:
    """The run of an earlier start of this training, "" where there is none at this place."""
    with contextlib.suppress(ObjectNotFound, ValueError, KeyError):
        record = json.loads(storage.read(storage.join(spec.out, NAME)))
        if record["uri"] == spec.mlflow:
            return record["run_id"]
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
