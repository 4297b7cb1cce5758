"""Checkpoints: a folder with `model.json` and `model.safetensors`, on local disk or in object storage.

`describe` and `load` also take a preset's name and a torchvision `.pth`; both are told apart here.
Nothing is ever unpickled from storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rayseg import storage
from rayseg.errors import ModelError, ObjectNotFound
from rayseg.models import cache, presets, rectangles
from rayseg.models.architectures import ARCHITECTURES, MaskRCNNSettings, unknown_name
from rayseg.models.cards import ModelCard, ModelInfo, Weights, parse_card

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchvision.models.detection import MaskRCNN

CARD_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Network:
    """A loaded network and what is known of it."""

    info: ModelInfo
    settings: MaskRCNNSettings
    module: MaskRCNN


def save(
    folder: str,
    model: nn.Module,
    architecture: str,
    settings: MaskRCNNSettings,
    class_names: Sequence[str],
    *,
    training: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> ModelInfo:
    """Write `model`'s weights and card to `folder`, a local path or a URI, and return what `describe` would.

    The card comes last, so that a half-written folder never looks whole. `training` and `metrics` must be JSON.
    Raises `StorageError` where it cannot be written.
    """
    import safetensors.torch

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(state)
    card = ModelCard(
        architecture=architecture,
        settings=settings,
        class_names=tuple(class_names),
        weights=Weights(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
        training=training or {},
        metrics=metrics or {},
    )
    card = card.model_copy(update={"fingerprint": card.computed_fingerprint()})
    storage.write(storage.join(folder, WEIGHTS_NAME), data)
    storage.write(storage.join(folder, CARD_NAME), card.model_dump_json(indent=2).encode())
    return card.info(folder)


def describe(uri: str) -> ModelInfo:
    """What is known of the model at `uri` without its weights, a `.pth` excepted, which is all there is to read.

    Raises `ModelError` if there is none or its card is broken, `StorageError` if it cannot be reached.
    """
    if uri == rectangles.ARCHITECTURE:
        return rectangles.INFO
    if uri in ARCHITECTURES:
        return presets.preset(uri).info
    if _is_state_dict(uri):
        from rayseg.models import foreign

        return foreign.read(uri).info
    return read_card(uri).info(uri)


def load(uri: str) -> Network:
    """The network at `uri` on the CPU, in evaluation mode.

    Raises `ModelError` for anything that is not a whole model, naming the file, what was expected and what was found;
    `StorageError` if it cannot be reached.
    """
    from rayseg.models import foreign

    if uri in ARCHITECTURES:
        chosen = presets.preset(uri)
        path = presets.downloaded(chosen)
        return _assembled(chosen.info, chosen.settings, foreign.state_dict(path.read_bytes(), str(path)), str(path))
    if _is_state_dict(uri):
        found = foreign.read(uri)
        return _assembled(found.info, found.settings, found.state, uri)
    card = read_card(uri)
    path, source = _local_weights(uri, card)
    return _assembled(card.info(uri), card.settings, _tensors(path, source), source)


def read_card(folder: str) -> ModelCard:
    """The card of the checkpoint folder at `folder`; `ModelError` if there is none or it is broken."""
    uri = storage.join(folder, CARD_NAME)
    try:
        return parse_card(storage.read(uri), uri)
    except ObjectNotFound:
        pass
    if "/" not in folder:
        hint = unknown_name(folder, [*ARCHITECTURES, rectangles.ARCHITECTURE], "preset")
        raise ModelError(f"{hint}, and there is no checkpoint folder of that name here")
    raise ModelError(
        f"{folder}: no checkpoint there: expected {CARD_NAME} and {WEIGHTS_NAME}, found no {CARD_NAME}, "
        "which is written last"
    )


def _is_state_dict(uri: str) -> bool:
    return uri.endswith((".pth", ".pt"))


def _assembled(info: ModelInfo, settings: MaskRCNNSettings, state: dict[str, Tensor], source: str) -> Network:
    """Build the architecture without initialising it, and put the weights in."""
    import torch

    from rayseg.models.maskrcnn import build

    with torch.device("meta"):
        module = build(info.architecture, len(info.class_names), settings)
    _put_in(module, state, f"{source}: not the weights of a {info.architecture} of {len(info.class_names)} classes")
    return Network(info, settings, module.eval())


def _put_in(module: nn.Module, state: dict[str, Tensor], complaint: str) -> None:
    """Load `state` into `module`, every tensor in place and in shape, or raise `ModelError`."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, tensor in state.items():
        if expected.get(name, tuple(tensor.shape)) != tuple(tensor.shape):
            raise ModelError(f"{complaint}: {name} is {tuple(tensor.shape)}, expected {expected[name]}")
    # Copies, because safetensors maps the file, and a file overwritten under a running job would take it down.
    own = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    own = {name: tensor.clone() if tensor is state[name] else tensor for name, tensor in own.items()}
    try:
        missing, unexpected = module.load_state_dict(own, strict=False, assign=True)
    except RuntimeError as error:  # shapes under the names that older torchvisions gave
        raise ModelError(f"{complaint}: {str(error).splitlines()[-1].strip()}") from None
    for names, fault in ((missing, "is missing"), (unexpected, "is not expected")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ModelError(f"{complaint}: {names[0]} {fault}{more}")


def _local_weights(folder: str, card: ModelCard) -> tuple[Path, str]:
    """A local file with the folder's weights, and the URI they came from."""
    uri = storage.join(folder, WEIGHTS_NAME)
    parts = urlsplit(uri)
    fault = _fault_against(card.weights, uri)
    if parts.scheme in ("", "file") or "://" not in uri:
        path = Path(url2pathname(parts.path) if uri.startswith("file://") else uri)
        wrong = fault(path) if path.exists() else f"{uri}: expected the weights that {CARD_NAME} names, found no file"
        if wrong is not None:
            raise ModelError(wrong)
        return path, uri
    target = cache.models_folder() / card.computed_fingerprint() / WEIGHTS_NAME
    return cache.fetched_once(target, fault, lambda file: _download(uri, file)), uri


def _fault_against(weights: Weights, uri: str) -> Callable[[Path], str | None]:
    """A check that a file has the size and digest that the card tells; what it says names `uri`."""

    def fault(path: Path) -> str | None:
        size_bytes = path.stat().st_size
        if size_bytes != weights.size_bytes:
            return f"{uri}: expected {weights.size_bytes} bytes as in {CARD_NAME}, found {size_bytes}"
        digest = cache.sha256_of(path)
        if digest != weights.sha256:
            return f"{uri}: damaged, or of another checkpoint: expected sha256 {weights.sha256}, found {digest}"
        return None

    return fault


def _download(uri: str, file: BinaryIO) -> None:
    """Copy an object into `file` by ranges, so that a large one is never whole in memory."""
    try:
        size_bytes = storage.size(uri)
    except ObjectNotFound:
        raise ModelError(f"{uri}: expected the weights that {CARD_NAME} names, found no object") from None
    for start in range(0, size_bytes, _CHUNK_BYTES):
        file.write(storage.read_range(uri, start, _CHUNK_BYTES))


def _tensors(path: Path, source: str) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{source}: expected safetensors, found something else ({error})") from None
