"""Small networks with many detections, and the torchvision reference they are held against."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.models.detection import MaskRCNN
from torchvision.transforms.functional import to_tensor

from rayseg.models.architectures import MaskRCNNSettings, settings_of
from rayseg.models.maskrcnn import build

SMALL = {
    "min_size": 64,
    "max_size": 128,
    "rpn_pre_nms_top_n": 60,
    "rpn_post_nms_top_n": 30,
    "iou_threshold": 0.3,
    "max_detections": 25,
    "fpn_channels": 64,
    "box_head_size": 128,
    "mask_layers": (64, 64),
}


@pytest.fixture(scope="session")
def lively():
    """A maker of (network, settings) of an architecture with random weights that detect a lot; not to be changed."""

    @functools.cache
    def make(architecture: str, num_classes: int = 3, **changes: Any) -> tuple[MaskRCNN, MaskRCNNSettings]:
        defaults = settings_of(architecture)
        convs = defaults.box_head_convs and (64, 64)
        settings = MaskRCNNSettings.model_validate(
            {**defaults.model_dump(), **SMALL, "box_head_convs": convs, **changes}
        )
        torch.manual_seed(0)
        model = build(architecture, num_classes, settings).eval()
        heads = model.roi_heads
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                _stir(norm)
        for layer, spread in [
            (model.rpn.head.cls_logits, 1.0),
            (heads.box_predictor.cls_score, 2.0),
            (heads.box_predictor.bbox_pred, 0.5),
            (heads.mask_predictor.mask_fcn_logits, 2.0),
        ]:
            _spread(model, layer, spread)
        return model, settings

    return make


def _stir(norm: torch.nn.BatchNorm2d) -> None:
    """Give a norm statistics that it might have learnt, so that folding it changes something."""
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.1)


def _spread(model: MaskRCNN, layer: torch.nn.Module, spread: float) -> None:
    """Scale a layer so that each of its outputs has mean 0 and deviation `spread` on a noisy image."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model([to_tensor(noise_image(64, 96))])
        hook.remove()
        outputs = torch.cat([output.transpose(0, 1).flatten(1) for output in seen], dim=1)  # (channels, samples)
        scale = spread / outputs.std(1).clamp(min=1e-6)
        layer.bias.sub_(outputs.mean(1)).mul_(scale)
        layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image (H, W, 3) uint8 of blocks of colour, in which networks see structure."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width].copy()


@pytest.fixture(scope="session")
def noise():
    """`noise_image`."""
    return noise_image


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """One torch thread: these networks are too small to share, and threads that wait for each other burn a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def by_torchvision():
    """torchvision's answer for one image: its forward with pasted masks, `>= 0.5`, pycocotools' encode."""

    def predict(model: MaskRCNN, image: np.ndarray) -> dict[str, Any]:
        with torch.inference_mode():
            found = model([to_tensor(image)])[0]
        masks = (found["masks"][:, 0] >= 0.5).numpy().astype(np.uint8)
        rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
        return {
            "boxes": found["boxes"].numpy(),
            "scores": found["scores"].numpy(),
            "classes": found["labels"].numpy() - 1,
            "rles": rles,
        }

    return predict


@pytest.fixture(scope="session")
def mask_difference():
    """The greatest number of pixels by which any mask differs between two lists of RLEs."""

    def count(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> int:
        assert len(ours) == len(theirs)
        pairs = zip(ours, theirs, strict=True)
        return max((int((coco_mask.decode(a) != coco_mask.decode(b)).sum()) for a, b in pairs), default=0)

    return count
