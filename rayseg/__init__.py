"""rayseg: instance segmentation at any scale, on Ray.

`rayseg.load(uri)` gives a `Predictor`; `rayseg.read` and `rayseg.write` take data sets from and to nine annotation formats.
Importing this package loads neither torch nor ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayseg.annotations import Dataset
    from rayseg.formats.faults import OnError
    from rayseg.formats.losses import Losses
    from rayseg.models.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load", "read", "write"]


def load(uri: str, device: str | None = None) -> Predictor:
    """Load a model: a checkpoint folder or URI, a preset's name, or a torchvision `.pth` state dict.

    `device` is a torch device name; by default the first GPU, else the CPU.
    Raises `ModelError` or `StorageError`, each naming `uri`.
    """
    from rayseg.models.predictor import load as load_predictor

    return load_predictor(uri, device)


def read(uri: str, format: str | None = None, images: str | None = None, on_error: OnError = "raise") -> Dataset:
    """The annotated data set at `uri`; its images are read as they are gone through.

    `format` is a name such as "coco", needed where the files do not tell; `images` the folder of the images where it is not
    the format's usual one. Faulty items raise `BadAnnotation`, or with "skip" are counted in `Dataset.faults`.
    """
    from rayseg.formats import registry

    return registry.read(uri, format, images, on_error)


def write(dataset: Dataset, uri: str, format: str, *, overwrite: bool = False) -> Losses:
    """Write `dataset` in `format` below `uri`, all of it or nothing; says what was kept, approximated and dropped.

    Raises `UsageError` where `uri` holds something, unless `overwrite`, `StorageError` where it cannot be written.
    """
    from rayseg.formats import registry

    return registry.write(dataset, uri, format, overwrite=overwrite)
