"""The model that a spec names, with the thresholds that the spec sets, else its own."""

from __future__ import annotations

from rayseg.label.spec import LabelSpec
from rayseg.models.predictor import Predictor, load


def load_for(spec: LabelSpec, device: str | None = None) -> Predictor:
    """`spec.model` on `device`. Raises `ModelError` or `StorageError`, naming it."""
    predictor = load(spec.model, device)
    for name in ("score_threshold", "iou_threshold", "max_detections"):
        if (value := getattr(spec, name)) is not None:
            setattr(predictor, name, value)
    return predictor
