"""A checkpoint of the small CPU model with random weights, spread until it finds something in every image."""

from __future__ import annotations

from pathlib import Path

import torch

from rayseg.models import checkpoints, maskrcnn
from rayseg.models.architectures import settings_of

ARCHITECTURE = "maskrcnn_mobilenet_v3_large_fpn"
CLASSES = 80


def save_random(folder: Path, detections: int = 20) -> str:
    """Write the checkpoint to `folder`: at most `detections` objects per image, masks of every shape."""
    torch.manual_seed(0)
    settings = settings_of(ARCHITECTURE).model_copy(update={"max_detections": detections})
    model = maskrcnn.build(ARCHITECTURE, CLASSES, settings).eval()
    heads = model.roi_heads
    spread = {
        model.rpn.head.cls_logits: 50,
        heads.box_predictor.cls_score: 3600,
        heads.mask_predictor.mask_fcn_logits: 8000,
    }
    with torch.no_grad():
        for layer, factor in spread.items():
            layer.weight.mul_(factor)
    names = [f"class_{i}" for i in range(CLASSES)]
    checkpoints.save(str(folder), model, ARCHITECTURE, settings, names)
    return str(folder)
