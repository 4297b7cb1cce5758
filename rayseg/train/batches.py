"""From training images to what a torchvision detector trains on: tensors.

N instances, H W image pixels.
"""

from __future__ import annotations

from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rayseg.models.ignored_areas import IGNORED
from rayseg.train.augmentation import TrainingImage


class TrainingSample(Protocol):
    """An image and its instances, none of them a crowd; `datasets.synthetic.Sample` is one."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        ...

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool, none empty."""
        ...

    @property
    def classes(self) -> np.ndarray:
        """(N,) int64 from 0."""
        ...

    def boxes_xyxy(self) -> np.ndarray:
        """(N, 4) float32 pixels, each with a positive width and height."""
        ...


class Target(TypedDict):
    """torchvision's: boxes (N, 4) float32 xyxy, labels (N,) int64 from 1 (class + 1), masks (N, H, W) uint8.

    Areas to be ignored come last, labelled `IGNORED`; only models made by `maskrcnn.build` know them.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor


def training_image(sample: TrainingSample, name: str = "") -> TrainingImage:
    """The record that augmentation takes, of a sample."""
    crowd = np.zeros(len(sample.classes), bool)
    return TrainingImage(sample.image, sample.boxes_xyxy(), sample.classes, sample.masks, crowd, name)


def to_tensors(image: TrainingImage) -> tuple[Tensor, Target]:
    """Image (3, H, W) uint8 and its target.

    Crowds are areas to be ignored, and so are boxes without a mask: taken for objects they would teach the mask head
    wrong masks, taken for background they would teach the rest to overlook them. Boxes of no area are left out.
    """
    pixels = torch.from_numpy(np.require(image.image, requirements=["C", "W"])).permute(2, 0, 1)
    masks, boxes = image.dense_masks(), np.asarray(image.boxes_xyxy, np.float32).reshape(-1, 4)
    real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    ignored = np.asarray(image.crowd, bool) | ~masks.any(axis=(1, 2))
    rows = np.concatenate([np.flatnonzero(real & ~ignored), np.flatnonzero(real & ignored)])
    labels = np.where(ignored, IGNORED, np.asarray(image.classes, np.int64) + 1)[rows]  # output 0 is the background
    target: Target = {
        "boxes": torch.from_numpy(boxes[rows]),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(masks[rows].view(np.uint8)),
    }
    return pixels, target


def keep_sizes(model: nn.Module) -> None:
    """Let a torchvision detector train on images at the size at which they come, as `Augmentation.sizes` makes them.

    Nothing of a saved checkpoint changes: its settings hold the size at which it labels.
    """
    transform = getattr(model, "transform", None)
    if isinstance(transform, GeneralizedRCNNTransform):
        transform._skip_resize = True
