"""What training does to an image before it learns from it: settings, the record, and the call. Torch-free until called.

Image, boxes and masks change together. Every draw comes from (seed, epoch, index), where `index` is the image's rank in
the data set: which worker sees the image, and after which others, changes nothing.

N instances, H W image pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from rayseg.kernels import Rles
from rayseg.specs import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
Donor = Callable[[int], "TrainingImage"]
MAX_SCALE = 8.0  # a larger one enlarges a photo until it no longer fits into memory


class Augmentation(Spec):
    """How images are changed; as it stands they are mirrored and nothing else.

    With `sizes` images come out at the size at which they are to be trained on, which the network's own resize must
    then leave alone: see `batches.keep_sizes`.
    """

    flip: Probability = Field(default=0.5, description="probability that an image is mirrored, left to right")
    scale_jitter: tuple[float, float] | None = Field(
        default=None,
        strict=False,
        description="factor drawn between these; the image is then cut or padded to its size",
    )
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), strict=False, description="shorter side in pixels, drawn from these; none: left to the network"
    )
    max_side: int | None = Field(
        default=None, ge=1, description="longest side with `sizes`; none: 1.667 times the shorter one"
    )
    crop: Probability = Field(default=0.0, description="probability that a random part of the image is taken")
    colour: Probability = Field(default=0.0, description="probability that brightness, contrast, colours change")
    copy_paste: Probability = Field(default=0.0, description="probability that objects of another image are pasted in")
    mosaic: Probability = Field(default=0.0, description="probability that an image shares its frame with three others")

    @field_validator("scale_jitter")
    @classmethod
    def _rises(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= MAX_SCALE:
            raise ValueError(f"expected two factors [low, high] with 0 < low <= high <= {MAX_SCALE:g}")
        return value

    @property
    def needs_donors(self) -> bool:
        """Whether other images of the data set are asked for."""
        return self.copy_paste > 0 or self.mosaic > 0


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One image and what is to be learnt from it.

    image       (H, W, 3) uint8 RGB, upright
    boxes_xyxy  (N, 4) float32 pixels
    classes     (N,) int64 from 0
    masks       (N, H, W) bool, or as many RLEs of the image's size; one without any pixel: only the box is known
    crowd       (N,) bool, the instance stands for a group and is neither object nor background
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | Rles
    crowd: np.ndarray
    name: str = ""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def image_hw(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]

    def dense_masks(self) -> np.ndarray:
        """(N, H, W) bool."""
        if isinstance(self.masks, np.ndarray):
            return self.masks
        decoded = np.zeros((len(self.masks), *self.image_hw), bool)
        for i in range(len(self.masks)):
            decoded[i] = self.masks.decode(i)
        return decoded


def augment(
    image: TrainingImage, settings: Augmentation, *, seed: int, epoch: int, index: int, donor: Donor | None = None
) -> TrainingImage:
    """`image` as it is to be learnt from in `epoch`, its masks dense; nothing of `image` itself changes.

    Boxes are the tight boxes of their masks afterwards; instances of which nothing is left are gone; a box without a
    mask is cut at the image's border. `donor(n)` gives some image of the data set, as it was before augmentation, for
    any n from 0 to 2**31 - 1 (its rank modulo their number will do); None: neither copy-paste nor mosaic happens.
    """
    from rayseg.train import transforms

    rng = np.random.default_rng([seed, epoch, index])
    return transforms.augmented(image, settings, rng, donor)
