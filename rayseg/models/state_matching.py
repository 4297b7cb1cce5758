"""Which tensors of one state dict go where in a network: by name, or by order where the names differ wholly.

Nothing is loaded here; `Match` says what would be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rayseg.errors import ModelError

_COUNTERS = "num_batches_tracked"  # of batch norms: some writers leave them out
_PREFIXES = ("", "backbone.body.", "backbone.", "body.", "features.", "encoder.", "model.")


@dataclass(frozen=True)
class Match:
    """tensors: the network's names and what goes there; skipped: the other state's names and why; note: how, if oddly."""

    tensors: dict[str, Tensor]
    skipped: tuple[tuple[str, str], ...]
    note: str | None = None


def by_name(module: nn.Module, state: Mapping[str, Tensor], left_out: Collection[str] = (), why: str = "") -> Match:
    """The tensors of `state` that `module` has under the same name and in the same shape; `left_out` are skipped."""
    own = module.state_dict()
    tensors, skipped = {}, []
    for name, tensor in state.items():
        if name in left_out:
            skipped.append((name, why))
        elif name not in own:
            skipped.append((name, "the network has no such tensor"))
        elif tensor.shape != own[name].shape:
            skipped.append((name, f"{tuple(tensor.shape)} in the weights, {tuple(own[name].shape)} in the network"))
        else:
            tensors[name] = tensor
    return Match(tensors, tuple(skipped))


def of_backbone(body: nn.Module, state: Mapping[str, Tensor], source: str) -> Match:
    """The tensors of `state` for a backbone `body`: by name, below whatever the file calls the backbone.

    Where no name is shared, by order: then all of the body's shapes must follow each other in the file from its first
    tensor on; what comes after them (a classifier) is skipped. Safetensors are sorted by name, so their order says
    nothing. Raises `ModelError` where neither fits.
    """
    best = max((_below(body, state, prefix) for prefix in _PREFIXES), key=lambda match: len(match.tensors))
    if best.tensors:
        return best
    if source.endswith(".safetensors"):
        raise ModelError(f"{source}: not weights of this backbone: no tensor has a name that fits")
    return _in_order(body, state, source)


def _below(body: nn.Module, state: Mapping[str, Tensor], prefix: str) -> Match:
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    found = by_name(body, inner)
    outside = [(name, "not of the backbone") for name in state if not name.startswith(prefix)]
    return Match(found.tensors, (*((prefix + name, why) for name, why in found.skipped), *outside))


def _in_order(body: nn.Module, state: Mapping[str, Tensor], source: str) -> Match:
    own = [(name, tensor) for name, tensor in body.state_dict().items() if not name.endswith(_COUNTERS)]
    theirs = [(name, tensor) for name, tensor in state.items() if not name.endswith(_COUNTERS)]
    for i, (name, tensor) in enumerate(own):
        found, shape = theirs[i] if i < len(theirs) else ("nothing", None), tuple(tensor.shape)
        if found[1] is None or tuple(found[1].shape) != shape:
            shown = found[0] if found[1] is None else f"{found[0]} {tuple(found[1].shape)}"
            raise ModelError(
                f"{source}: not weights of this backbone: no tensor has a name that fits, and in order "
                f"tensor {i + 1} is {shown}, expected {name} {shape}"
            )
    tensors = {mine: tensor for (mine, _), (_, tensor) in zip(own, theirs, strict=False)}
    skipped = tuple((name, "after the backbone's last tensor") for name, _ in theirs[len(own) :])
    return Match(tensors, skipped, f"{source}: {len(own)} tensors were matched by order and shape, for no name fits")
