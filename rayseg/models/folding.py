"""Folds batch normalisation into the convolutions before it: the same network, to float rounding, with less to do."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


class FoldsItself(nn.Module):
    """A module that knows better than `fold_batch_norms` how its norms are folded."""

    def fold(self) -> None:
        raise NotImplementedError


def fold_batch_norms(module: nn.Module) -> None:
    """Replace, in place, every batch norm that follows a convolution in `module` by nothing, and scale the convolution.

    A norm follows a convolution where it is registered right after it, as in all of torchvision's blocks; of a norm with
    an activation in it, as timm has them, the activation stays. For inference only. Outputs move by about 1e-6 of their
    size.
    """
    before: nn.Conv2d | None = None
    for name, child in list(module.named_children()):
        if before is not None and _is_batch_norm(child):
            _scale(before, child)
            setattr(module, name, getattr(child, "act", None) or nn.Identity())
        elif isinstance(child, FoldsItself):
            child.fold()
        else:
            fold_batch_norms(child)
        before = child if isinstance(child, nn.Conv2d) else None


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d) or type(module).__name__ == "FrozenBatchNormAct2d"


def _scale(conv: nn.Conv2d, norm: Any) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None, "a batch norm without running statistics cannot be folded"
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias)
    conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
