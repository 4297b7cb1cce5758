"""The images of a data set as one block of bytes that all workers of a machine share, and an image of it to learn from.

N instances, H W image pixels.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from rayseg.annotations import AnnotatedImage, Category, Dataset
from rayseg.datasets.image_checks import upright_pixels
from rayseg.errors import ImageError, UsageError
from rayseg.formats import shapes
from rayseg.train.augmentation import TrainingImage
from rayseg.train.stand_ins import FAULTS, stand_in


@dataclass(frozen=True)
class Records:
    """Images by their rank, in the order of their names; `data` and `offsets` (images + 1) are read only, and shared.

    With `skip` another image stands in for one that cannot be learnt from.
    """

    categories: tuple[Category, ...]
    data: np.ndarray
    offsets: np.ndarray
    instances: dict[str, int] = field(default_factory=dict)
    skip: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def class_names(self) -> list[str]:
        return [category.name for category in self.categories]

    def image(self, rank: int) -> AnnotatedImage:
        """The image of `rank`, its annotations as they were read."""
        return pickle.loads(self.data[self.offsets[rank] : self.offsets[rank + 1]].data)  # ours: see `packed`

    def training_image(self, rank: int) -> TrainingImage:
        """Decoded, with its masks drawn; with `skip` another one, if need be, whose name is then a `StandIn`.

        Raises StorageError, ImageError, UsageError for one that cannot be learnt from.
        """
        try:
            return self._own_image(rank)
        except FAULTS as fault:
            if not self.skip:
                raise
            return stand_in(self._own_image, rank, len(self), fault)

    def _own_image(self, rank: int) -> TrainingImage:
        return training_image(self.image(rank))

    def digest(self) -> str:
        """Tells these images and annotations from others."""
        return hashlib.sha256(self.data.data).hexdigest()[:16]

    def dataset(self) -> Dataset:
        """The images as a data set again."""
        return Dataset(self.categories, [self.image(rank) for rank in range(len(self))])


def packed(dataset: Dataset, split: str | None = None) -> Records:
    """The images of `dataset`, of one split where it is named; images without objects are images all the same.

    Sorted by name, so that the order in which a source lists them does not decide what is learnt. Where its reader skips
    what is broken, so does training.
    Raises `UsageError` where there are none.
    """
    rows: list[tuple[str, bytes]] = []
    instances: Counter[int] = Counter()
    for image in _of_split(dataset.images, split):
        if image.uri is None and image.data is None:
            raise UsageError(f"{image.name!r}: its pixels cannot be found: give the images' folder (--images)")
        instances.update(one.category for one in image.annotations if not one.crowd)
        rows.append((image.name, pickle.dumps(image, pickle.HIGHEST_PROTOCOL)))
    if not rows:
        raise UsageError("no images" + (f" of split {split!r}" if split else ""))
    rows.sort(key=lambda row: row[0])
    sizes = [len(data) for _, data in rows]
    names = dataset.class_names
    return Records(
        dataset.categories,
        np.frombuffer(b"".join(data for _, data in rows), np.uint8),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        {name: instances[index] for index, name in enumerate(names)},
        dataset.faults is not None and dataset.faults.on_error == "skip",
    )


def training_image(image: AnnotatedImage) -> TrainingImage:
    """`image` decoded, with what is to be learnt from it.

    A box without a mask comes with an empty one, which batches take for an area to ignore; lines and points are left out.
    """
    try:
        pixels = upright_pixels(image)
    except ImageError as error:
        raise ImageError(error.kind, f"{image.name}: {error}") from None
    found = (pixels.shape[0], pixels.shape[1])
    if image.image_hw is not None and tuple(image.image_hw) != found:
        raise UsageError(f"{image.name}: annotated as {image.image_hw} (height, width), the image is {found}")
    boxed = [(one, box) for one in image.annotations if (box := shapes.box_of(one)) is not None]
    kept = [(one, box) for one, box in boxed if one.shape is None or shapes.has_mask(one)]
    try:
        masks = _masks([one for one, _ in kept], found)
    except ValueError as error:
        raise UsageError(f"{image.name}: {error}") from None
    return TrainingImage(
        pixels,
        np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        np.array([one.category for one, _ in kept], np.int64),
        masks,
        np.array([one.crowd for one, _ in kept], bool),
        image.name,
    )


def _masks(annotations: list, image_hw: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool; of a box alone, and not of a crowd, nothing."""
    masks = np.zeros((len(annotations), *image_hw), bool)
    if annotations:
        rles = shapes.rles_of(annotations, image_hw)  # a box alone is filled
        for i, one in enumerate(annotations):
            if one.shape is not None or one.crowd:
                masks[i] = rles.decode(i)
    return masks


def _of_split(images: Iterable[AnnotatedImage], split: str | None) -> Iterable[AnnotatedImage]:
    return images if split is None else (image for image in images if image.split == split)
