"""Checkpoints of a training, from which it goes on as if nothing had happened: written whole or not at all.

    OUT/checkpoints/step-00000120/state.safetensors    weights, optimiser state, moving average
    OUT/checkpoints/step-00000120/state.json           position, scores, and the digest of the above; written last

A folder without `state.json`, or whose tensors are not the ones it tells of, does not count. Nothing random is in it: the
order, the augmentation and the sampling of a step come from the seed and the step's number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound
from rayseg.train.loop import Loop

_CARD, _TENSORS = "state.json", "state.safetensors"
_FOLDER = "checkpoints"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: `score` is what validation found at its step, None where there was none."""

    uri: str
    step: int
    score: float | None
    card: dict[str, Any]


def save(out: str, loop: Loop, score: float | None, notes: dict[str, Any]) -> Checkpoint:
    """Write the loop's state below `out`; `notes` is JSON that comes back with it."""
    import safetensors.torch

    data = safetensors.torch.save(_tensors(loop))
    uri = storage.join(out, _FOLDER, f"step-{loop.step:08d}")
    card = {
        "version": _VERSION,
        "position": loop.position(),
        "score": score,
        "notes": notes,
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    storage.write(storage.join(uri, _TENSORS), data)
    storage.write(storage.join(uri, _CARD), json.dumps(card, indent=1).encode())
    return Checkpoint(uri, loop.step, score, card)


def all_of(out: str) -> list[Checkpoint]:
    """The checkpoints below `out` whose card is there, oldest first."""
    prefix = storage.join(out, _FOLDER)
    try:
        uris = [entry.uri for page in storage.list_pages(prefix) for entry in page if entry.uri.endswith(f"/{_CARD}")]
    except ObjectNotFound:
        return []
    found = [_read_card(uri[: -len(_CARD) - 1]) for uri in uris]
    return sorted((one for one in found if one is not None), key=lambda one: one.step)


def restore_latest(out: str, loop: Loop, say: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
    """Put the last whole checkpoint below `out` into the loop; None where there is none.

    A damaged one is passed over and told to `say`. Raises `JobError` for one that is of another model or recipe.
    """
    for checkpoint in reversed(all_of(out)):
        data = _whole(checkpoint)
        if data is None:
            say(f"{checkpoint.uri}: damaged, passed over")
            continue
        _restore(checkpoint, data, loop)
        return checkpoint
    return None


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one of the highest score, the last of equals."""
    scored = [one for one in checkpoints if one.score is not None]
    return max(scored, key=lambda one: (one.score, one.step), default=None)


def prune(out: str, keep: int) -> None:
    """Remove all but the last `keep` and the best. Cards go first, so that none is ever half there."""
    found = all_of(out)
    best = best_of(found)
    kept = {one.step for one in found[-keep:]} | ({best.step} if best else set())
    for one in found:
        if one.step not in kept:
            storage.delete(storage.join(one.uri, _CARD))
            storage.delete(storage.join(one.uri, _TENSORS))


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights that a model made of it should have: the moving average where there is one.

    Raises `JobError` where it is damaged.
    """
    data = _whole(checkpoint)
    if data is None:
        raise JobError(f"{checkpoint.uri}: damaged: its tensors are not those that {_CARD} tells of")
    tensors = _loaded(data)
    return _part(tensors, "average.") or _part(tensors, "model.")


def _tensors(loop: Loop) -> dict[str, Tensor]:
    named = {f"model.{name}": tensor for name, tensor in loop.model.state_dict().items()}
    if loop.average is not None:
        named |= {f"average.{name}": tensor for name, tensor in loop.average.state.items()}
    for index, values in loop.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:  # momentum before the first step
                named[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    # copies, because safetensors refuses tensors that share memory, and asks for the plain memory format
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in named.items()}


def _restore(checkpoint: Checkpoint, data: bytes, loop: Loop) -> None:
    tensors, position = _loaded(data), checkpoint.card["position"]
    try:
        loop.model.load_state_dict(_part(tensors, "model."))
        loop.trust_statistics()
        if loop.average is not None:
            loop.average.restore(_part(tensors, "average."), position["averaged"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        groups = loop.optimizer.state_dict()["param_groups"]
        loop.optimizer.load_state_dict({"state": state, "param_groups": groups})
        _match_memory(loop.optimizer)
        loop.scaler.load_state_dict(position["scaler"])
        loop.step, loop.elapsed_s = position["step"], position["elapsed_s"]
        loop.skipped_in_a_row = position["skipped_in_a_row"]
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise JobError(f"{checkpoint.uri}: of another model or recipe than this run's: {reason}") from None


def _match_memory(optimizer: torch.optim.Optimizer) -> None:
    """Lay the state out as its weights are: fused optimisers go through both in the order of memory."""
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _read_card(uri: str) -> Checkpoint | None:
    try:
        card = json.loads(storage.read(storage.join(uri, _CARD)))
        if card["version"] != _VERSION:
            return None
        return Checkpoint(uri, card["position"]["step"], card["score"], card)
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None


def _whole(checkpoint: Checkpoint) -> bytes | None:
    try:
        data = storage.read(storage.join(checkpoint.uri, _TENSORS))
    except ObjectNotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == checkpoint.card["sha256"] else None


def _loaded(data: bytes) -> dict[str, Tensor]:
    import safetensors.torch

    return safetensors.torch.load(data)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
