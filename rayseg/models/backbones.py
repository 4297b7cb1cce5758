"""timm's networks as bodies of a feature pyramid: any that gives features of strides 4, 8, 16 ...

Built without weights and without the network: what a checkpoint needs is in its folder. The names of the tensors are
timm's own, below `backbone.body`.

B batch, C channels, h w pixels of a feature map.
"""

from __future__ import annotations

import copy
import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from rayseg.errors import ModelError
from rayseg.models.architectures import TIMM_PREFIX, MaskRCNNSettings
from rayseg.models.folding import FoldsItself, fold_batch_norms


class TimmPyramid(FoldsItself):
    """A body of timm's and the pyramid over its feature maps, with a pooled level on top; Lin et al., 2017."""

    def __init__(
        self, body: nn.Module, channels: Sequence[int], out_channels: int, norm_layer: Callable[..., nn.Module] | None
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(channels), out_channels, LastLevelMaxPool(), norm_layer)
        self.out_channels = out_channels
        self._channels = tuple(channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, out_channels, h, w) by level: "0", "1" ... and "pool"."""
        return self.fpn(self.features(images))

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The body's maps (B, C, h, w) by level."""
        maps = zip(self.body(images), self._channels, strict=True)
        return OrderedDict((str(level), _channels_first(one, channels)) for level, (one, channels) in enumerate(maps))

    def fold(self) -> None:
        """Fold batch norms into convolutions; the body's only if it computes the same afterwards.

        Which layer follows which is guessed from the order in which they are registered, and timm has networks of all
        kinds: a body for which the guess is wrong stays as it is.
        """
        fold_batch_norms(self.fpn)
        folded = copy.deepcopy(self.body)
        fold_batch_norms(folded)
        probe = torch.rand(1, 3, 64, 64, device=next(self.body.parameters()).device)
        with torch.inference_mode():
            pairs = list(zip(self.body(probe), folded(probe), strict=True))
        if all((before - after).abs().max() <= 1e-3 * before.abs().max() for before, after in pairs):
            self.body = folded


def timm_pyramid(settings: MaskRCNNSettings, norm_layer: Callable[..., nn.Module] | None) -> TimmPyramid:
    """The pyramid over the network that `settings.backbone` names, with random weights, on the CPU.

    Layer k of `returned_layers` is the feature map of stride 2 ** (k + 1), so that 1 to 4 are strides 4 to 32 as in a
    ResNet. Raises `ModelError` for a name that timm does not know and for layers that the network does not have.
    """
    name = timm_name(settings)
    strides = _strides(name)
    wanted = [2 ** (layer + 1) for layer in settings.returned_layers]
    if wanted != sorted(set(wanted)) or not set(wanted) <= set(strides):
        raise ModelError(
            f"backbone {settings.backbone}: returned_layers {list(settings.returned_layers)} are feature maps of strides "
            f"{wanted}, expected rising ones among {strides}"
        )
    body = _create(name, out_indices=[strides.index(stride) for stride in wanted])
    if body.pretrained_cfg.get("fixed_input_size"):
        raise ModelError(f"backbone {settings.backbone}: takes images of one size only, detectors need any")
    channels = body.feature_info.channels()
    if settings.backbone_norm == "frozen_batch":
        from timm.layers.norm_act import freeze_batch_norm_2d

        with torch.device("cpu"):
            body = freeze_batch_norm_2d(body)
    return TimmPyramid(body, channels, settings.fpn_channels, norm_layer)


def timm_name(settings: MaskRCNNSettings) -> str:
    """The name of `settings.backbone` at timm. Raises `ModelError` if timm does not know it."""
    import timm

    name = (settings.backbone or "").removeprefix(TIMM_PREFIX)
    if timm.is_model(name):
        return name
    near = difflib.get_close_matches(name, timm.list_models(), n=1)
    hint = f"; did you mean {TIMM_PREFIX}{near[0]}?" if near else ""
    raise ModelError(f"backbone {settings.backbone}: timm {timm.__version__} has no model {name!r}{hint}")


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with its batch norms over the images of all workers; those of timm's keep the activation within them."""
    from timm.layers.norm_act import convert_sync_batchnorm

    return convert_sync_batchnorm(module)


def normalisation(settings: MaskRCNNSettings) -> dict[str, tuple[float, ...]]:
    """`image_mean` and `image_std` that the weights published for `settings.backbone` were trained with."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(timm_name(settings))
    return {"image_mean": tuple(cfg.mean), "image_std": tuple(cfg.std)} if cfg is not None else {}


def _strides(name: str) -> list[int]:
    with torch.device("meta"):
        return list(_create(name, device="meta").feature_info.reduction())


def _create(name: str, device: str = "cpu", **options: Any) -> Any:
    """The network as timm makes it for features; on the CPU whatever the default device, for it fills its own buffers."""
    import timm

    try:
        with torch.device(device):
            return timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ModelError(f"backbone {TIMM_PREFIX}{name}: timm cannot give its features ({error})") from None


def _channels_first(features: Tensor, channels: int) -> Tensor:
    """(B, C, h, w), of a map that some networks give as (B, h, w, C)."""
    if features.shape[1] != channels and features.shape[-1] == channels:
        return features.permute(0, 3, 1, 2)
    return features
