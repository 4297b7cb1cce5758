"""The model that a spec names, with the thresholds that the spec sets, else its own."""

from __future__ import annotations

from rayseg.models.predictor import Predictor, load
from rayseg.outputs.spec import OutputSpec


def load_for(spec: OutputSpec, device: str | None = None) -> Predictor:
    """`spec.model` on `device`. Raises `ModelError` or `StorageError`, naming it."""
    predictor = load(spec.model, device)
    for name in ("score_threshold", "iou_threshold", "max_detections"):
        if (value := getattr(spec, name)) is not None:
            setattr(predictor, name, value)
    return predictor
