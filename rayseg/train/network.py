"""The network that a training begins with, in its place, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from rayseg.models.backbones import synchronised
from rayseg.models.starting import StartReport, settings_for, start_model
from rayseg.train.anchor_fitting import fitted_anchors
from rayseg.train.batches import keep_sizes
from rayseg.train.records import Records
from rayseg.train.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands among the workers, and on what it computes."""

    rank: int = 0
    workers: int = 1
    device: str = "cpu"


def network(spec: TrainSpec, data: Records, place: Place) -> tuple[nn.Module, StartReport]:
    """The network of `spec` for the classes of `data`, ready to learn on `place`'s device, and where its weights are from."""
    fitted = fitted_anchors(data, settings_for(spec.model, spec.settings)[1]) if spec.fit_anchors else None
    torch.manual_seed(spec.seed)
    model, report = start_model(
        spec.model,
        data.class_names,
        settings={**spec.settings, **(fitted.fields() if fitted else {})},
        weights=spec.weights,
        backbone_weights=spec.backbone_weights,
    )
    if fitted:
        report = replace(report, notes=(*report.notes, fitted.text()))
    module: nn.Module = model
    if spec.synchronised_norm and place.workers > 1 and place.device != "cpu":
        module = synchronised(module)
    module.to(torch.device(place.device))
    if spec.channels_last:
        module.to(memory_format=torch.channels_last)
    if spec.augmentation.sizes:
        keep_sizes(module)
    if spec.compile:
        model.backbone.compile()
    return module.train(), report


def described(start: StartReport) -> str:
    """Which tensors were loaded, skipped and new, in words."""
    counts = f"{len(start.loaded)} tensors loaded, {len(start.skipped)} skipped, {len(start.new)} new"
    skipped = "".join(f"\n  skipped {name}: {why}" for name, why in start.skipped)
    new = f"\n  new: {', '.join(start.new)}" if start.loaded and start.new else ""
    return f"{start.architecture} from {start.source}: {counts}{skipped}{new}" + "".join(
        f"\n  {note}" for note in start.notes
    )
