"""Slow, obvious references for every kernel, and seeded comparisons with them.

Each `check_*` compares about `count` random cases, raises AssertionError at the first difference, and returns how many it
compared. Tests run them with small counts, `tests/bench/kernels.py --check N` with large ones.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pycocotools.mask as coco
import torch
import torch.nn.functional as F
from torchvision import ops
from torchvision.models.detection.roi_heads import paste_masks_in_image

from rayseg import kernels

Rng = np.random.Generator


def coco_rles(masks: np.ndarray) -> list[dict]:
    """pycocotools' RLEs of masks (N, H, W)."""
    return coco.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))) if len(masks) else []


def random_grids(rng: Rng, count: int, rows: int, columns: int) -> np.ndarray:
    """Grids of one of five kinds: noise, few levels (many exact ties with the threshold), blobs, flat, signed logits."""
    kind = rng.integers(5)
    grids = rng.random((count, rows, columns), dtype=np.float32)
    if kind == 1:
        grids = np.round(grids * 4) / 4
    elif kind == 2:
        y, x = np.mgrid[:rows, :columns] / max(rows, columns) - 0.5
        scale = rng.uniform(0.5, 2, (count, 2, 1, 1))
        grids = 1 / (1 + np.exp(20 * ((x * scale[:, 0]) ** 2 + (y * scale[:, 1]) ** 2 - 0.15)))
    elif kind == 3:
        grids = np.full((count, rows, columns), rng.choice([0, 0.25, 0.5, 1]))
    elif kind == 4:
        grids = grids * 8 - 4
    return grids.astype(np.float32)


def random_boxes(rng: Rng, count: int, height: int, width: int) -> np.ndarray:
    """Boxes (N, 4) float32 inside, across or outside the image, some of no size or on whole pixels."""
    boxes = rng.random((count, 4)) * 1.4 - 0.2
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    if rng.random() < 0.7:
        boxes = boxes.clip(0, 1)
    if rng.random() < 0.1:
        boxes[:, 2:] = boxes[:, :2]
    boxes = boxes * [width, height, width, height]
    return (np.round(boxes) if rng.random() < 0.2 else boxes).astype(np.float32)


def pasted(grid: np.ndarray, box: np.ndarray, image_hw: tuple[int, int], threshold: float) -> np.ndarray:
    """torchvision's mask (H, W) of one grid; empty where torchvision refuses the box, which lies wholly outside then."""
    try:
        values = paste_masks_in_image(torch.from_numpy(grid)[None, None], torch.from_numpy(box)[None], image_hw)
    except RuntimeError:
        return np.zeros(image_hw, bool)
    return (values[0, 0] >= threshold).numpy()


def assert_same(rles: kernels.Rles, masks: np.ndarray) -> None:
    """The record holds exactly pycocotools' RLEs of these masks, and says their areas and boxes."""
    expected = coco_rles(masks)
    assert rles.to_coco() == expected
    if expected:
        assert np.array_equal(rles.areas(), coco.area(expected))
        assert np.array_equal(rles.boxes_xywh(), coco.toBbox(expected))
        assert rles.check() == [None] * len(expected)


def check_paste(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(0, count, 5):
        height, width = (int(v) for v in rng.integers(1, rng.choice([30, 200, 300]), 2))
        side = int(rng.choice([1, 2, 3, 7, 14, 28, 70]))
        grids, boxes = random_grids(rng, 5, side, side), random_boxes(rng, 5, height, width)
        threshold = float(rng.choice([0.5, 0.25, 0.75, 0.3]))
        masks = np.stack([pasted(g, b, (height, width), threshold) for g, b in zip(grids, boxes, strict=True)])
        assert_same(kernels.paste_rle(grids, boxes, (height, width), threshold), masks)
    return -(-count // 5) * 5


def check_resize(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(0, count, 3):
        height, width, rows, columns = (int(v) for v in rng.integers(1, rng.choice([40, 300]), 4))
        grids = random_grids(rng, 3, rows, columns)
        threshold = float(rng.choice([0.0, 0.5]))
        x1, y1 = int(rng.integers(-20, width)), int(rng.integers(-20, height))
        x2, y2 = (x1 + int(rng.integers(1, width + 20)), y1 + int(rng.integers(1, height + 20)))
        if rng.random() < 0.5:
            x1, y1, x2, y2 = 0, 0, width, height
        crops = random_boxes(rng, 3, height, width)
        canvas = np.zeros((3, height, width), bool)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if right > left and bottom > top:
            for k in range(3):
                tensor = torch.from_numpy(grids[k])[None, None]
                whole = F.interpolate(tensor, size=(y2 - y1, x2 - x1), mode="bilinear", align_corners=False)[0, 0]
                canvas[k, top:bottom, left:right] = (whole >= threshold)[top - y1 : bottom - y1, left - x1 : right - x1]
        regions = np.tile([x1, y1, x2, y2], (3, 1))
        assert_same(kernels.resize_rle(grids, (height, width), threshold, regions_xyxy=regions), canvas)
        x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
        inside = np.stack([(x >= c[0]) & (x < c[2]) & (y >= c[1]) & (y < c[3]) for c in crops.astype(np.float64)])
        cropped = kernels.resize_rle(grids, (height, width), threshold, regions_xyxy=regions, crops_xyxy=crops)
        assert_same(cropped, canvas & inside)
    return -(-count // 3) * 3


def random_masks(rng: Rng, count: int, side: int = 60) -> np.ndarray:
    """Masks (N, H, W) bool of noise or blocks, from empty to full."""
    height, width = (int(v) for v in rng.integers(1, side, 2))
    masks = rng.random((count, height, width)) < rng.choice([0, 0.05, 0.5, 0.95, 1])
    return np.kron(masks, np.ones((1, 4, 3))) > 0 if rng.random() < 0.3 else masks


def check_encode(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(0, count, 4):
        masks = random_masks(rng, 4, int(rng.choice([6, 60, 200])))
        expected = coco_rles(masks)
        bright = (masks * rng.integers(1, 256, masks.shape)).astype(np.uint8)
        columns = np.asfortranarray(bright.transpose(1, 2, 0)).transpose(2, 0, 1)
        assert kernels.encode(masks).to_coco() == expected
        assert kernels.encode(bright).to_coco() == expected
        assert kernels.encode(columns).to_coco() == expected
    return -(-count // 4) * 4


def check_id_map(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        height, width = (int(v) for v in rng.integers(1, rng.choice([20, 150]), 2))
        ids = rng.integers(0, rng.integers(1, 9), (height, width)) * 37
        if rng.random() < 0.5:
            ids = np.kron(ids, np.ones((7, 5), np.int64))[:height, :width]
        background = int(rng.choice([0, 37, -1]))
        ids = ids.astype(
            rng.choice([np.int32, np.int64] if background < 0 else [np.uint8, np.uint16, np.int32, np.int64])
        )
        names, rles = kernels.encode_id_map(ids, background)
        expected = [int(v) for v in np.unique(ids) if v != background]
        assert names.tolist() == expected
        assert rles.to_coco() == coco_rles(np.stack([ids == v for v in expected]) if expected else np.empty((0, 1, 1)))
        compared += max(len(expected), 1)
    return compared


def random_candidates(rng: Rng, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and classes with every kind of tie."""
    corners = rng.random((count, 2)) * rng.choice([10, 100, 1000]) - rng.choice([0, 0, 20])
    boxes = np.concatenate([corners, corners + rng.random((count, 2)) * rng.choice([5, 100, 400])], 1)
    if rng.random() < 0.4:
        boxes = np.round(boxes)
    scores = rng.random(count)
    if rng.random() < 0.5:
        scores = np.round(scores * 20) / 20
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, rng.choice([1, 3, 80]), count)


def check_nms(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        size = int(rng.choice([1, 2, 10, 100, 900, 1100, 1500]))
        boxes, scores, classes = random_candidates(rng, size)
        if rng.random() < 0.1:
            boxes[0, rng.integers(4)] = np.nan
        threshold = float(rng.choice([0.5, 0.3, 0.7, 0.0, 0.25]))
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes)
        assert np.array_equal(kernels.nms(boxes, scores, threshold), ops.nms(*tensors[:2], threshold).numpy())
        kept, expected = (
            kernels.batched_nms(boxes, scores, classes, threshold),
            ops.batched_nms(*tensors, threshold).numpy(),
        )
        if size > 1000:  # there torchvision's own order of equal scores is left to chance
            assert np.array_equal(kept, np.sort(expected)[np.argsort(-scores[np.sort(expected)], kind="stable")])
        else:
            assert np.array_equal(kept, expected)
        compared += size
    return compared


def box_ious(boxes: np.ndarray) -> np.ndarray:
    """(N, N) float64, 0 where the union is empty."""
    b = boxes.astype(np.float64)
    wh = np.minimum(b[:, None, 2:], b[:, 2:]) - np.maximum(b[:, None, :2], b[:, :2])
    shared = wh.clip(0).prod(2)
    areas = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return np.divide(shared, areas[:, None] + areas - shared, out=np.zeros_like(shared), where=shared > 0)


def check_soft_nms(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        boxes, scores, classes = random_candidates(rng, int(rng.integers(0, 60)))
        gaussian, sigma, limit = bool(rng.integers(2)), float(rng.choice([0.3, 0.5])), float(rng.choice([0.001, 0.3]))
        ious, current = box_ious(boxes), scores.astype(np.float64)
        left, expected = list(np.argsort(-scores, kind="stable")), []
        while left and max(current[left]) > limit:
            best = max(left, key=lambda k: current[k])
            left.remove(best)
            expected.append((best, current[best]))
            for k in left:
                if classes[k] == classes[best]:
                    iou = ious[best, k]
                    current[k] *= np.exp(-(iou * iou) / sigma) if gaussian else (1 - iou if iou > 0.3 else 1)
        kept, lowered = kernels.soft_nms(
            boxes,
            scores,
            classes=classes,
            method="gaussian" if gaussian else "linear",
            sigma=sigma,
            score_threshold=limit,
        )
        assert sorted(kept.tolist()) == sorted(k for k, _ in expected)
        assert np.allclose(lowered, [dict(expected)[k] for k in kept.tolist()], rtol=1e-5, atol=0)
        assert (np.diff(lowered) <= 0).all()
        compared += max(len(boxes), 1)
    return compared


def check_matrix_nms(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        boxes, scores, classes = random_candidates(rng, int(rng.integers(1, 60)))
        ious, order = box_ious(boxes).clip(0, 0.99), np.argsort(-scores, kind="stable")
        same = classes[order][:, None] == classes[order]
        upper = np.triu(ious[np.ix_(order, order)] * same, 1)
        before = upper.max(0)[:, None]
        for method, decay in (
            ("gaussian", np.exp(-2.0 * upper**2) / np.exp(-2.0 * before**2)),
            ("linear", (1 - upper) / (1 - before)),
        ):
            earlier = np.triu(same, 1)
            expected = np.empty(len(scores))
            expected[order] = scores[order] * np.where(earlier, decay, 1).min(0).clip(max=1)
            assert np.allclose(
                kernels.matrix_nms(ious, scores, classes=classes, method=method), expected, rtol=1e-5, atol=0
            )
        compared += len(scores)
    return compared


def check_fast_nms(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        boxes, scores, classes = random_candidates(rng, int(rng.integers(1, 80)))
        order = np.argsort(-scores, kind="stable")
        overlaps = box_ious(boxes)[np.ix_(order, order)] * (classes[order][:, None] == classes[order])
        expected = order[np.triu(overlaps, 1).max(0) <= 0.4]
        assert np.array_equal(kernels.fast_nms(boxes, scores, classes, 0.4), expected)
        compared += len(scores)
    return compared


def check_mask_nms(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(0, count, 8):
        masks = random_masks(rng, 8, 40)
        masks[:, :, : int(rng.integers(0, masks.shape[2] + 1))] &= rng.random((8, 1, 1)) < 0.5
        rles, crowd = kernels.encode(masks), rng.random(8) < 0.4
        dicts = rles.to_coco()
        assert np.array_equal(
            kernels.mask_ious(rles, rles, crowd), coco.iou(dicts, dicts, crowd.astype(np.uint8).tolist())
        )
        scores, threshold = rng.random(8).round(1).astype(np.float32), float(rng.choice([0.1, 0.3, 0.5]))
        for measure in ("iou", "containment"):
            expected: list[int] = []
            for i in np.argsort(-scores, kind="stable").tolist():
                whole = [(masks[i] | masks[k]).sum() if measure == "iou" else masks[i].sum() for k in expected]
                shared = [(masks[i] & masks[k]).sum() for k in expected]
                if all(w == 0 or s / w <= threshold for s, w in zip(shared, whole, strict=True)):
                    expected.append(i)
            assert kernels.mask_nms(rles, scores, threshold, measure=measure).tolist() == expected
    return -(-count // 8) * 8


def parts_of(mask: np.ndarray, diagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's labels (H, W) of the connected parts, 0 outside, and their areas from label 0."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8 if diagonal else 4)
    return labels, np.bincount(labels.ravel(), minlength=count)


def ring_area(ring: np.ndarray) -> float:
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float(np.sum(np.roll(x, 1) * y - np.roll(y, 1) * x) / 2)


def check_polygons(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = random_masks(rng, 1, int(rng.choice([8, 40])))[0]
        rles = kernels.encode(mask[None])
        parts = kernels.to_polygons(rles)[0]
        assert kernels.from_polygons([parts], mask.shape) == rles
        assert len(parts) == len(parts_of(mask, False)[1]) - 1
        around = np.pad(~mask, 1, constant_values=True)
        assert sum(len(part) - 1 for part in parts) == len(parts_of(around, True)[1]) - 2
        assert sum(ring_area(ring) for part in parts for ring in part) == mask.sum()
        for part in parts:
            assert ring_area(part[0]) > 0 and all(ring_area(hole) < 0 for hole in part[1:])
    return count


def check_refinement(count: int, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = random_masks(rng, 1, int(rng.choice([8, 40])))[0]
        rles, area, diagonal = kernels.encode(mask[None]), int(rng.integers(0, 12)), bool(rng.integers(2))
        labels, areas = parts_of(mask, diagonal)
        stays = np.r_[False, areas[1:] >= area]
        assert np.array_equal(kernels.drop_islands(rles, area, diagonal=diagonal).decode(0) == 1, stays[labels])
        largest = kernels.keep_largest(rles, diagonal=diagonal).decode(0) == 1
        assert largest.sum() == max(areas[1:], default=0) and not (largest & ~mask).any()
        assert len(np.unique(labels[largest])) <= 1
        labels, areas = parts_of(~mask, not diagonal)
        holes = np.r_[False, areas[1:] < area]
        for rim in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            holes[rim] = False
        assert np.array_equal(kernels.fill_holes(rles, area, diagonal=diagonal).decode(0) == 1, mask | holes[labels])
        radius = int(rng.integers(0, 4))
        box = (2 * radius + 1, 2 * radius + 1)
        votes = cv2.boxFilter(mask.astype(np.float64), -1, box, normalize=False, borderType=cv2.BORDER_CONSTANT).round()
        voters = cv2.boxFilter(np.ones(mask.shape), -1, box, normalize=False, borderType=cv2.BORDER_CONSTANT).round()
        expected = np.where(2 * votes == voters, mask, 2 * votes > voters)
        assert np.array_equal(kernels.smooth(rles, radius).decode(0) == 1, expected)
    return count


def check_roi_align(count: int, seed: int = 0) -> int:
    """Boxes over every edge, turned around, of no size; maps of one pixel; fixed and adaptive numbers of samples."""
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < count:
        images, height, width, channels = (int(rng.integers(1, high)) for high in (4, 30, 30, 40))
        scale, side, ratio = float(rng.choice([1, 0.5, 0.25, 0.03])), int(rng.integers(1, 15)), int(rng.integers(0, 4))
        features = rng.normal(size=(images, height, width, channels)).astype(np.float32)
        boxes = random_boxes(rng, int(rng.integers(1, 30)), height, width) / np.float32(scale)
        if rng.random() < 0.2:
            boxes = boxes[:, ::-1].copy()
        owners = rng.integers(0, images, len(boxes))
        rois = torch.from_numpy(np.concatenate([owners[:, None].astype(np.float32), boxes], 1))
        planes = torch.from_numpy(features).permute(0, 3, 1, 2).contiguous()
        expected = ops.roi_align(planes, rois, side, scale, ratio).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(kernels.roi_align(features, boxes, owners, scale, side, ratio), expected)
        compared += len(boxes)
    return compared


CHECKS: dict[str, Callable[[int, int], int]] = {
    name.removeprefix("check_"): value for name, value in list(globals().items()) if name.startswith("check_")
}
