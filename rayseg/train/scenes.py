"""A training image as torchvision's tensors, on which `torchvision.transforms.v2` moves image, boxes and masks together.

Nothing here draws anything: whoever calls says what is to be done. Images are resized as networks do it, bilinearly and
without smoothing, so that training sees what labelling will see; masks take the nearest pixel.

N instances, H W image pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from rayseg.train.augmentation import TrainingImage

FILL = (124, 116, 104)  # what is put beside an image: the mean colour that networks subtract


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and its instances.

    image (3, H, W) uint8; masks (N, H, W) uint8 of 0 and 1; boxes (N, 4) float32 xyxy; classes (N,) int64;
    crowd (N,) bool; masked (N,) bool, false where only the box is known.
    """

    image: tv_tensors.Image
    masks: tv_tensors.Mask
    boxes: tv_tensors.BoundingBoxes
    classes: np.ndarray
    crowd: np.ndarray
    masked: np.ndarray
    name: str

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]

    def select(self, kept: np.ndarray) -> Scene:
        """The instances at `kept` (N,) bool or indices."""
        rows = torch.from_numpy(np.flatnonzero(kept) if kept.dtype == bool else kept)
        return replace(
            self,
            masks=tv_tensors.Mask(self.masks[rows]),
            boxes=boxes_on(self.boxes[rows], self.image_hw),
            classes=self.classes[kept],
            crowd=self.crowd[kept],
            masked=self.masked[kept],
        )


def boxes_on(boxes_xyxy: Tensor, image_hw: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """The boxes (N, 4) of an image of (H, W)."""
    plain = boxes_xyxy.as_subclass(Tensor).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(plain, format="XYXY", canvas_size=image_hw)  # pyright: ignore[reportCallIssue]


def scene_of(image: TrainingImage) -> Scene:
    """The tensors of `image`, over the same memory where it may be written."""
    masks = image.dense_masks()
    masks_u8 = np.require(masks, bool, ["C", "W"]).view(np.uint8)
    pixels = torch.from_numpy(np.require(image.image, requirements=["C", "W"])).permute(2, 0, 1)
    boxes = torch.from_numpy(np.array(image.boxes_xyxy, np.float32).reshape(-1, 4))
    return Scene(
        tv_tensors.Image(pixels),
        tv_tensors.Mask(torch.from_numpy(masks_u8)),
        boxes_on(boxes, image.image_hw),
        np.asarray(image.classes, np.int64),
        np.asarray(image.crowd, bool),
        np.asarray(masks.any(axis=(1, 2))),
        image.name,
    )


def training_image(scene: Scene) -> TrainingImage:
    """The arrays of `scene`, tidied: tight boxes, and nothing that is no longer there."""
    tidy = tidied(scene)
    pixels = tidy.image.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy()
    masks = tidy.masks.as_subclass(Tensor).contiguous().numpy().view(bool)
    boxes = tidy.boxes.as_subclass(Tensor).numpy()
    return TrainingImage(pixels, boxes, tidy.classes, masks, tidy.crowd, tidy.name)


def tidied(scene: Scene) -> Scene:
    """Boxes made the tight ones of their masks, boxes alone cut at the border, and instances of no area left out."""
    if not len(scene.classes):
        return scene
    height, width = scene.image_hw
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    given = torch.minimum(scene.boxes.as_subclass(Tensor).clamp(min=0), limits)
    given = torch.nan_to_num(given)
    tight = tight_boxes(scene.masks)
    boxes = torch.where(torch.from_numpy(scene.masked)[:, None], tight, given)
    alive = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1).numpy()
    return replace(scene, boxes=boxes_on(boxes, scene.image_hw)).select(alive)


def tight_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 xyxy around masks (N, H, W), zeros for an empty one: the pixel (x, y) gives x, y, x + 1, y + 1."""
    masks = masks.as_subclass(Tensor)
    columns, rows = masks.amax(dim=1).bool(), masks.amax(dim=2).bool()  # (N, W), (N, H)
    (x1, x2), (y1, y2) = _ends(columns), _ends(rows)
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def _ends(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First true place of each row of (N, L), and the place behind the last; 0 and 0 where none is true."""
    values = inside.to(torch.uint8)
    first, behind = values.argmax(dim=1), inside.shape[1] - values.flip(1).argmax(dim=1)
    some = inside.any(dim=1)
    return first * some, behind * some


def _everywhere(scene: Scene, move: Any, *arguments: Any, **options: Any) -> Scene:
    """`move`, a functional of torchvision's, done to image, masks and boxes alike."""
    moved = {name: move(getattr(scene, name), *arguments, **options) for name in ("image", "masks", "boxes")}
    return replace(scene, **moved)


def mirrored(scene: Scene) -> Scene:
    """Left and right changed round."""
    return _everywhere(scene, F.horizontal_flip)


def cropped(scene: Scene, top: int, left: int, height: int, width: int) -> Scene:
    """The window of `height` by `width` pixels at (`top`, `left`), which lies within the image."""
    return _everywhere(scene, F.crop, top, left, height, width)


def resized(scene: Scene, image_hw: tuple[int, int]) -> Scene:
    """Stretched to `image_hw`."""
    if image_hw == scene.image_hw:
        return scene
    size = list(image_hw)
    return replace(
        scene,
        image=F.resize(scene.image, size, InterpolationMode.BILINEAR, antialias=False),
        masks=tv_tensors.Mask(F.resize(scene.masks, size, InterpolationMode.NEAREST_EXACT)),
        boxes=F.resize(scene.boxes, size),
    )


def padded(scene: Scene, top: int, left: int, image_hw: tuple[int, int]) -> Scene:
    """Within a larger image of `image_hw`, at (`top`, `left`)."""
    height, width = scene.image_hw
    room = [
        left,
        top,
        image_hw[1] - width - left,
        image_hw[0] - height - top,
    ]  # torchvision's: left, top, right, bottom
    if not any(room):
        return scene
    return replace(
        scene,
        image=F.pad(scene.image, room, fill=list(FILL)),
        masks=F.pad(scene.masks, room),
        boxes=F.pad(scene.boxes, room),
    )


def framed(scene: Scene, image_hw: tuple[int, int], top: int, left: int) -> Scene:
    """Cut and padded to `image_hw`: the scene's pixel (0, 0) comes to lie at (`top`, `left`), which may be negative."""
    height, width = scene.image_hw
    y1, x1 = max(-top, 0), max(-left, 0)
    y2, x2 = min(height, image_hw[0] - top), min(width, image_hw[1] - left)
    return padded(cropped(scene, y1, x1, y2 - y1, x2 - x1), max(top, 0), max(left, 0), image_hw)
