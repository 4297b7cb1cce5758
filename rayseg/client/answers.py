"""What an endpoint answers, as records. N instances of one image of H W pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayseg.kernels import Rles
from rayseg.records import Instances

FINISHED = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Prediction:
    """The instances of one image, best first.

    names        N class names, of `instances.classes`
    model        the model's name at the server; models of one `fingerprint` give the same answers
    timing_ms    what took how long inside the server
    """

    instances: Instances
    names: tuple[str, ...]
    model: str
    fingerprint: str
    timing_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an endpoint serves; `classes` by class id."""

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    architecture: str
    default: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was when it was asked about: "queued", "planning", "running", "done", "failed" or "cancelled".

    total   images, None while they are counted; done of them have a row in `out`, failed of these have an error
    rate    images per second; eta_s seconds to go; both None where nothing can be said
    raw     the whole answer
    """

    id: str
    state: str
    model: str
    out: str
    total: int | None
    done: int
    failed: int
    rate: float | None
    eta_s: float | None
    error: str | None
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in FINISHED


def prediction(document: Mapping[str, Any]) -> Prediction:
    """From /v1/predict with masks=rle. Raises ValueError for what it is not, or a mask that does not fit the image."""
    image_hw = (int(document["height"]), int(document["width"]))
    rows = document["instances"]
    boxes_xywh = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    rles = Rles.from_coco([row["segmentation"] for row in rows], image_hw)
    for i, fault in enumerate(rles.check()):
        if fault is not None:
            raise ValueError(f"the mask of instance {i} {fault}")
    instances = Instances(
        np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1),
        np.array([row["score"] for row in rows], np.float32),
        np.array([row["category_id"] for row in rows], np.int64),
        rles,
        image_hw,
    )
    names = tuple(str(row["category"]) for row in rows)
    return Prediction(instances, names, document["model"], document["fingerprint"], document.get("timing_ms", {}))


def models(document: Mapping[str, Any]) -> tuple[Model, ...]:
    """From /v1/models."""
    return tuple(
        Model(one["name"], tuple(one["classes"]), one["fingerprint"], one["architecture"], bool(one["default"]))
        for one in document["models"]
    )


def batch(document: Mapping[str, Any]) -> Batch:
    """From /v1/batches/{id}."""
    return Batch(
        document["id"],
        document["state"],
        document["model"],
        document["out"],
        document.get("total"),
        document.get("done") or 0,
        document.get("failed") or 0,
        document.get("rate"),
        document.get("eta_s"),
        document.get("error"),
        document,
    )


def batches(document: Mapping[str, Any]) -> tuple[Batch, ...]:
    """From /v1/batches."""
    return tuple(map(batch, document["batches"]))
