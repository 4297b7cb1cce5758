"""Weights of backbones: files, and torchvision's by their names. Nothing is unpickled but tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rayseg import storage
from rayseg.errors import ModelError, ObjectNotFound

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHT_NAME = re.compile(r"[A-Za-z0-9_]+_Weights\.[A-Za-z0-9_]+")


def is_weight_name(text: str) -> bool:
    """Whether `text` looks like a weight of torchvision's, `ResNet50_Weights.IMAGENET1K_V2`."""
    return _WEIGHT_NAME.fullmatch(text) is not None


def backbone_tensors(source: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or torch file, local or in object storage, or of a torchvision weight's name.

    Raises `ModelError` where there are none to be had.
    """
    from rayseg.models import foreign

    if is_weight_name(source):
        path = _downloaded(source)
        return foreign.state_dict(path.read_bytes(), str(path))
    try:
        data = storage.read(source)
    except ObjectNotFound:
        raise ModelError(f"{source}: expected a file with a backbone's weights, found none") from None
    return _safetensors(data, source) if source.endswith(".safetensors") else foreign.state_dict(data, source)


def _safetensors(data: bytes, source: str) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"{source}: expected safetensors, found something else ({error})") from None


def _downloaded(name: str) -> Path:
    from torchvision.models import get_weight

    from rayseg.models import presets

    try:
        weight = get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{name}: torchvision has no such weights ({error})") from None
    return presets.fetched(weight.url, name)
