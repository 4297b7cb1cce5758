"""Replicas in this process, without Ray: a real predictor behind the real scheduler and labeller.

`PlainReplicas` stands where `dispatch.ServeReplicas` does. `fail` is asked before each call and may raise a `Problem`, as
replicas that come and go do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rayseg.models.predictor import Predictor, load
from rayseg.models.thresholds import Thresholds
from rayseg.records import RawDetections
from rayseg.serve.labelling import BatchChunk, Labeller
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.scheduling import Scheduler
from rayseg.serve.service import ModelFacts
from rayseg.serve.spec import ServeSpec


class PlainReplicas:
    """One replica of `uri`; `chunks` are those that were called for."""

    def __init__(self, spec: ServeSpec, uri: str = "rectangles", predictor: Predictor | None = None) -> None:
        self.predictor = predictor or load(uri, "cpu")
        self.own = Thresholds(self.predictor.score_threshold, self.predictor.iou_threshold)
        self.scheduler = Scheduler(self._detect, self._finish, thresholds=self.own, max_batch=spec.max_batch)
        self.labeller = Labeller(self.predictor, self.scheduler, self.own, spec)
        self.chunks: list[BatchChunk] = []
        self.fail: Callable[[BatchChunk], object] = lambda chunk: None

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        assert method == "label"
        (chunk,) = args
        self.chunks.append(chunk)
        self.fail(chunk)
        return await self.labeller.label(chunk)

    def facts(self, name: str = "default") -> ModelFacts:
        info = self.predictor.info
        return ModelFacts(name, info.uri, info.class_names, info.fingerprint, info.architecture)

    def _detect(self, images: Any, thresholds: Thresholds) -> list[RawDetections]:
        self.predictor.score_threshold, self.predictor.iou_threshold = thresholds.score, thresholds.iou
        self.predictor.max_detections = thresholds.max_detections
        return self.predictor.detect(images)

    def _finish(self, raw: RawDetections) -> Any:
        return self.predictor.finish([raw])[0]


def prefixes(spec: ServeSpec) -> Prefixes:
    return Prefixes(spec.read_prefixes, spec.write_prefixes)


async def until(holds: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What `holds` returns once it is true."""
    async with asyncio.timeout(timeout_s):
        while not (found := holds()):
            await asyncio.sleep(0.005)
        return found
