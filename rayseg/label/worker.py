"""The model worker: one actor, one model, chunks of images in, chunks of result rows out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayseg import kernels
from rayseg.errors import ModelError
from rayseg.formats.parts import RowError, rows_table
from rayseg.label import chunks
from rayseg.label.source import prepared_images
from rayseg.label.spec import LabelSpec
from rayseg.models.predictor import Predictor
from rayseg.outputs.loading import detect_images
from rayseg.outputs.model import load_for
from rayseg.records import RawDetections


@dataclass(frozen=True)
class WorkerJob:
    """What every model worker needs to know."""

    spec: LabelSpec
    fingerprint: str
    device: str | None
    threads: int | None  # torch threads of one worker; None leaves torch's own choice


class LabelWorker:
    """Called by two threads at a time: while one encodes masks, the other has the model."""

    def __init__(self, job: WorkerJob) -> None:
        self._predictor = _load(job)
        self._categories = self._predictor.class_names
        _warm_up(self._predictor)
        self._turn = threading.Lock()
        self._last_turn = time.perf_counter()

    def __call__(self, block: pa.Table) -> pa.Table:
        """A packed chunk of `source.CHUNK_SCHEMA` to a packed chunk of result rows in the same order."""
        table, seconds = chunks.unpack(block)
        images = prepared_images(table)
        with self._model_turn(seconds):
            raws = detect_images(self._predictor, [image for image in images if image is not None])
        begin = time.perf_counter()
        found = iter(self._predictor.finish([raw for raw in raws if isinstance(raw, RawDetections)]))
        labelled = iter([next(found) if isinstance(raw, RawDetections) else raw for raw in raws])
        results = [
            RowError(**error) if image is None else next(labelled)
            for image, error in zip(images, table["error"].to_pylist(), strict=True)
        ]
        rows = rows_table(table["ordinal"], table["uri"], results, self._categories)
        seconds["finish"] = time.perf_counter() - begin
        return chunks.pack(rows, seconds)

    @contextmanager
    def _model_turn(self, seconds: dict[str, float]) -> Iterator[None]:
        with self._turn:
            begin = time.perf_counter()
            seconds["idle"] = begin - self._last_turn
            try:
                yield
            finally:
                self._last_turn = time.perf_counter()
                seconds["detect"] = self._last_turn - begin


def _warm_up(predictor: Predictor) -> None:
    """Load the kernels and whatever the network sets up at its first image, before the first real one waits for it."""
    predictor.detect([np.zeros((64, 64, 3), np.uint8)])
    kernels.warm_up(everything=False)


def _load(job: WorkerJob) -> Predictor:
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    predictor = load_for(job.spec, job.device)
    if predictor.fingerprint != job.fingerprint:
        raise ModelError(
            f"{job.spec.model}: the model changed while the run was going on: "
            f"expected fingerprint {job.fingerprint[:12]}, found {predictor.fingerprint[:12]}"
        )
    return predictor
