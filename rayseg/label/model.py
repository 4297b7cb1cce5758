"""The model that a spec names, with the spec's thresholds."""

from __future__ import annotations

from rayseg.label.spec import LabelSpec
from rayseg.models.predictor import Predictor, load


def load_for(spec: LabelSpec, device: str | None = None) -> Predictor:
    """`spec.model` on `device`. Raises `ModelError` or `StorageError`, naming it."""
    predictor = load(spec.model, device)
    predictor.score_threshold = spec.score_threshold
    predictor.iou_threshold = spec.iou_threshold
    predictor.max_detections = spec.max_detections
    return predictor
