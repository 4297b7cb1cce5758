"""Four images in one frame. Bochkovskiy et al., "YOLOv4", 2020, section 3.3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from rayseg.train.copy_paste import joined
from rayseg.train.scenes import Scene, framed, padded, resized

_CENTRE_SHARE = (0.3, 0.7)  # of each side: where the four meet


def mosaic(scenes: Sequence[Scene], rng: np.random.Generator) -> Scene:
    """The four `scenes` at the corners of a frame as large as the first: each fills its part, and is cut to it.

    A frame so narrow that a part would have no pixel does without it.
    """
    height, width = scenes[0].image_hw
    y, x = (round(side * float(rng.uniform(*_CENTRE_SHARE))) for side in (height, width))
    corners = [(0, 0, y, x), (0, x, y, width - x), (y, 0, height - y, x), (y, x, height - y, width - x)]
    image = torch.zeros_like(scenes[0].image.as_subclass(Tensor))
    parts = []
    for scene, (top, left, part_h, part_w) in zip(scenes, corners, strict=True):
        if part_h and part_w:
            part = _filling(scene, (part_h, part_w), rng)
            image[:, top : top + part_h, left : left + part_w] = part.image.as_subclass(Tensor)
            parts.append(padded(part, top, left, (height, width)))
    return joined(tv_tensors.Image(image), parts, scenes[0].name)


def _filling(scene: Scene, image_hw: tuple[int, int], rng: np.random.Generator) -> Scene:
    """The scene as small as still fills `image_hw`, cut to it somewhere at random."""
    fill = max(part / own for part, own in zip(image_hw, scene.image_hw, strict=True))
    fitted = [max(part, round(own * fill)) for part, own in zip(image_hw, scene.image_hw, strict=True)]
    scene = resized(scene, (fitted[0], fitted[1]))
    top, left = (-int(rng.integers(own - part + 1)) for own, part in zip(fitted, image_hw, strict=True))
    return framed(scene, image_hw, top, left)
