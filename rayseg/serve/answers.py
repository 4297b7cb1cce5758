"""A prediction as the caller gets it: JSON in COCO's terms, or the image with its instances drawn on it.

Torch-free, and without HTTP: a replica makes the bytes, so that the ingress only passes them on.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from rayseg import kernels
from rayseg.formats.bridges import joined
from rayseg.records import Instances
from rayseg.serve.options import Masks, PredictOptions
from rayseg.serve.problems import Problem
from rayseg.views import overlay

JSON, PNG = "application/json", "image/png"
MOST_PNG_PIXELS = 1 << 30  # of all masks of an answer
_PNG_LEVEL = 1  # an overlay is made while somebody waits


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` as it is sent. `seconds` are those of queue, decode, forward and finish; `batch` shared the forward.

    `captured`: whether it was taken along for the capture, None where there is none.
    """

    body: bytes
    media_type: str
    instances: int
    seconds: dict[str, float] = field(default_factory=dict)
    batch: int = 1
    captured: bool | None = None


def selected(instances: Instances, options: PredictOptions) -> Instances:
    """The instances of the chosen classes, the best as many as are wanted."""
    kept = np.arange(len(instances))
    if options.classes:
        kept = np.flatnonzero(np.isin(instances.classes, options.classes))
    kept = kept[: options.max_detections]
    if len(kept) == len(instances):
        return instances
    return Instances(
        instances.boxes_xyxy[kept],
        instances.scores[kept],
        instances.classes[kept],
        instances.rles.select(kept),
        instances.image_hw,
    )


def json_body(
    instances: Instances,
    class_names: Sequence[str],
    masks: Masks,
    model: str,
    fingerprint: str,
    seconds: dict[str, float],
) -> bytes:
    """The JSON document of one image."""
    rows = [_row(row, class_names) for row in instances.to_coco()]
    if masks != "rle":
        segmentations = _SEGMENTATIONS[masks](instances)
        for row, segmentation in zip(rows, segmentations, strict=True):
            del row["segmentation"]
            if segmentation is not None:
                row["segmentation"] = segmentation
    document = {
        "model": model,
        "fingerprint": fingerprint,
        "width": instances.image_hw[1],
        "height": instances.image_hw[0],
        "instances": rows,
        "timing_ms": {name: round(value * 1000, 3) for name, value in seconds.items()},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def overlay_body(image: np.ndarray, instances: Instances, class_names: Sequence[str]) -> bytes:
    """A PNG of `image` (H, W, 3) uint8 with its instances."""
    return _png(Image.fromarray(overlay.draw(image, instances, class_names)))


def _row(row: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    del row["image_id"]
    row["category"] = class_names[row["category_id"]]
    return row


def _polygons(instances: Instances) -> list[list[list[int]]]:
    """COCO's lists of polygons: one per part, its holes joined to it by bridges without width."""
    return [[joined(part).reshape(-1).tolist() for part in parts] for parts in kernels.to_polygons(instances.rles)]


def _pngs(instances: Instances) -> list[str]:
    """Each mask as a base64 PNG of one bit per pixel. Raises a `Problem` for more than are made while somebody waits."""
    height, width = instances.image_hw
    if len(instances) * height * width > MOST_PNG_PIXELS:
        found = f"{len(instances)} masks of {width}x{height} pixels"
        most = f"expected at most {MOST_PNG_PIXELS // (height * width)}"
        raise Problem(
            422, "too-many-masks", f"masks=png: {found}, {most}; use max_detections, or masks=rle or polygons"
        )
    masks = (instances.rles.decode(i).astype(bool) for i in range(len(instances)))
    return [base64.b64encode(_png(Image.fromarray(mask))).decode() for mask in masks]


def _nothing(instances: Instances) -> list[None]:
    return [None] * len(instances)


_SEGMENTATIONS: dict[str, Any] = {"polygons": _polygons, "png": _pngs, "none": _nothing}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
