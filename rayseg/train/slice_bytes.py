"""Slices as bytes, as small as they are quickly read: on their way from the tasks that load them to a worker.

Masks go as bits, images as the bytes they are; what reading or augmenting raised goes in a slice's place.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayseg.errors import RaysegError
from rayseg.train.loop import TensorSlice


def pack(one: TensorSlice | RaysegError) -> bytes:
    """The bytes of a slice, or of why there is none."""
    if isinstance(one, RaysegError):
        return pickle.dumps(one)
    images = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in one.images]  # (H, W, 3)
    targets = [{name: _as_array(name, tensor) for name, tensor in target.items()} for target in one.targets]
    return pickle.dumps((images, targets, list(one.names), one.weight, one.seed), pickle.HIGHEST_PROTOCOL)


def unpack(data: Any) -> TensorSlice:
    """The slice of bytes that `pack` made, which this process trusts. Raises the error that went in its place."""
    found = pickle.loads(data)
    if isinstance(found, RaysegError):
        raise found
    images, targets, names, weight, seed = found
    return TensorSlice(
        [torch.from_numpy(image).permute(2, 0, 1) for image in images],
        [{name: _as_tensor(name, value) for name, value in target.items()} for target in targets],
        names,
        weight,
        seed,
    )


def _as_array(name: str, tensor: Tensor) -> Any:
    array = tensor.numpy()
    return (array.shape, np.packbits(array)) if name == "masks" else array


def _as_tensor(name: str, value: Any) -> Tensor:
    if name != "masks":
        return torch.from_numpy(value)
    shape, bits = value
    return torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape, dtype=np.int64))).reshape(shape))
