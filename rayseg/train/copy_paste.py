"""Objects of one image pasted over another. Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation", 2021.

N instances of the image below, K pasted ones, H W pixels of both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from rayseg.train.scenes import Scene, boxes_on, tidied


def pasted(scene: Scene, donor: Scene, rng: np.random.Generator) -> Scene:
    """`scene` with some objects of `donor`, which is of its size, laid over it where they lie there.

    What they cover is cut from the masks below, crowds' too; what is covered whole is gone. Crowds and objects without
    a mask are never pasted.
    """
    donor = tidied(donor)
    able = np.flatnonzero(donor.masked & ~donor.crowd)
    if not len(able):
        return scene
    chosen = donor.select(np.sort(rng.choice(able, int(rng.integers(1, len(able) + 1)), replace=False)))
    return overlaid(scene, chosen)


def overlaid(scene: Scene, objects: Scene) -> Scene:
    """`scene` below the instances of `objects`, whose masks say which of its pixels are taken."""
    cover = objects.masks.as_subclass(Tensor).amax(dim=0)  # (H, W) of 0 and 1
    hidden = _hidden_boxes(scene, cover)
    below = replace(scene, masks=tv_tensors.Mask(scene.masks.as_subclass(Tensor) * (1 - cover)))
    below = tidied(below.select(~hidden))
    image = torch.where(cover.bool(), objects.image.as_subclass(Tensor), scene.image.as_subclass(Tensor))
    return joined(tv_tensors.Image(image), [below, objects], scene.name)


def joined(image: tv_tensors.Image, scenes: list[Scene], name: str) -> Scene:
    """The instances of all `scenes`, which are of the size of `image`, on `image`."""
    boxes = torch.cat([scene.boxes.as_subclass(Tensor) for scene in scenes])
    return Scene(
        image,
        tv_tensors.Mask(torch.cat([scene.masks.as_subclass(Tensor) for scene in scenes])),
        boxes_on(boxes, (image.shape[-2], image.shape[-1])),
        np.concatenate([scene.classes for scene in scenes]),
        np.concatenate([scene.crowd for scene in scenes]),
        np.concatenate([scene.masked for scene in scenes]),
        name,
    )


def _hidden_boxes(scene: Scene, cover: Tensor) -> np.ndarray:
    """(N,) bool, the boxes without a mask of which every pixel that they touch is covered."""
    hidden = np.zeros(len(scene.classes), bool)
    taken = cover.bool().numpy()
    for i in np.flatnonzero(~scene.masked):
        x1, y1, x2, y2 = np.asarray(scene.boxes[i])
        touched = taken[max(int(y1), 0) : int(np.ceil(y2)), max(int(x1), 0) : int(np.ceil(x2))]
        hidden[i] = bool(touched.all())
    return hidden
