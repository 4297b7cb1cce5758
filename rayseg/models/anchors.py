"""Anchors fitted to the boxes of a data set: k-means under the distance 1 - IoU. Redmon and Farhadi, "YOLO9000", 2017.

A pyramid's anchors are every size of a level with every ratio, so the centres that are moved are sizes and ratios, not
single shapes: a size becomes the mean size of the boxes that one of its anchors fits best, a ratio the mean ratio. Torch-free.

N boxes, S sizes over all levels, R ratios (height by width), as torchvision has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayseg.errors import UsageError
from rayseg.models.architectures import MaskRCNNSettings
from rayseg.models.preprocess import Preprocess

MAX_BOXES = 20_000  # more are thinned out evenly: their shapes say no more
_ROUNDS = 60
_MIN_SIDE = 1e-3


@dataclass(frozen=True, slots=True)
class FittedAnchors:
    """Sizes per level and ratios as `MaskRCNNSettings` has them; the mean over the boxes of the best IoU with an anchor."""

    anchor_sizes: tuple[tuple[int, ...], ...]
    anchor_ratios: tuple[float, ...]
    iou_before: float
    iou_after: float
    boxes: int

    def fields(self) -> dict[str, Any]:
        """The fields of `MaskRCNNSettings` to replace."""
        return {"anchor_sizes": self.anchor_sizes, "anchor_ratios": self.anchor_ratios}

    def text(self) -> str:
        """One sentence for a log."""
        sizes = ", ".join("/".join(map(str, level)) for level in self.anchor_sizes)
        return (
            f"anchors fitted to {self.boxes:,} boxes: sizes {sizes}, ratios {', '.join(map(str, self.anchor_ratios))}; "
            f"mean best IoU {self.iou_before:.3f} before, {self.iou_after:.3f} after"
        )


def fit_anchors(boxes_wh: np.ndarray, settings: MaskRCNNSettings) -> FittedAnchors:
    """As many sizes and ratios as `settings` has, fitted to `boxes_wh` (N, 2), width and height as the network sees them.

    Never worse than those of `settings`; the same boxes give the same anchors. Sizes rise from level to level.
    Raises `UsageError` where no box has an area.
    """
    boxes = _usable(boxes_wh)
    given_sizes = np.array([size for level in settings.anchor_sizes for size in level], float)
    given_ratios = np.array(settings.anchor_ratios, float)
    before = mean_best_iou(boxes, anchor_shapes(given_sizes, given_ratios))
    best = (before, settings.anchor_sizes, settings.anchor_ratios)
    for sizes, ratios in ((given_sizes, given_ratios), _spread(boxes, len(given_sizes), len(given_ratios))):
        for moved in _moves(boxes, sizes, ratios):
            best = max(best, _rounded(boxes, *moved, levels=len(settings.anchor_sizes)), key=lambda found: found[0])
    return FittedAnchors(best[1], best[2], before, best[0], len(boxes))


def anchor_shapes(sizes: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(S * R, 2) width and height of every size with every ratio, size by size."""
    root = np.sqrt(ratios)
    shapes = np.stack([sizes[:, None] / root, sizes[:, None] * root], axis=-1)  # (S, R, 2)
    return shapes.reshape(-1, 2)


def shape_ious(boxes_wh: np.ndarray, shapes_wh: np.ndarray) -> np.ndarray:
    """(N, K) IoU of boxes (N, 2) and shapes (K, 2) that share their centre."""
    shared = np.minimum(boxes_wh[:, None], shapes_wh[None]).prod(axis=2)
    return shared / (boxes_wh.prod(axis=1)[:, None] + shapes_wh.prod(axis=1)[None] - shared)


def mean_best_iou(boxes_wh: np.ndarray, shapes_wh: np.ndarray) -> float:
    """Of each box the IoU with the shape that fits it best; their mean."""
    return float(shape_ious(boxes_wh, shapes_wh).max(axis=1).mean())


def network_sizes(images: Iterable[tuple[tuple[int, int], np.ndarray]], preprocess: Preprocess) -> np.ndarray:
    """(N, 2) width and height of all boxes as the network sees them, of pairs of (H, W) and boxes_xyxy (n, 4)."""
    sizes = [np.zeros((0, 2))]
    for image_hw, boxes_xyxy in images:
        resized_hw = preprocess.resized_hw(image_hw)
        scale = np.array([resized_hw[1] / image_hw[1], resized_hw[0] / image_hw[0]])
        boxes = np.asarray(boxes_xyxy, float).reshape(-1, 4)
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    return np.concatenate(sizes)


def _usable(boxes_wh: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes_wh, float).reshape(-1, 2)
    boxes = boxes[(boxes > _MIN_SIDE).all(axis=1) & np.isfinite(boxes).all(axis=1)]
    if not len(boxes):
        raise UsageError("anchors cannot be fitted: no box has an area")
    return boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_BOXES)).astype(int)]


def _spread(boxes: np.ndarray, sizes: int, ratios: int) -> tuple[np.ndarray, np.ndarray]:
    """A start at the middles of equal shares of the boxes' own sizes and ratios."""
    own_sizes, own_ratios = _sizes_and_ratios(boxes)
    return (
        np.quantile(own_sizes, (np.arange(sizes) + 0.5) / sizes),
        np.quantile(own_ratios, (np.arange(ratios) + 0.5) / ratios),
    )


def _sizes_and_ratios(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sqrt(boxes.prod(axis=1)), boxes[:, 1] / boxes[:, 0]


def _moves(boxes: np.ndarray, sizes: np.ndarray, ratios: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Sizes (S,) and ratios (R,) after each round, until none moves; one that no box chooses stays where it is."""
    own_sizes, own_ratios = _sizes_and_ratios(boxes)
    for _ in range(_ROUNDS):
        chosen = shape_ious(boxes, anchor_shapes(sizes, ratios)).argmax(axis=1)  # (N,)
        by_size, by_ratio = np.divmod(chosen, len(ratios))
        new_sizes = _means(own_sizes, by_size, sizes)
        new_ratios = np.exp(_means(np.log(own_ratios), by_ratio, np.log(ratios)))
        yield new_sizes, new_ratios
        if np.allclose(new_sizes, sizes) and np.allclose(new_ratios, ratios):
            return
        sizes, ratios = new_sizes, new_ratios


def _means(values: np.ndarray, groups: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The mean of the values (N,) of each group, or `otherwise` (G,) of a group without any."""
    counts = np.bincount(groups, minlength=len(otherwise))
    sums = np.bincount(groups, values, minlength=len(otherwise))
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)


def _rounded(
    boxes: np.ndarray, sizes: np.ndarray, ratios: np.ndarray, levels: int
) -> tuple[float, tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """The mean best IoU of what settings can hold: whole sizes, rising from level to level, and ratios of two digits."""
    whole = np.maximum(np.sort(np.round(sizes)).astype(int), 1)
    plain = tuple(max(round(float(ratio), 2), 0.01) for ratio in np.sort(ratios))
    by_level = tuple(tuple(int(size) for size in level) for level in whole.reshape(levels, -1))
    return mean_best_iou(boxes, anchor_shapes(whole.astype(float), np.array(plain))), by_level, plain
