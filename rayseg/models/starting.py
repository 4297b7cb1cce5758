"""The network that a training starts from: built for the data's classes, with what weights there are to begin with.

A tensor that fits by name and shape is loaded; the rest keeps its random start, and the report says which is which. Where
the classes are not those of the weights, the layers that tell classes apart start afresh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from rayseg.errors import ModelError, UsageError
from rayseg.models import checkpoints, presets, rectangles
from rayseg.models.architectures import ARCHITECTURES, MaskRCNNSettings
from rayseg.models.maskrcnn import body_of, build
from rayseg.models.state_matching import Match, by_name, of_backbone
from rayseg.models.weight_files import backbone_tensors, is_weight_name

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models.detection import MaskRCNN

_OF_CLASSES = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
_BODY = "backbone.body."
_NORMS = ("backbone_norm", "backbone_norm_eps")


@dataclass(frozen=True)
class StartReport:
    """What became of every tensor, by its name in the network's state dict.

    loaded   from the weights that `source` names
    skipped  in the weights and not taken, under their names there, and why
    new      not in the weights: random
    notes    what else one should know, a sentence each
    """

    architecture: str
    settings: MaskRCNNSettings
    source: str
    loaded: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    new: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def start_model(
    spec_model: str,
    class_names: Sequence[str],
    *,
    settings: Mapping[str, Any] | None = None,
    weights: str | None = None,
    backbone_weights: str | None = None,
) -> tuple[MaskRCNN, StartReport]:
    """A Mask R-CNN for `class_names`, in training mode on the CPU, and what it starts with.

    spec_model        an architecture's name; or a checkpoint's folder, whose architecture, settings and weights are taken
    settings          fields of `MaskRCNNSettings` that replace the architecture's own
    weights           a checkpoint's folder, a torchvision `.pth`, a preset's name for its COCO weights, or the name of a
                      torchvision weight, `ResNet50_Weights.IMAGENET1K_V2`; None: random, or those of `spec_model`.
                      With a backbone come the norms that it was learnt with, unless `settings` name others
    backbone_weights  a file for the backbone alone, `.pth` or `.safetensors`, or a torchvision weight's name

    Random tensors come from torch's global generator. Raises `UsageError` for wrong settings, `ModelError` where weights
    are not to be had or nothing of them fits.
    """
    if not class_names:
        raise UsageError("nothing to train on: the data have no classes")
    architecture, chosen = settings_for(spec_model, settings or {})
    if weights is None and spec_model not in ARCHITECTURES:
        weights = spec_model
    if weights is not None and is_weight_name(weights) and not presets.is_detector_weight(weights):
        weights, backbone_weights = None, _only_one(weights, backbone_weights)
    source = checkpoints.load(presets.of_weight(weights)) if weights is not None else None
    same = source is not None and tuple(class_names) == source.info.class_names
    label_ids = source.settings.label_ids if source is not None and same else None
    norms = _norms_of(source, architecture, chosen, settings or {}) if source and backbone_weights is None else {}
    chosen = chosen.model_copy(update={"label_ids": label_ids, **norms})
    model = build(architecture, len(class_names), chosen)
    report = StartReport(architecture, chosen, "random weights", new=tuple(model.state_dict()))
    if source is not None:
        report = _put(report, model, _matched(model, source, same), str(weights))
        report = report if same else _noted(report, _classes_differ(source.info.class_names, class_names))
        report = _noted(report, _norms_taken(norms))
    if backbone_weights is not None:
        body: Any = model.backbone.body
        match = of_backbone(body, backbone_tensors(backbone_weights), backbone_weights)
        report = _put(report, model, _prefixed(match, _BODY), backbone_weights)
    return model.train(), report


def settings_for(spec_model: str, overrides: Mapping[str, Any]) -> tuple[str, MaskRCNNSettings]:
    """The architecture's name and its settings, with `overrides` in them: what `start_model` builds.

    A body of timm's that `overrides` bring in brings its own normalisation, unless they name one.
    """
    if spec_model == rectangles.ARCHITECTURE:
        raise UsageError(f"model {spec_model}: it knows its answers and cannot be trained")
    if spec_model in ARCHITECTURES:
        architecture, base = spec_model, ARCHITECTURES[spec_model]
    elif spec_model.endswith((".pth", ".pt")):
        from rayseg.models import foreign

        found = foreign.read(spec_model)
        architecture, base = found.info.architecture, found.settings
    else:
        card = checkpoints.read_card(spec_model)
        architecture, base = card.architecture, card.settings
    chosen = _validated({**base.model_dump(), **overrides})
    if chosen.backbone is not None and chosen.backbone != base.backbone:
        from rayseg.models.backbones import normalisation

        chosen = _validated({**chosen.model_dump(), **normalisation(chosen), **overrides})
    return architecture, chosen


def _validated(fields: dict[str, Any]) -> MaskRCNNSettings:
    try:
        return MaskRCNNSettings.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in ("settings", *fault["loc"]))
        found = "" if fault["type"] == "value_error" else f", found {fault['input']!r:.80}"
        raise UsageError(f"{place}: {fault['msg']}{found}") from None


def _only_one(weights: str, backbone_weights: str | None) -> str:
    if backbone_weights is not None:
        raise UsageError(
            f"weights {weights} are a backbone's, and so are backbone_weights {backbone_weights}: give one"
        )
    return weights


def _matched(model: nn.Module, source: checkpoints.Network, same_classes: bool) -> Match:
    state = source.module.state_dict()
    left_out = [] if same_classes else [name for name in state if name.startswith(_OF_CLASSES)]
    return by_name(model, state, left_out, "of other classes")


def _norms_of(
    source: checkpoints.Network, architecture: str, chosen: MaskRCNNSettings, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """How the norms of `source`'s backbone differ from those `chosen`, where it is the same backbone and none are `asked`."""
    theirs = source.settings
    same_body = body_of(architecture, chosen) == body_of(source.info.architecture, theirs)
    if not same_body or asked.get("backbone_norm", theirs.backbone_norm) != theirs.backbone_norm:
        return {}
    left_open = {name: getattr(theirs, name) for name in _NORMS if name not in asked}
    return {name: value for name, value in left_open.items() if value != getattr(chosen, name)}


def _prefixed(match: Match, prefix: str) -> Match:
    return replace(match, tensors={prefix + name: tensor for name, tensor in match.tensors.items()})


def _put(report: StartReport, model: nn.Module, match: Match, source: str) -> StartReport:
    """Copy the tensors in, and say so. Raises `ModelError` where there are none, or one holds what is not finite."""
    if not match.tensors:
        _, why = match.skipped[0] if match.skipped else ("", "there are none")
        raise ModelError(f"{source}: none of its tensors fits a {report.architecture} as its settings are ({why})")
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in match.tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"{source}: the tensor for {name} holds numbers that are not finite")
            own[name].copy_(tensor)
    loaded = dict.fromkeys((*report.loaded, *match.tensors))
    return replace(
        _noted(report, match.note),
        source=source if not report.loaded else f"{report.source} and {source}",
        loaded=tuple(loaded),
        skipped=(*report.skipped, *match.skipped),
        new=tuple(name for name in own if name not in loaded),
    )


def _noted(report: StartReport, note: str | None) -> StartReport:
    return report if note is None else replace(report, notes=(*report.notes, note))


def _classes_differ(theirs: Sequence[str], ours: Sequence[str]) -> str:
    return (
        f"the weights know {_some(theirs)}, the data {_some(ours)}: the layers that tell classes apart start from "
        "random numbers"
    )


def _norms_taken(norms: Mapping[str, Any]) -> str | None:
    return f"{', '.join(f'{name} {value}' for name, value in norms.items())}: as in the weights" if norms else None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
    return f"{len(names)} classes ({shown})"
