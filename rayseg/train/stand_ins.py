"""Images that are learnt from in the place of others that cannot be: steps, their order and their seeds stay as they are.

Which image stands in for another depends on the two's ranks alone, whoever loads it and whenever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rayseg.errors import ImageError, ObjectNotFound, RaysegError, UsageError
from rayseg.train.augmentation import TrainingImage

TRIES = 50  # where so many drawn images are broken, it is not an image that is
FAULTS = (ImageError, ObjectNotFound, UsageError)  # of an image, not of the storage that holds it


class StandIn(str):
    """The name of an image that is learnt from in another one's place; `why` names that one and says what is wrong with it."""

    why: str

    def __new__(cls, name: str, why: str) -> StandIn:
        made = super().__new__(cls, name)
        made.why = why
        return made

    def __getnewargs__(self) -> tuple[str, str]:
        return str(self), self.why


def stand_in(image_of: Callable[[int], TrainingImage], rank: int, images: int, fault: RaysegError) -> TrainingImage:
    """Another of `images` for that of `rank`, with which something is wrong; its name is a `StandIn`.

    Raises `UsageError` where all that are tried are broken too, and what reading an image raises when storage fails.
    """
    for other in np.random.default_rng([rank, images]).integers(images, size=TRIES):
        try:
            found = image_of(int(other))
        except FAULTS:
            continue
        return replace(found, name=StandIn(found.name, str(fault)))
    raise UsageError(f"{fault}; and so it is with all {TRIES} images that were tried in its place")
