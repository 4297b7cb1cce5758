"""What is counted and measured, for Prometheus, and the log: one line of JSON per request.

Replicas send their times along with each answer, so the ingress has them all, each model's replicas together.
"""

from __future__ import annotations

import json
import logging
import time
from contextvars import ContextVar
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("queue", "decode", "forward", "finish")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered, in ingress and replica."""
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The collectors of one ingress, in a registry of their own; `registry` takes further ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "requests answered", "route", "method", "status")
        self.request_s = self._histogram("request_seconds", "from the first byte to the last", "route")
        self.stage_s = self._histogram("predict_seconds", "times of a prediction inside its replica", "model", "stage")
        self.batch_images = self._histogram(
            "forward_images", "images that shared a prediction's forward", "model", buckets=_BATCH_SIZES
        )
        self.instances = self._counter("instances", "instances found online", "model")
        self.captured = self._counter("captured", "predictions kept for the capture, or dropped", "model", "outcome")
        self.rejected = self._counter("rejected", "requests refused, by the kind of problem", "kind")
        self.retried = self._counter("retried", "calls made again because their replica was lost", "model")
        self.replicas = self._gauge("replicas", "warm replicas", "model")
        self.in_flight = self._gauge("requests_in_flight", "requests being answered")
        self.body_bytes = self._gauge("request_body_bytes", "of bodies that wait or are being answered")

    def predicted(
        self, model: str, seconds: dict[str, float], batch: int, instances: int, captured: bool | None = None
    ) -> None:
        """Note one online prediction; `captured` is None where nothing is."""
        for stage in STAGES:
            self.stage_s.labels(model, stage).observe(seconds.get(stage, 0.0))
        self.batch_images.labels(model).observe(batch)
        self.instances.labels(model).inc(instances)
        if captured is not None:
            self.captured.labels(model, "kept" if captured else "dropped").inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"rayseg_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"rayseg_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Any = _SECONDS) -> Histogram:
        return Histogram(f"rayseg_{name}", text, labels, registry=self.registry, buckets=buckets)


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, request id, and what `extra={"fields": {...}}` holds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """Send rayseg's log of this process to stderr as JSON lines, once."""
    log = logging.getLogger("rayseg.serve")
    if not any(isinstance(handler.formatter, JsonLines) for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
