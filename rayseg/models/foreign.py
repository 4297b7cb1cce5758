"""torchvision's own `.pth` state dicts: architecture, settings and number of classes are read from the tensors.

What tensors do not tell (input size, anchors' sizes, thresholds) is taken from the architecture's defaults.
Loaded with `weights_only=True`: no code of the file ever runs.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rayseg import storage
from rayseg.errors import ModelError, ObjectNotFound
from rayseg.models.architectures import MaskRCNNSettings, settings_of
from rayseg.models.cards import ModelInfo, info_of
from rayseg.models.presets import COCO_CLASS_NAMES, COCO_LABEL_IDS

_COCO_OUTPUTS = 91
_TORCHVISION_MOBILENET_ANCHORS = (32, 64, 128, 256, 512)
_LAYER_OF_CHANNELS = {
    "bottleneck": {256: 1, 512: 2, 1024: 3, 2048: 4},
    "basic": {64: 1, 128: 2, 256: 3, 512: 4},
    "mobilenet": {16: 0, 24: 1, 40: 2, 80: 3, 160: 4, 960: 5},
}


@dataclass(frozen=True)
class Foreign:
    """A state dict and what its tensors tell."""

    info: ModelInfo
    settings: MaskRCNNSettings
    state: dict[str, Tensor]


def read(uri: str) -> Foreign:
    """The `.pth` at `uri`. Raises `ModelError` if it holds anything but a known Mask R-CNN's tensors."""
    try:
        data = storage.read(uri)
    except ObjectNotFound:
        raise ModelError(f"{uri}: expected a torchvision state dict, found no file") from None
    state = state_dict(data, uri)
    architecture, settings = _Shapes(uri, state).architecture_and_settings()
    outputs = len(state["roi_heads.box_predictor.cls_score.weight"])
    class_names = tuple(f"class_{i}" for i in range(outputs - 1))
    if outputs == _COCO_OUTPUTS:
        class_names, settings = COCO_CLASS_NAMES, settings.model_copy(update={"label_ids": COCO_LABEL_IDS})
    info = info_of(uri, architecture, settings, class_names, hashlib.sha256(data).hexdigest())
    return Foreign(info, settings, state)


def state_dict(data: bytes, source: str) -> dict[str, Tensor]:
    """The tensors in a file's bytes; a dict that holds them as `model` or `state_dict` will do.

    Raises `ModelError` for what torch cannot read as tensors alone, and for a dict of anything else.
    """
    try:
        content: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{source}: expected a state dict of tensors, found other Python objects, which are never loaded; "
            "save model.state_dict() alone"
        ) from None
    except Exception as error:  # torch's reader raises whatever the bytes lead it to
        raise ModelError(
            f"{source}: expected a torch file, found {len(data)} bytes torch cannot read ({_first_line(error)})"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{source}: expected a dict of tensors, found {_kind(content)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


class _Shapes:
    """Reads an architecture off the names and shapes of its tensors."""

    def __init__(self, source: str, state: dict[str, Tensor]) -> None:
        self._source = source
        self._shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def architecture_and_settings(self) -> tuple[str, MaskRCNNSettings]:
        architecture, body = self._architecture()
        channels = self._all("backbone.fpn.inner_blocks.{}.0.weight", "backbone.fpn.inner_blocks.{}.weight")
        layers = tuple(_LAYER_OF_CHANNELS[body].get(shape[1], -1) for shape in channels)
        if not layers or -1 in layers:
            raise self._error(f"a feature pyramid over {[shape[1] for shape in channels]} channels")
        defaults = settings_of(architecture)
        return architecture, MaskRCNNSettings.model_validate(
            {
                **defaults.model_dump(),
                **self._norms(),
                "returned_layers": layers,
                "anchor_sizes": self._anchor_sizes(defaults, len(layers) + 1),
                "fpn_channels": channels[0][0],
                "rpn_depth": len(self._all("rpn.head.conv.{}.0.weight")) or 1,
                "box_head_convs": tuple(s[0] for s in self._all("roi_heads.box_head.{}.0.weight")),
                "box_head_size": self._shape("roi_heads.box_predictor.cls_score.weight")[1],
                "mask_layers": self._mask_layers(),
            }
        )

    def _architecture(self) -> tuple[str, str]:
        """The architecture and the kind of its backbone."""
        body = "backbone.body."
        self._shape("roi_heads.box_predictor.cls_score.weight")
        self._shape("roi_heads.mask_predictor.mask_fcn_logits.weight")
        depths = [len(self._all(f"{body}layer{i}.{{}}.conv1.weight")) for i in (1, 2, 3, 4)]
        if depths == [3, 4, 6, 3] and f"{body}layer1.0.conv3.weight" in self._shapes:
            second = "backbone.fpn.inner_blocks.0.1.weight" in self._shapes
            return "maskrcnn_resnet50_fpn_v2" if second else "maskrcnn_resnet50_fpn", "bottleneck"
        if depths == [1, 1, 1, 1] and f"{body}layer1.0.conv3.weight" not in self._shapes:
            return "maskrcnn_resnet10_fpn", "basic"
        if self._shapes.get(f"{body}16.0.weight", ())[:1] == (960,):
            return "maskrcnn_mobilenet_v3_large_fpn", "mobilenet"
        raise self._error(f"a backbone with {depths} residual blocks" if any(depths) else "an unknown backbone")

    def _norms(self) -> dict[str, Any]:
        """Frozen norms keep no count of batches. torchvision's COCO weights, whence nearly all of them come, were
        made with nothing added to the variance."""
        counted = any(n.startswith("backbone.body.") and n.endswith("num_batches_tracked") for n in self._shapes)
        heads = "batch" if "backbone.fpn.inner_blocks.0.1.weight" in self._shapes else "none"
        backbone = (
            {"backbone_norm": "batch"} if counted else {"backbone_norm": "frozen_batch", "backbone_norm_eps": 0.0}
        )
        return {**backbone, "head_norm": heads}

    def _mask_layers(self) -> tuple[int, ...]:
        layers = self._all("roi_heads.mask_head.{}.0.weight") or self._all(
            "roi_heads.mask_head.mask_fcn{}.weight", first=1
        )
        return tuple(shape[0] for shape in layers)

    def _anchor_sizes(self, defaults: MaskRCNNSettings, levels: int) -> tuple[tuple[int, ...], ...]:
        count = self._shape("rpn.head.cls_logits.weight")[0] // len(defaults.anchor_ratios)
        for sizes in (defaults.anchor_sizes, (_TORCHVISION_MOBILENET_ANCHORS,) * levels):
            if len(sizes) == levels and len(sizes[0]) == count:
                return sizes
        raise self._error(f"{count} anchor sizes on each of {levels} levels, which tensors do not tell")

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise self._error(f"no {name} among {len(self._shapes)} tensors")
        return self._shapes[name]

    def _all(self, *patterns: str, first: int = 0) -> list[tuple[int, ...]]:
        """Shapes of the tensors numbered from `first`, by the first pattern that any of them has."""
        for pattern in patterns:
            found: list[tuple[int, ...]] = []
            while (name := pattern.format(first + len(found))) in self._shapes:
                found.append(self._shapes[name])
            if found:
                return found
        return []

    def _error(self, found: str) -> ModelError:
        return ModelError(
            f"{self._source}: expected the state dict of a torchvision Mask R-CNN "
            f"(ResNet-50 FPN, its v2, MobileNetV3-Large FPN, ResNet-10 FPN), found {found}"
        )


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {', '.join(repr(key) for key in list(content)[:5])}"
    return type(content).__name__


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]
