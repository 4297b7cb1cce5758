"""Mask R-CNN's inference path: from images to boxes, scores, classes and mask grids.

Runs torchvision's modules, but owns what comes after them. Scores are thresholded before boxes are decoded, NMS runs
in `rayseg.kernels`, the mask head sees kept boxes only and computes the kept class only, and no mask is pasted.
Knows nothing of checkpoints, files or classes' names.

B batch, P proposals of the batch, K candidates above the score threshold, N kept detections, C classes,
L outputs of the network (classes and background), M mask grid side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNN

from rayseg import kernels
from rayseg.models.batching import BatchSizer, in_batches
from rayseg.models.folding import fold_batch_norms
from rayseg.models.preprocess import Prepared, Preprocess, as_prepared, as_tensor
from rayseg.models.roi_pooling import pool_channels_last
from rayseg.models.thresholds import Thresholds
from rayseg.records import RawDetections

_MASK_CHUNK = 512  # boxes in the mask head at once: fills a GPU, and keeps a large batch's memory in bounds
_MIN_BOX_SIDE = 1e-2  # pixels of the resized image; torchvision drops smaller boxes


class MaskRCNNDetector:
    """Turns images into `RawDetections` with a torchvision Mask R-CNN, which it takes over.

    `labels` (C,) says which output of the network each class is. `optimize` folds batch norms and, on a CPU, lays
    the weights out channels last and crops the pyramid by the kernel; without it the numbers are torchvision's to the
    last bits. `sizer` finds the batch size.
    """

    def __init__(
        self,
        model: MaskRCNN,
        labels: Sequence[int],
        preprocess: Preprocess,
        device: str | torch.device = "cpu",
        optimize: bool = True,
        sizer: BatchSizer | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._preprocess = preprocess
        self._labels = torch.tensor(labels, dtype=torch.int64, device=self.device)
        self._sizer = sizer or BatchSizer()
        model = model.eval().requires_grad_(False)
        heads = cast(Any, model.roi_heads)
        for pool in (heads.box_roi_pool, heads.mask_roi_pool):
            pool.scales = pool.map_levels = None  # torchvision guesses them from whatever image came first
        if optimize:
            fold_batch_norms(model)
        model = model.to(self.device)
        self._mask_predictor = _KeptClassMasks(heads.mask_predictor)
        if optimize and self.device.type == "cpu":
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            pool_channels_last(heads)
        self._model = model
        self._heads = heads

    def detect(self, images: Sequence[np.ndarray | Prepared], thresholds: Thresholds) -> list[RawDetections]:
        """One record per image, in order. Only images of one padded size share a batch, so none affects another.

        Raises `UsageError` for an image that is not (H, W, 3) uint8, `ModelError` where one alone exhausts memory.
        """
        prepared = [as_prepared(image) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(prepared):
            groups.setdefault(self._preprocess.padded_hw(image.image_hw), []).append(i)
        found: list[RawDetections | None] = [None] * len(prepared)
        for padded_hw, indices in groups.items():
            members = [prepared[i] for i in indices]
            results = in_batches(
                members, lambda batch, hw=padded_hw: self._detect_batch(batch, hw, thresholds), self._sizer, _describe
            )
            for i, raw in zip(indices, results, strict=True):
                found[i] = raw
        return cast(list[RawDetections], found)

    @torch.inference_mode()
    def _detect_batch(
        self, images: Sequence[Prepared], padded_hw: tuple[int, int], thresholds: Thresholds
    ) -> list[RawDetections]:
        sizes_hw = [self._preprocess.resized_hw(image.image_hw) for image in images]
        pixels = self._padded(images, padded_hw)  # (B, 3, h, w)
        features = self._model.backbone(pixels)
        proposals, _ = self._model.rpn(ImageList(pixels, sizes_hw), features)
        candidates = self._candidates(features, proposals, sizes_hw, padded_hw, thresholds.score)
        kept = candidates.suppressed(len(images), thresholds)
        grids = self._grids(features, candidates, kept, padded_hw)
        return [
            _in_image(candidates, indices, image_grids, size_hw, image.image_hw)
            for image, indices, image_grids, size_hw in zip(images, kept, grids, sizes_hw, strict=True)
        ]

    def _padded(self, images: Sequence[Prepared], padded_hw: tuple[int, int]) -> Tensor:
        """(B, 3, h, w) float32 on the device, zero beyond each image."""
        batch = torch.zeros((len(images), 3, *padded_hw), device=self.device)
        for image, target in zip(images, batch, strict=True):
            pixels = self._resized(image)
            target[:, : pixels.shape[1], : pixels.shape[2]].copy_(pixels)
        return batch

    def _resized(self, image: Prepared) -> Tensor:
        if image.resized:
            return as_tensor(image.pixels)
        return self._preprocess.resize(image.pixels, self.device)

    def _candidates(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes_hw: list[tuple[int, int]],
        padded_hw: tuple[int, int],
        score_threshold: float,
    ) -> _Candidates:
        """Every (proposal, class) above the threshold, its box decoded and clipped to its resized image."""
        heads = self._heads
        pooled = heads.box_roi_pool(features, proposals, [padded_hw])
        logits, deltas = heads.box_predictor(heads.box_head(pooled))  # (P, L), (P, 4L)
        scores = logits.softmax(-1)[:, self._labels]  # (P, C)
        rows, classes = torch.where(scores > score_threshold)  # (K,), (K,)
        labels = self._labels[classes]
        deltas = deltas.view(len(deltas), logits.shape[1], 4)[rows, labels]
        boxes = heads.box_coder.decode_single(deltas, torch.cat(proposals)[rows])  # (K, 4)
        counts = torch.tensor([len(p) for p in proposals], device=self.device)
        owners = torch.arange(len(proposals), device=self.device).repeat_interleave(counts)[rows]
        limits = torch.tensor([[w, h, w, h] for h, w in sizes_hw], dtype=boxes.dtype, device=self.device)
        boxes = torch.minimum(boxes.clamp(min=0), limits[owners])
        return _Candidates(
            boxes.cpu().numpy(), *(t.cpu().numpy() for t in (scores[rows, classes], classes, labels, owners))
        )

    def _grids(
        self,
        features: dict[str, Tensor],
        candidates: _Candidates,
        kept: list[np.ndarray],
        padded_hw: tuple[int, int],
    ) -> list[np.ndarray]:
        """Mask probabilities (N, M, M) of the kept candidates of every image."""
        heads = self._heads
        everything = np.concatenate(kept)
        if len(everything) == 0:
            side = 2 * heads.mask_roi_pool.output_size[0]
            return [np.empty((0, side, side), np.float32) for _ in kept]
        labels = torch.from_numpy(candidates.labels[everything]).to(self.device)
        boxes = [torch.from_numpy(candidates.boxes_xyxy[indices]).to(self.device) for indices in kept]
        pooled = heads.mask_roi_pool(features, boxes, [padded_hw])
        chunks = zip(pooled.split(_MASK_CHUNK), labels.split(_MASK_CHUNK), strict=True)
        grids = torch.cat([self._mask_predictor(heads.mask_head(chunk), label) for chunk, label in chunks])
        return np.split(grids.cpu().numpy(), np.cumsum([len(indices) for indices in kept])[:-1])


@dataclass(frozen=True, slots=True)
class _Candidates:
    """K boxes of a batch, in pixels of their resized images, ordered by image."""

    boxes_xyxy: np.ndarray  # (K, 4) float32
    scores: np.ndarray  # (K,) float32
    classes: np.ndarray  # (K,) int64 from 0
    labels: np.ndarray  # (K,) int64, the network's outputs
    owners: np.ndarray  # (K,) int64, position of the image in the batch

    def suppressed(self, images: int, thresholds: Thresholds) -> list[np.ndarray]:
        """Indices of each image's detections after class-aware NMS, best first, no more than wanted."""
        sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        alive = np.flatnonzero((sides >= _MIN_BOX_SIDE).all(axis=1))
        bounds = np.searchsorted(self.owners[alive], np.arange(images + 1))
        return [self._best(alive[bounds[i] : bounds[i + 1]], thresholds) for i in range(images)]

    def _best(self, members: np.ndarray, thresholds: Thresholds) -> np.ndarray:
        # By the network's labels, not by class: torchvision shifts boxes by them, and the shift rounds.
        kept = kernels.batched_nms(self.boxes_xyxy[members], self.scores[members], self.labels[members], thresholds.iou)
        return members[kept[: thresholds.max_detections]]


class _KeptClassMasks(nn.Module):
    """torchvision's `MaskRCNNPredictor` for one class per box, instead of all classes and a selection afterwards.

    Its transposed convolution has kernel and stride 2, so each output pixel comes from one input pixel: it is a
    1x1 convolution to four sub-pixels, put in place after the sum over channels.
    """

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        upsample, logits = cast(nn.ConvTranspose2d, predictor.conv5_mask), cast(nn.Conv2d, predictor.mask_fcn_logits)
        channels_in, channels, _, _ = upsample.weight.shape
        assert upsample.bias is not None and logits.bias is not None, "torchvision's mask predictor has biases"
        by_subpixel = upsample.weight.detach().permute(2, 3, 1, 0).reshape(4 * channels, channels_in, 1, 1)
        self.upsample_weight = by_subpixel.contiguous()
        self.upsample_bias = upsample.bias.detach().repeat(4)
        self.class_weight = logits.weight.detach().flatten(1)  # (L, channels)
        self.class_bias = logits.bias.detach()

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Probabilities (N, 2m, 2m) of `labels` (N,) from the mask head's features (N, channels, m, m)."""
        n, _, m, _ = features.shape
        hidden = nn.functional.conv2d(features, self.upsample_weight, self.upsample_bias).relu_()
        hidden = hidden.permute(0, 2, 3, 1).reshape(n, 4 * m * m, -1)  # no copy where channels are last
        weight, bias = self.class_weight[labels], self.class_bias[labels]  # (N, channels), (N,)
        logits = torch.baddbmm(bias[:, None, None], hidden, weight[:, :, None])  # (N, 4 * m * m, 1)
        placed = logits.view(n, m, m, 2, 2).permute(0, 1, 3, 2, 4)
        return placed.reshape(n, 2 * m, 2 * m).sigmoid_()


def _in_image(
    candidates: _Candidates,
    indices: np.ndarray,
    grids: np.ndarray,
    resized_hw: tuple[int, int],
    image_hw: tuple[int, int],
) -> RawDetections:
    """The detections of one image, with boxes scaled to its original size in float32 as torchvision does."""
    y, x = (np.float32(new) / np.float32(old) for new, old in zip(image_hw, resized_hw, strict=True))
    boxes = candidates.boxes_xyxy[indices] * np.array([x, y, x, y], np.float32)
    return RawDetections(boxes, candidates.scores[indices], candidates.classes[indices], grids, image_hw)


def _describe(image: Prepared) -> str:
    height, width = image.image_hw
    return f"an image of {height} x {width} pixels (height x width)"
