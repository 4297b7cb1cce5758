"""From samples to the batches a torchvision detector trains on: shuffled, mirrored, as tensors.

B batch, N instances, H W image pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from rayseg.errors import UsageError


class TrainingSample(Protocol):
    """What the loop needs of an image and its instances; `datasets.synthetic.Sample` is one."""

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
    """torchvision's: boxes (N, 4) float32 xyxy, labels (N,) int64 from 1 (class + 1), masks (N, H, W) uint8."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor


def endless_batches(
    samples: Sequence[TrainingSample], batch_size: int, flip: float, seed: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """Batches without end: every sample once per round, in a new order, mirrored with probability `flip`.

    Raises `UsageError` at once where there are no samples or no instances at all.
    """
    if not samples or not any(len(sample.classes) for sample in samples):
        raise UsageError(f"nothing to train on: {len(samples)} images, none with an instance")
    if batch_size < 1:
        raise UsageError(f"batch_size: 1 or more is needed, found {batch_size}")
    return _batches(samples, batch_size, flip, np.random.default_rng(seed), torch.device(device))


def _batches(
    samples: Sequence[TrainingSample], batch_size: int, flip: float, rng: np.random.Generator, device: torch.device
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    order = _endless_order(len(samples), rng)
    while True:
        chosen = [samples[next(order)] for _ in range(batch_size)]
        pairs = [to_tensors(sample, mirror=rng.random() < flip, device=device) for sample in chosen]
        yield [image for image, _ in pairs], [target for _, target in pairs]


def _endless_order(count: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()


def to_tensors(
    sample: TrainingSample, mirror: bool = False, device: torch.device | None = None
) -> tuple[Tensor, Target]:
    """Image (3, H, W) float32 in [0, 1] and its target; `mirror` turns left and right of both round."""
    image = torch.from_numpy(sample.image).to(device).permute(2, 0, 1).float() / 255
    masks = torch.from_numpy(sample.masks).to(device, torch.uint8)
    boxes = torch.from_numpy(sample.boxes_xyxy()).to(device)
    if mirror:
        image, masks, boxes = image.flip(-1), masks.flip(-1), mirror_boxes(boxes, image.shape[-1])
    labels = torch.from_numpy(sample.classes).to(device) + 1  # output 0 is the background
    return image, {"boxes": boxes, "labels": labels, "masks": masks}


def mirror_boxes(boxes_xyxy: Tensor, width: int) -> Tensor:
    """The boxes (N, 4) in the mirrored image of `width` pixels."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)
