"""From a decoded image to the pixels a network takes; needs settings, no weights.

A decode task runs `Preprocess.prepare` far from the model, so that what travels between them is the smaller of the
photo and its resized form. Equal, bit for bit, to torchvision's `GeneralizedRCNNTransform` on that single image under
as many torch threads: torch resizes by another kernel under one thread than under several, which moves normalised
values by up to 1e-4.

H W image pixels; h w resized pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rayseg.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image on its way to the network.

    pixels    (3, h, w) float32, resized and normalised; or (H, W, 3) uint8, the image as it was
    image_hw  (H, W) of the image as it was
    """

    pixels: np.ndarray
    image_hw: tuple[int, int]

    @property
    def resized(self) -> bool:
        """Whether `pixels` are the network's own input already."""
        return self.pixels.dtype != np.uint8


@dataclass(frozen=True)
class Preprocess:
    """Normalises by `image_mean` and `image_std` (of values in 0..1), then resizes bilinearly.

    The shorter side becomes `min_size`, unless the longer one would pass `max_size`; both sides are then padded with
    zeros to multiples of `size_divisible`. `min_size` None leaves images as they are.
    """

    min_size: int | None = None
    max_size: int = 1333
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisible: int = 32

    def resized_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of an image of (H, W). At least one pixel each way, where torchvision would fail."""
        if self.min_size is None:
            return image_hw
        scale = min(self.min_size / min(image_hw), self.max_size / max(image_hw))
        return max(1, math.floor(image_hw[0] * scale)), max(1, math.floor(image_hw[1] * scale))

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """The network's input size for an image of (H, W); images that agree on it share a batch."""
        height, width = self.resized_hw(image_hw)
        unit = self.size_divisible
        return math.ceil(height / unit) * unit, math.ceil(width / unit) * unit

    def prepare(self, image: np.ndarray) -> Prepared:
        """The resized float32 pixels where they take fewer bytes than `image` (H, W, 3) uint8, else `image` itself."""
        original = as_prepared(image)
        height, width = self.resized_hw(original.image_hw)
        if self.min_size is None or 3 * 4 * height * width >= image.nbytes:
            return original
        return Prepared(self.resize(image).numpy(), original.image_hw)

    def resize(self, image: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
        """(3, h, w) float32 on `device`, normalised and resized, from (H, W, 3) uint8.

        In place where it can be, for a photo of 100 megapixels is 1.2 GB as floats. All three channels are resized in
        one call: for a single one torch picks another kernel, which rounds otherwise.
        """
        import torch

        mean = torch.tensor(self.image_mean, device=device)[:, None, None]
        std = torch.tensor(self.image_std, device=device)[:, None, None]
        pixels = as_tensor(image).to(device).permute(2, 0, 1)
        floats = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255).sub_(mean).div_(std)
        if self.min_size is None:
            return floats
        size = self.resized_hw((image.shape[0], image.shape[1]))
        return torch.nn.functional.interpolate(floats[None], size=size, mode="bilinear", align_corners=False)[0]


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """`array` as a tensor over the same memory, or over a copy where it is read-only, as Ray's and Arrow's are."""
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def as_prepared(image: np.ndarray | Prepared) -> Prepared:
    """`image` itself if prepared, else the checked (H, W, 3) uint8 array as one."""
    if isinstance(image, Prepared):
        return image
    check_image(image)
    return Prepared(image, (image.shape[0], image.shape[1]))


def check_image(image: np.ndarray) -> None:
    """Raise `UsageError` unless `image` is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"an image must be a numpy array (H, W, 3) of uint8, found {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(f"an image must be (H, W, 3) uint8 with H, W >= 1, found {image.shape} {image.dtype}")
