"""rayseg: instance segmentation at any scale, on Ray.

`rayseg.load(uri)` gives a `Predictor`. Importing this package loads neither torch nor ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayseg.models.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(uri: str, device: str | None = None) -> Predictor:
    """Load a model: a checkpoint folder or URI, a preset's name, or a torchvision `.pth` state dict.

    `device` is a torch device name; by default the first GPU, else the CPU.
    Raises `ModelError` or `StorageError`, each naming `uri`.
    """
    from rayseg.models.predictor import load as load_predictor

    return load_predictor(uri, device)
