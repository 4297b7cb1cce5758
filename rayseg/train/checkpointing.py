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
    """Write the loop's state below `out`; `notes` is JSON that comes back with it.

    Damaged ones of later steps, which a resume has passed over, are removed: they would count as the last ones.
    """
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
    _remove_damaged_after(out, loop.step)
    return Checkpoint(uri, loop.step, score, card)


def add_to(checkpoint: Checkpoint, score: float | None, notes: dict[str, Any]) -> Checkpoint:
    """Write what became known of a step after it was saved, such as its score."""
    card = {**checkpoint.card, "score": score, "notes": notes}
    storage.write(storage.join(checkpoint.uri, _CARD), json.dumps(card, indent=1).encode())
    return Checkpoint(checkpoint.uri, checkpoint.step, score, card)


def all_of(out: str) -> list[Checkpoint]:
    """The checkpoints below `out` whose card is there, and tensors of the size that it tells, oldest first."""
    return _sound(_listed(out))


def restore_latest(out: str, loop: Loop, say: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
    """Put the last whole checkpoint below `out` into the loop; None where there is none.

    A damaged one is passed over and told to `say`. Raises `JobError` for one that is of another model or recipe.
    """
    for checkpoint, _ in reversed(_listed(out)):
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
    """Remove all but the last `keep` and the best."""
    listed = _listed(out)
    found = _sound(listed)
    best = best_of(found)
    kept = {one.step for one in found[-keep:]} | ({best.step} if best else set())
    for one, _ in listed:
        if one.step not in kept:
            _remove(one)


def best_weights(out: str, say: Callable[[str], None] = lambda _: None) -> tuple[Checkpoint, dict[str, Tensor]]:
    """The best whole checkpoint below `out`, or the last where none has a score, and the weights of a model made of it.

    They are the moving average where there is one. A damaged one is passed over and told to `say`. Raises `JobError` where
    none is whole.
    """
    left = all_of(out)
    while left:
        chosen = best_of(left) or left[-1]
        data = _whole(chosen)
        if data is not None:
            tensors = _loaded(data)
            return chosen, _part(tensors, "average.") or _part(tensors, "model.")
        say(f"{chosen.uri}: damaged, passed over")
        left.remove(chosen)
    raise JobError(f"{storage.join(out, _FOLDER)}: no whole checkpoint to make a model of")


def _remove_damaged_after(out: str, step: int) -> None:
    for one, _ in _listed(out):
        if one.step > step and _whole(one) is None:
            _remove(one)


def _remove(checkpoint: Checkpoint) -> None:
    """The card goes first, so that none is ever half there."""
    storage.delete(storage.join(checkpoint.uri, _CARD))
    storage.delete(storage.join(checkpoint.uri, _TENSORS))


def _listed(out: str) -> list[tuple[Checkpoint, int]]:
    """Every checkpoint whose card is there, and the bytes of its tensors, 0 without any; oldest first."""
    prefix = storage.join(out, _FOLDER)
    try:
        sizes = {entry.uri: entry.size_bytes for page in storage.list_pages(prefix) for entry in page}
    except ObjectNotFound:
        return []
    cards = [_read_card(uri[: -len(_CARD) - 1]) for uri in sizes if uri.endswith(f"/{_CARD}")]
    found = [(one, sizes.get(storage.join(one.uri, _TENSORS), 0)) for one in cards if one is not None]
    return sorted(found, key=lambda pair: pair[0].step)


def _sound(listed: list[tuple[Checkpoint, int]]) -> list[Checkpoint]:
    return [one for one, size_bytes in listed if size_bytes == one.card["size_bytes"]]


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
