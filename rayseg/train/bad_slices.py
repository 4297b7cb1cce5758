"""Slices whose loss is not finite, kept for whoever looks into it."""

from __future__ import annotations

import json

from rayseg import storage
from rayseg.train.loop import TensorSlice

FOLDER = "non-finite"


def keep(out: str, rank: int, step: int, one: TensorSlice, losses: dict[str, float]) -> str:
    """Put what the network saw, with the images' names, below `out`; what there is to be told of it."""
    import safetensors.torch

    tensors = {f"{i}.image": image for i, image in enumerate(one.images)}
    tensors |= {f"{i}.{key}": value for i, target in enumerate(one.targets) for key, value in target.items()}
    told = {"names": json.dumps(list(one.names)), "losses": json.dumps({k: repr(v) for k, v in losses.items()})}
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, told)
    uri = storage.join(out, FOLDER, f"step-{step:08d}-worker-{rank}.safetensors")
    storage.write(uri, data)
    bad = ", ".join(f"{name} {value}" for name, value in losses.items())
    return f"step {step}: {bad}; skipped, kept in {uri}: {', '.join(one.names)}"
