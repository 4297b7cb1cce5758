"""Areas that training must learn nothing from: a crowd is neither an object nor background.

A target's boxes labelled `IGNORED` are such areas; they come after the others. An anchor or a proposal that would count as
background, and lies in one by at least half of its own area, is sampled for no loss. COCO's evaluation treats detections
in crowds alike: what counts is the share of the detection that lies in the crowd.

P anchors or proposals, N boxes of the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_area

IGNORED = -1
_MIN_SHARE = 0.5


class _ProposalsBesideCrowds(RegionProposalNetwork):
    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        known = [target["labels"] != IGNORED for target in targets]
        objects = [{"boxes": target["boxes"][keep]} for target, keep in zip(targets, known, strict=True)]
        labels, matched = super().assign_targets_to_anchors(anchors, objects)
        for label, boxes, target, keep in zip(labels, anchors, targets, known, strict=True):
            label[(label == 0) & _lies_in(boxes, target["boxes"][~keep])] = -1.0  # torchvision's "sample it never"
        return labels, matched

    def filter_proposals(self, *arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
        """torchvision's; in training whatever the score, for the heads learn from what is unlikely to be an object."""
        threshold = self.score_thresh
        self.score_thresh = 0.0 if self.training else threshold
        try:
            return super().filter_proposals(*arguments)
        finally:
            self.score_thresh = threshold


class _HeadsBesideCrowds(RoIHeads):
    _sampled = 0  # proposals of the last step

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        known = [labels != IGNORED for labels in gt_labels]
        matched, labels = super().assign_targets_to_proposals(
            proposals,
            [boxes[keep] for boxes, keep in zip(gt_boxes, known, strict=True)],
            [own[keep] for own, keep in zip(gt_labels, known, strict=True)],
        )
        for label, boxes, given, keep in zip(labels, proposals, gt_boxes, known, strict=True):
            label[(label == 0) & _lies_in(boxes, given[~keep])] = -1
        return matched, labels

    def select_training_samples(self, *arguments: Any) -> tuple[Any, ...]:
        samples = super().select_training_samples(*arguments)
        self._sampled = sum(len(labels) for labels in samples[2])
        return samples

    def forward(self, *arguments: Any) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """torchvision's; where crowds leave nothing to sample, its means over nothing are zeros that teach nothing."""
        found, losses = super().forward(*arguments)
        if self.training and not self._sampled:
            losses = {name: loss.nan_to_num() for name, loss in losses.items()}
        return found, losses


def ignore_areas(model: MaskRCNN) -> MaskRCNN:
    """`model`, which from now on understands `IGNORED` in its targets; its weights and its results stay as they are."""
    model.rpn.__class__ = _ProposalsBesideCrowds
    model.roi_heads.__class__ = _HeadsBesideCrowds
    return model


def _lies_in(boxes: Tensor, areas: Tensor) -> Tensor:
    """(P,) bool, the boxes (P, 4) that lie in one of the `areas` (A, 4) by at least `_MIN_SHARE` of their own area."""
    if not len(areas):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], areas[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], areas[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)  # (P, A)
    return (shared >= _MIN_SHARE * box_area(boxes)[:, None]).any(dim=1)
