"""Crops of the feature pyramid on a CPU, by the kernel, with channels last all the way into the heads.

Numbers are torchvision's `MultiScaleRoIAlign` to the last bit; it takes NCHW maps, so that every call would first turn them
around. B batch, K boxes, C channels, S side of a crop.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from rayseg.kernels.roi_crops import roi_align


class ChannelsLastPool(nn.Module):
    """`MultiScaleRoIAlign` for inference on a CPU."""

    def __init__(self, pool: MultiScaleRoIAlign) -> None:
        super().__init__()
        self.names = list(pool.featmap_names)
        self.side = cast(int, pool.output_size[0])
        self.output_size = pool.output_size
        self.sampling_ratio = pool.sampling_ratio
        self.canonical = pool.canonical_scale, pool.canonical_level

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Crops (K, C, S, S), channels last, of the maps (B, C, h, w) at `boxes`, (K_i, 4) xyxy of each image."""
        maps = [features[name].permute(0, 2, 3, 1).numpy() for name in self.names]
        scales = [2.0 ** round(math.log2(one.shape[1] / image_shapes[0][0])) for one in maps]
        coordinates = torch.cat(boxes).numpy()
        owners = np.repeat(np.arange(len(boxes)), [len(some) for some in boxes])
        levels = self._levels(boxes, scales)
        crops = np.empty((len(coordinates), self.side, self.side, maps[0].shape[-1]), np.float32)
        for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
            rows = np.flatnonzero(levels == level)
            roi_align(one, coordinates[rows], owners[rows], scale, self.side, self.sampling_ratio, out=crops, rows=rows)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)

    def _levels(self, boxes: list[Tensor], scales: list[float]) -> np.ndarray:
        """(K,) which map each box is cropped from: Lin et al., "Feature Pyramid Networks", 2017, equation 1."""
        first, last = (int(-math.log2(scale)) for scale in (scales[0], scales[-1]))
        return LevelMapper(first, last, *self.canonical)(boxes).numpy()


class ChannelsLastHead(nn.Module):
    """torchvision's `TwoMLPHead` for crops with channels last: its first weights are in their order, so nothing is copied."""

    def __init__(self, head: TwoMLPHead, side: int) -> None:
        super().__init__()
        weight = head.fc6.weight.detach()  # (outputs, C * S * S)
        by_pixel = weight.view(len(weight), -1, side, side).permute(0, 2, 3, 1)
        self.weight, self.bias = by_pixel.reshape(len(weight), -1).contiguous(), head.fc6.bias.detach()
        self.fc7 = head.fc7

    def forward(self, crops: Tensor) -> Tensor:
        """(K, outputs) of crops (K, C, S, S)."""
        flat = crops.permute(0, 2, 3, 1).flatten(1)
        hidden = nn.functional.linear(flat, self.weight, self.bias).relu_()
        return self.fc7(hidden).relu_()


def pool_channels_last(heads: Any) -> None:
    """Let torchvision's `RoIHeads` crop by the kernel, in place."""
    side = heads.box_roi_pool.output_size[0]
    heads.box_roi_pool = ChannelsLastPool(heads.box_roi_pool)
    heads.mask_roi_pool = ChannelsLastPool(heads.mask_roi_pool)
    if isinstance(heads.box_head, TwoMLPHead):
        heads.box_head = ChannelsLastHead(heads.box_head, side)
