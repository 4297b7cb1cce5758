"""Builds torchvision's Mask R-CNN from an architecture's name and its settings.

What comes out is torchvision's own `MaskRCNN`: it trains with torchvision's losses, crowds left aside, and its state dict
has torchvision's keys. He et al., "Mask R-CNN", 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, RPNHead, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.mobilenetv3 import mobilenet_v3_large
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from rayseg.errors import ModelError
from rayseg.models.architectures import MaskRCNNSettings, settings_of
from rayseg.models.backbones import timm_pyramid
from rayseg.models.ignored_areas import ignore_areas

NormLayer = Callable[[int], nn.Module]
_NORM_GROUPS = 8  # channels are normalised in so many groups, Wu and He, "Group Normalization", 2018


def build(architecture: str, num_classes: int, settings: MaskRCNNSettings | None = None) -> MaskRCNN:
    """A Mask R-CNN in training mode, on the CPU, with random weights.

    `num_classes` counts the classes of objects; the background output is added here.
    `settings` defaults to the architecture's own. Raises `ModelError` for an unknown architecture or backbone.
    """
    settings = settings or settings_of(architecture)
    own_body = _BACKBONES[_known(architecture)]
    backbone = timm_pyramid(settings, _head_norm(settings)) if settings.backbone else own_body(settings)
    outputs = max(settings.labels_of(num_classes)) + 1
    channels = settings.fpn_channels
    anchors = AnchorGenerator(settings.anchor_sizes, (settings.anchor_ratios,) * len(settings.anchor_sizes))
    model = MaskRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=settings.rpn_depth),
        box_roi_pool=_roi_pool(settings, 7),
        box_head=_box_head(settings),
        box_predictor=FastRCNNPredictor(settings.box_head_size, outputs),
        mask_roi_pool=_roi_pool(settings, 14),
        mask_head=MaskRCNNHeads(channels, settings.mask_layers, 1, norm_layer=_head_norm(settings)),
        mask_predictor=MaskRCNNPredictor(settings.mask_layers[-1], settings.mask_layers[-1], outputs),
        **_thresholds(settings),
    )
    _start_undecided(model)
    return ignore_areas(model)


def body_of(architecture: str, settings: MaskRCNNSettings) -> object:
    """What the feature pyramid is built over: equal for networks whose bodies are the same, whatever stands on them."""
    return settings.backbone or _BACKBONES[_known(architecture)]


def _start_undecided(model: MaskRCNN) -> None:
    """Small weights in the layers that answer, as Detectron2 draws them.

    torchvision scales those of the mask logits by the number of classes: with one class the first mask losses are over 20,
    and until they have fallen their gradients, clipped, leave nothing for the rest.
    """
    heads: Any = model.roi_heads
    box, mask = heads.box_predictor, heads.mask_predictor
    for layer, std in ((box.cls_score, 0.01), (box.bbox_pred, 0.001), (mask.mask_fcn_logits, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)


def _known(architecture: str) -> str:
    settings_of(architecture)
    return architecture


def _thresholds(settings: MaskRCNNSettings) -> dict[str, Any]:
    """The settings that are numbers, under torchvision's names."""
    return {
        "min_size": settings.min_size,
        "max_size": settings.max_size,
        "image_mean": list(settings.image_mean),
        "image_std": list(settings.image_std),
        "rpn_pre_nms_top_n_train": settings.rpn_top_n_train,
        "rpn_pre_nms_top_n_test": settings.rpn_pre_nms_top_n,
        "rpn_post_nms_top_n_train": settings.rpn_top_n_train,
        "rpn_post_nms_top_n_test": settings.rpn_post_nms_top_n,
        "rpn_nms_thresh": settings.rpn_nms_threshold,
        "rpn_score_thresh": settings.rpn_score_threshold,
        "rpn_batch_size_per_image": settings.rpn_samples,
        "box_batch_size_per_image": settings.box_samples,
        "box_positive_fraction": settings.box_positive_fraction,
        "box_score_thresh": settings.score_threshold,
        "box_nms_thresh": settings.iou_threshold,
        "box_detections_per_img": settings.max_detections,
    }


def _roi_pool(settings: MaskRCNNSettings, output_size: int) -> MultiScaleRoIAlign:
    """Pools from every pyramid level but the pooled one."""
    levels = [str(level) for level in range(len(settings.returned_layers))]
    return MultiScaleRoIAlign(levels, output_size=output_size, sampling_ratio=settings.roi_sampling_ratio)


def _box_head(settings: MaskRCNNSettings) -> nn.Module:
    channels, side = settings.fpn_channels, 7
    if settings.box_head_convs:
        convs, size = list(settings.box_head_convs), settings.box_head_size
        return FastRCNNConvFCHead((channels, side, side), convs, [size], norm_layer=_head_norm(settings))
    return TwoMLPHead(channels * side * side, settings.box_head_size)


def _backbone_norm(settings: MaskRCNNSettings) -> NormLayer:
    layer = {"batch": nn.BatchNorm2d, "frozen_batch": FrozenBatchNorm2d}[settings.backbone_norm]
    return partial(layer, eps=settings.backbone_norm_eps)


def _head_norm(settings: MaskRCNNSettings) -> NormLayer | None:
    return {"none": None, "batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, _NORM_GROUPS)}[settings.head_norm]


def _resnet_fpn(block: type[BasicBlock | Bottleneck], depths: list[int], settings: MaskRCNNSettings) -> BackboneWithFPN:
    """He et al., "Deep Residual Learning", 2016; its stages are layers 1 (stride 4) to 4 (stride 32)."""
    _check_layers(settings, 1, 4)
    body = ResNet(block, depths, norm_layer=_backbone_norm(settings))
    names = [f"layer{layer}" for layer in settings.returned_layers]
    channels = [64 * 2 ** (layer - 1) * block.expansion for layer in settings.returned_layers]
    return _with_fpn(body, names, channels, settings)


def _mobilenet_v3_fpn(settings: MaskRCNNSettings) -> BackboneWithFPN:
    """Howard et al., "Searching for MobileNetV3", 2019; stages 0 (stride 2) to 4 (stride 32) end where the next
    strided block begins, stage 5 (stride 32 too) is the last convolution, as torchvision counts them."""
    _check_layers(settings, 0, 5)
    body = mobilenet_v3_large(norm_layer=_backbone_norm(settings)).features
    strided = [i for i, block in enumerate(body) if getattr(block, "_is_cn", False)]
    ends = [0, *strided, len(body) - 1]
    picked = [ends[layer] for layer in settings.returned_layers]
    channels = [cast(int, body[i].out_channels) for i in picked]
    return _with_fpn(body, [str(i) for i in picked], channels, settings)


def _with_fpn(body: nn.Module, names: list[str], channels: list[int], settings: MaskRCNNSettings) -> BackboneWithFPN:
    """Lin et al., "Feature Pyramid Networks", 2017."""
    return_layers = {name: str(level) for level, name in enumerate(names)}
    return BackboneWithFPN(body, return_layers, channels, settings.fpn_channels, norm_layer=_head_norm(settings))


def _check_layers(settings: MaskRCNNSettings, first: int, last: int) -> None:
    layers = settings.returned_layers
    if list(layers) != sorted(set(layers)) or layers[0] < first or layers[-1] > last:
        raise ModelError(f"returned_layers must ascend within {first}..{last}, found {list(layers)}")


_RESNET50 = partial(_resnet_fpn, Bottleneck, [3, 4, 6, 3])
_BACKBONES: dict[str, Callable[[MaskRCNNSettings], BackboneWithFPN]] = {
    "maskrcnn_resnet50_fpn": _RESNET50,
    "maskrcnn_resnet50_fpn_v2": _RESNET50,
    "maskrcnn_mobilenet_v3_large_fpn": _mobilenet_v3_fpn,
    "maskrcnn_resnet10_fpn": partial(_resnet_fpn, BasicBlock, [1, 1, 1, 1]),
}
