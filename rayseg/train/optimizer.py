"""The optimiser of a recipe, and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayseg.train.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over the trainable weights; biases and norms (one dimension) are not decayed."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


class WeightAverage:
    """An exponential moving average of a model's floating-point state.

    The decay rises to `decay` as (1 + n) / (10 + n) over n updates, so that the random beginning is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards the model's present state; whole numbers are taken over."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, others = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                mine.append(self.state[name])
                others.append(tensor.to(self.state[name].dtype))
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(mine, others, share)  # type: ignore[attr-defined]

    def restore(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        self.updates = updates
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
