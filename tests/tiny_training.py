"""What the tests of training share: a tiny network, a few images, and the slices of a step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from rayseg.datasets.synthetic import Sample, generate
from rayseg.models.architectures import settings_of
from rayseg.models.maskrcnn import build
from rayseg.train.augmentation import Augmentation
from rayseg.train.batches import training_image
from rayseg.train.loading import batches

SETTINGS = {
    "min_size": 64,
    "max_size": 64,
    "returned_layers": (1, 2),
    "fpn_channels": 16,
    "anchor_sizes": ((12,), (24,), (36,)),
    "box_head_size": 32,
    "mask_layers": (16,),
    "rpn_top_n_train": 50,
    "rpn_samples": 32,
    "box_samples": 16,
}
TINY = settings_of("maskrcnn_resnet10_fpn").model_copy(update=SETTINGS)


def tiny(**settings):
    torch.manual_seed(0)
    return build("maskrcnn_resnet10_fpn", 5, TINY.model_copy(update=settings)).train()


def drawn(count=4):
    return list(generate(count, seed=0, size_px=64, max_objects=3))


def without_objects(sample):
    return Sample(sample.image, np.zeros((0, 64, 64), bool), np.zeros(0, np.int64))


def slices_of(samples, order, rank=0, workers=1, first_step=0):
    """Batches without end of samples in memory, mirrored at random."""
    flips = Augmentation.model_validate({"flip": 0.5})
    return batches(
        lambda index: training_image(samples[index], str(index)),
        order,
        flips,
        first_step=first_step,
        rank=rank,
        workers=workers,
    )


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class Line(nn.Module):
    """A model that is a line; `broken` says in which of its calls its loss is not finite."""

    def __init__(self, broken=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.calls, self.broken = 0, broken

    def forward(self, images, targets):
        self.calls += 1
        value = math.nan if self.calls - 1 in self.broken else 1.0
        return {"fit": value * ((self.weight - 3) ** 2).sum(), "none": 0 * self.weight.sum()}
