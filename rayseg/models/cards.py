"""`model.json`: what a checkpoint folder says about its weights. Torch-free.

    {"format": 1, "architecture": ..., "settings": {...}, "class_names": [...],
     "weights": {"size_bytes": ..., "sha256": ...}, "training": {...}, "metrics": {...}, "fingerprint": ...}

`settings` hold the preprocessing too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayseg.errors import ModelError
from rayseg.models.architectures import ARCHITECTURES, MaskRCNNSettings, unknown_name
from rayseg.models.preprocess import Preprocess
from rayseg.models.thresholds import Thresholds

FORMAT = 1


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without its weights.

    fingerprint  hex; equal fingerprints give equal results
    thresholds   what a predictor starts with
    training     the spec it was trained by, and `metrics` what it reached; empty where unknown
    """

    uri: str
    architecture: str
    class_names: tuple[str, ...]
    fingerprint: str
    preprocess: Preprocess
    thresholds: Thresholds
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


class Weights(BaseModel):
    """Which bytes `model.safetensors` must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ModelCard(BaseModel):
    """The content of `model.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    architecture: str
    settings: MaskRCNNSettings
    class_names: tuple[str, ...] = Field(min_length=1)
    weights: Weights
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    fingerprint: str | None = None

    def computed_fingerprint(self) -> str:
        """sha256 over what decides the results: the weights' digest, architecture, settings and class names."""
        return fingerprint_of(self.architecture, self.settings, self.class_names, self.weights.sha256)

    def info(self, uri: str) -> ModelInfo:
        """The card as planning wants it."""
        return info_of(
            uri,
            self.architecture,
            self.settings,
            self.class_names,
            self.weights.sha256,
            training=self.training,
            metrics=self.metrics,
        )


def info_of(
    uri: str,
    architecture: str,
    settings: MaskRCNNSettings,
    class_names: tuple[str, ...],
    weights_id: str,
    **origin: dict[str, Any],
) -> ModelInfo:
    """The `ModelInfo` of a Mask R-CNN whose weights are identified by `weights_id`."""
    thresholds = Thresholds(settings.score_threshold, settings.iou_threshold, settings.max_detections)
    fingerprint = fingerprint_of(architecture, settings, class_names, weights_id)
    return ModelInfo(uri, architecture, class_names, fingerprint, settings.preprocess, thresholds, **origin)


def fingerprint_of(architecture: str, settings: MaskRCNNSettings, class_names: tuple[str, ...], weights_id: str) -> str:
    """Hex sha256 of all that decides a model's results; `weights_id` stands for the weights."""
    fields = settings.model_dump(mode="json")
    if settings.backbone is None:
        del fields["backbone"]  # which checkpoints of earlier versions do not name
    essentials = {
        "architecture": architecture,
        "settings": fields,
        "class_names": list(class_names),
        "weights": weights_id,
    }
    canonical = json.dumps(essentials, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_card(data: bytes, uri: str) -> ModelCard:
    """The card in the bytes of the `model.json` at `uri`.

    Raises `ModelError`, naming `uri` and the field, for bad JSON, an unknown architecture, wrong or misspelt settings,
    and for a card edited after it was written.
    """
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{uri}: expected JSON, found {len(data)} bytes that are not ({error})") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{uri}: expected a JSON object, found {type(fields).__name__}")
    if fields.get("format") != FORMAT:
        raise ModelError(
            f"{uri}: expected format {FORMAT}, found {fields.get('format')!r}: not by this rayseg's version"
        )
    if fields.get("architecture") not in ARCHITECTURES:
        unknown = unknown_name(str(fields.get("architecture")), list(ARCHITECTURES), "architecture")
        raise ModelError(f"{uri}: {unknown}")
    try:
        card = ModelCard.model_validate_json(data)
    except ValidationError as error:
        raise ModelError(f"{uri}: {_first_fault(error)}") from None
    if card.fingerprint not in (None, card.computed_fingerprint()):
        raise ModelError(
            f"{uri}: was edited after it was written (its fingerprint no longer fits); "
            'to keep the edit, remove its "fingerprint" line'
        )
    return card


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the whole"
    found = "" if fault["type"] == "missing" else f", found {fault['input']!r:.80}"
    return f"{place}: {fault['msg']}{found}"
