"""The architectures by name and their settings: what `model.json` stores, and all that planning needs to know.

Torch-free on purpose: a driver or a decode task reads a `model.json` without loading a network.
"""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rayseg.errors import ModelError
from rayseg.models.preprocess import Preprocess

TIMM_PREFIX = "timm/"


class MaskRCNNSettings(BaseModel):
    """Everything that, with an architecture's name and its number of classes, fixes a Mask R-CNN.

    Sizes are pixels of the resized image unless a name says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Input: the shorter side becomes `min_size` unless the longer one would pass `max_size`.
    min_size: int = Field(default=800, ge=1)
    max_size: int = Field(default=1333, ge=1)
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    # The feature pyramid's body: the architecture's own, or one of timm's, as "timm/tf_efficientnet_lite0".
    backbone: str | None = Field(default=None, pattern=f"^{TIMM_PREFIX}[A-Za-z0-9_.]+$")
    # Backbone stages that feed the feature pyramid; a max-pooled level is always added on top.
    returned_layers: tuple[int, ...] = Field(default=(1, 2, 3, 4), min_length=1)
    backbone_norm: Literal["batch", "frozen_batch"] = "batch"
    backbone_norm_eps: float = Field(default=1e-5, ge=0)  # timm's bodies keep their own
    head_norm: Literal["none", "batch", "group"] = "none"  # also in the feature pyramid
    fpn_channels: int = Field(default=256, ge=1)

    # Region proposals; one entry of `anchor_sizes` per pyramid level.
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_depth: int = Field(default=1, ge=1)
    rpn_pre_nms_top_n: int = Field(default=1000, ge=1)  # per level
    rpn_post_nms_top_n: int = Field(default=1000, ge=1)
    rpn_nms_threshold: float = Field(default=0.7, ge=0, le=1)
    rpn_score_threshold: float = Field(default=0.0, ge=0, le=1)  # in labelling: training takes them all

    # Heads.
    roi_sampling_ratio: int = Field(default=2, ge=1)  # RoIAlign's samples along each side of a cell
    box_head_convs: tuple[int, ...] = ()
    box_head_size: int = Field(default=1024, ge=1)
    mask_layers: tuple[int, ...] = Field(default=(256, 256, 256, 256), min_length=1)

    # Detections; a predictor starts with these and may be told others.
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    iou_threshold: float = Field(default=0.5, ge=0, le=1)
    max_detections: int = Field(default=100, ge=1)

    # Training only: proposals kept per image, and the samples drawn from them.
    rpn_top_n_train: int = Field(default=2000, ge=1)
    rpn_samples: int = Field(default=256, ge=1)
    box_samples: int = Field(default=512, ge=1)
    box_positive_fraction: float = Field(default=0.25, gt=0, le=1)

    # The network's output of each class, where they are not 1..C (torchvision's COCO weights have gaps).
    label_ids: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> MaskRCNNSettings:
        if len(self.anchor_sizes) != len(self.returned_layers) + 1:
            raise ValueError(
                f"anchor_sizes needs one entry per pyramid level, {len(self.returned_layers) + 1} here "
                f"(returned_layers and a pooled one), and has {len(self.anchor_sizes)}"
            )
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError("anchor_sizes needs as many sizes on every level: the levels share one head")
        labels = self.label_ids
        if labels is not None and (min(labels, default=0) < 1 or sorted(set(labels)) != list(labels)):
            raise ValueError("label_ids must ascend and start above 0, which is the background")
        return self

    @property
    def preprocess(self) -> Preprocess:
        """What happens to an image before the network."""
        return Preprocess(self.min_size, self.max_size, self.image_mean, self.image_std)

    def labels_of(self, num_classes: int) -> tuple[int, ...]:
        """The network's output index of each of `num_classes` classes; output 0 is the background.

        Raises `ModelError` if `label_ids` is for another number of classes.
        """
        if self.label_ids is None:
            return tuple(range(1, num_classes + 1))
        if len(self.label_ids) != num_classes:
            raise ModelError(f"label_ids is for {len(self.label_ids)} classes, the model has {num_classes}")
        return self.label_ids


ARCHITECTURES: dict[str, MaskRCNNSettings] = {
    "maskrcnn_resnet50_fpn": MaskRCNNSettings(),
    "maskrcnn_resnet50_fpn_v2": MaskRCNNSettings(head_norm="batch", rpn_depth=2, box_head_convs=(256, 256, 256, 256)),
    "maskrcnn_mobilenet_v3_large_fpn": MaskRCNNSettings(
        min_size=320,
        max_size=640,
        returned_layers=(2, 3, 5),  # strides 8, 16, 32: torchvision's detectors keep only 32, too coarse for masks
        fpn_channels=128,
        anchor_sizes=((16, 24), (40, 64), (96, 144), (208, 320)),
        rpn_pre_nms_top_n=150,
        rpn_post_nms_top_n=150,
        rpn_score_threshold=0.05,
        mask_layers=(128, 128, 128, 128),
    ),
    "maskrcnn_resnet10_fpn": MaskRCNNSettings(
        min_size=192,
        max_size=320,
        fpn_channels=128,
        anchor_sizes=((16,), (32,), (64,), (128,), (192,)),
        rpn_pre_nms_top_n=200,
        rpn_post_nms_top_n=100,
        box_head_size=256,
        mask_layers=(128, 128),
        rpn_top_n_train=400,
        rpn_samples=128,
        box_samples=128,
    ),
}
"""The default settings of every Mask R-CNN that `maskrcnn.build` knows."""


def settings_of(architecture: str) -> MaskRCNNSettings:
    """The default settings of `architecture`; an unknown name is a `ModelError` that names the nearest."""
    try:
        return ARCHITECTURES[architecture]
    except KeyError:
        raise ModelError(unknown_name(architecture, list(ARCHITECTURES), "architecture")) from None


def unknown_name(name: str, known: list[str], noun: str) -> str:
    """A message that says `name` is not known, which is nearest, and which there are."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"unknown {noun} {name!r}{hint} (known: {', '.join(sorted(known))})"
