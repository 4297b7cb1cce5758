"""Side by side: rayseg's kernels and the best peers that are installed, on one core.

    uv run python tests/bench/kernels.py                   the table
    uv run python tests/bench/kernels.py --only nms        rows whose name holds "nms"
    uv run python tests/bench/kernels.py --check 10000     every kernel against its reference on that many seeded cases

Times are medians of CPU time of this process, pinned to one core: other load on the machine still costs caches and clock,
so ratios, taken in turn within one run, say more than milliseconds. Scenes are seeded and synthetic: boxes with COCO-like
sizes (log-normal, median 12 % of the image's side), grids of wobbly blobs with soft edges.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CORE = 0


class Row(NamedTuple):
    """One line of the table: the work, our milliseconds, the best peer's, the ratio, what was wanted."""

    work: str
    ours_ms: float
    peer: str
    peer_ms: float
    wanted: str


def median_ms(call: Callable[[], object], repeats: int = 15, budget_s: float = 4.0) -> float:
    """Median CPU milliseconds of a call, after one to warm up, over `repeats` calls or as many as fit the budget."""
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < budget_s):
        begin = time.process_time_ns()
        call()
        times.append((time.process_time_ns() - begin) / 1e9)
    return float(np.median(times)) * 1e3


def detections(count: int, side: int = 28, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grids (N, M, M) float32 and boxes (N, 4) as fractions of the image."""
    rng = np.random.default_rng(seed)
    ys, xs = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    grids = np.empty((count, side, side), np.float32)
    for i in range(count):
        angle = np.arctan2(ys - rng.normal() * 0.1, xs - rng.normal() * 0.1)
        wobble = sum(rng.normal() * 0.18 / k * np.cos(k * angle + rng.random() * 6.3) for k in range(1, 7))
        grids[i] = 1 / (1 + np.exp(-(0.75 + wobble - np.hypot(xs, ys)) * 10))
    size = np.clip(np.exp(rng.normal(np.log(0.12), 0.9, count)), 0.02, 1)
    aspect = np.exp(rng.normal(0, 0.4, count))
    wh = np.clip(np.stack([size * aspect, size / aspect], 1), 0.01, 1)
    centre = rng.random((count, 2)) * (1 - wh) + wh / 2
    return grids, np.concatenate([centre - wh / 2, centre + wh / 2], 1)


def in_pixels(boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    return (boxes * np.array([image_hw[1], image_hw[0]] * 2)).astype(np.float32)


def candidates(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and classes (80) as a detector gives them before suppression: about 8 boxes to an object."""
    rng = np.random.default_rng(seed)
    objects = max(count // 8, 1)
    centres, sizes = rng.random((objects, 2)) * [1333, 800], np.exp(rng.normal(np.log(90), 0.8, (objects, 2)))
    owner = rng.integers(0, objects, count)
    c = centres[owner] + rng.normal(size=(count, 2)) * sizes[owner] * 0.1
    s = sizes[owner] * np.exp(rng.normal(size=(count, 2)) * 0.12)
    boxes = np.concatenate([c - s / 2, c + s / 2], 1).clip(0, [1333, 800, 1333, 800])
    return boxes.astype(np.float32), rng.random(count).astype(np.float32), rng.integers(0, 80, objects)[owner]


def pasted(boxes: np.ndarray, grids: np.ndarray, image_hw: tuple[int, int]) -> list[bytes]:
    """The reference: torchvision's paste, >= 0.5, pycocotools' encode."""
    import pycocotools.mask as coco
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks = paste_masks_in_image(torch.from_numpy(grids)[:, None], torch.from_numpy(boxes), image_hw)[:, 0] >= 0.5
    return [rle["counts"] for rle in coco.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().view(np.uint8)))]


def paste_rows() -> Iterator[Row]:
    from rayseg.kernels import paste_rle

    grids, boxes = detections(100)
    ours: dict[tuple[int, int], float] = {}
    for image_hw, wanted in (((480, 640), "150x"), ((800, 1333), "500x"), ((2160, 3840), "5,000x")):
        placed = in_pixels(boxes, image_hw)
        ours[image_hw] = median_ms(lambda placed=placed, hw=image_hw: paste_rle(grids, placed, hw), 200)
        peer = sum(
            median_ms(lambda b=placed[k : k + 10], g=grids[k : k + 10], hw=image_hw: pasted(b, g, hw), 3, 0.0)
            for k in range(0, 100, 10)
        )
        name = f"grid to RLE, 100 detections, {image_hw[0]}x{image_hw[1]}"
        yield Row(name, ours[image_hw], "torchvision paste + pycocotools", peer, f"{wanted}, < 1.5 ms")
    yield Row("  its time at 2160x3840 over 480x640", ours[2160, 3840], "itself", ours[480, 640], "under 1/2.5 = 0.40x")


def scene_masks(image_hw: tuple[int, int], count: int = 100) -> np.ndarray:
    """Dense masks (N, H, W) uint8."""
    from rayseg.kernels import paste_rle

    grids, boxes = detections(count)
    rles = paste_rle(grids, in_pixels(boxes, image_hw), image_hw)
    return np.stack([rles.decode(i) for i in range(count)]).copy()


def best(peers: dict[str, Callable[[], object]], repeats: int = 7) -> tuple[str, float]:
    """Name and milliseconds of the fastest peer."""
    times = {name: median_ms(call, repeats) for name, call in peers.items()}
    name = min(times, key=lambda key: times[key])
    return name, times[name]


def encode_rows() -> Iterator[Row]:
    import faster_coco_eval.core.mask as faster
    import hotcoco.mask as hot
    import pycocotools.mask as coco

    from rayseg.kernels import encode, encode_id_map

    masks = np.ascontiguousarray(scene_masks((800, 1333)))
    turned = np.asfortranarray(masks.transpose(1, 2, 0))
    peers = {
        "pycocotools": lambda: coco.encode(turned),
        "hotcoco": lambda: hot.encode(turned),
        "faster-coco-eval": lambda: faster.encode(turned),
    }
    name, peer = best(peers)
    yield Row("dense (100, 800, 1333) to RLE, rows", median_ms(lambda: encode(masks)), name, peer, "2x")
    columns = turned.transpose(2, 0, 1)
    yield Row("  the same, given column by column", median_ms(lambda: encode(columns)), name, peer, "2x")
    words = masks.reshape(-1).view(np.uint64)
    floor = median_ms(lambda: np.bitwise_or.reduce(words))
    yield Row(
        "  the floor: reading those bytes once",
        median_ms(lambda: encode(masks)),
        "numpy, 8 bytes at a time",
        floor,
        "-",
    )

    ids = np.zeros((1024, 2048), np.int32)
    for i, mask in enumerate(scene_masks((1024, 2048), 60)):
        ids[mask == 1] = 1000 + i
    present = [int(v) for v in np.unique(ids) if v]

    def one_by_one() -> list[object]:
        return [coco.encode(np.asfortranarray((ids == v).view(np.uint8))) for v in present]

    name = f"id map 1024x2048, {len(present)} instances"
    yield Row(name, median_ms(lambda: encode_id_map(ids)), "compare + pycocotools", median_ms(one_by_one, 3), "20x")


def nms_rows() -> Iterator[Row]:
    import torch
    from torchvision import ops

    from rayseg.kernels import batched_nms, nms

    for count, wanted in ((1000, "4x"), (5000, "5x"), (20000, "8x")):
        boxes, scores, classes = candidates(count)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes)
        peer = median_ms(lambda t=tensors: ops.batched_nms(*t, 0.5))
        ours = median_ms(lambda b=boxes, s=scores, c=classes: batched_nms(b, s, c, 0.5), 50)
        assert set(ops.batched_nms(*tensors, 0.5).tolist()) == set(batched_nms(boxes, scores, classes, 0.5).tolist())
        yield Row(f"class-aware nms, {count} boxes, 80 classes", ours, "torchvision batched_nms", peer, wanted)
    boxes, scores, _ = candidates(5000)
    peer = median_ms(lambda: ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5))
    assert np.array_equal(
        ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).numpy(), nms(boxes, scores, 0.5)
    )
    yield Row(
        "class-agnostic nms, 5000 boxes", median_ms(lambda: nms(boxes, scores, 0.5), 50), "torchvision nms", peer, "3x"
    )


def crop_rows() -> Iterator[Row]:
    import torch
    from torchvision import ops

    from rayseg.kernels import roi_align

    features = np.random.default_rng(0).normal(size=(1, 100, 168, 256)).astype(np.float32)
    planes = torch.from_numpy(features).permute(0, 3, 1, 2).contiguous()
    _, boxes = detections(1000, 4)
    placed, owners = in_pixels(boxes, (800, 1333)), np.zeros(len(boxes), np.int64)
    rois = torch.from_numpy(np.concatenate([np.zeros((len(boxes), 1), np.float32), placed], 1))
    for side, count in ((7, 1000), (14, 100)):
        some = placed[:count], owners[:count]
        ours = median_ms(lambda some=some, side=side: roi_align(features, *some, 0.125, side))
        peer = median_ms(lambda count=count, side=side: ops.roi_align(planes, rois[:count], side, 0.125, 2))
        yield Row(f"RoIAlign, {count} boxes to {side}x{side}, 256 channels", ours, "torchvision roi_align", peer, "-")


def greedy(ious: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Suppression on a full IoU matrix, as the peers need it."""
    kept: list[int] = []
    gone = np.zeros(len(scores), bool)
    for i in np.argsort(-scores, kind="stable"):
        if not gone[i]:
            kept.append(int(i))
            gone |= ious[i] > threshold
    return kept


def mask_rows() -> Iterator[Row]:
    import cv2
    import pycocotools.mask as coco

    from rayseg.kernels import mask_nms, paste_rle, to_polygons

    image_hw = (800, 1333)
    grids, _ = detections(500)
    rng = np.random.default_rng(1)
    _, objects = detections(100, 4, 2)
    boxes = in_pixels(objects[rng.integers(0, 100, 500)] + rng.normal(size=(500, 4)) * 0.005, image_hw)
    rles, scores = paste_rle(grids, boxes, image_hw), rng.random(500).astype(np.float32)
    dicts: list[Any] = rles.to_coco()

    def decoded() -> list[int]:
        flat = coco.decode(dicts).reshape(-1, 500).astype(np.float32)
        overlaps, areas = flat.T @ flat, flat.sum(0)
        return greedy(overlaps / np.maximum(areas[:, None] + areas - overlaps, 1), scores, 0.5)

    def by_iou() -> list[int]:
        return greedy(coco.iou(dicts, dicts, [0] * 500), scores, 0.5)

    assert by_iou() == mask_nms(rles, scores, 0.5).tolist()
    name, peer = best({"decode + numpy IoU": decoded, "pycocotools.iou": by_iou}, 3)
    yield Row("mask nms, 500 masks at 800x1333", median_ms(lambda: mask_nms(rles, scores, 0.5)), name, peer, "3x")

    masks = scene_masks(image_hw)
    grids, boxes = detections(100)
    rles = paste_rle(grids, in_pixels(boxes, image_hw), image_hw)

    def contours() -> list[object]:
        return [cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE) for mask in masks]

    peer = median_ms(contours, 5)
    yield Row(
        "RLE to exact polygons, 100 masks at 800x1333",
        median_ms(lambda: to_polygons(rles)),
        "cv2.findContours",
        peer,
        "2x",
    )


def check_all(count: int) -> None:
    """Compare every kernel with its reference on that many seeded cases, and print how many were."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
    from kernel_references import CHECKS  # pyright: ignore[reportMissingImports]

    for name, check in CHECKS.items():
        begin = time.perf_counter()
        compared = check(count, 1)
        print(f"{name:12} {compared:7} compared, no mismatch, {time.perf_counter() - begin:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("paste", "encode", "nms", "mask", "crop"), help="some of the rows")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare N seeded cases per kernel instead")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE})
    import torch

    torch.set_num_threads(1)
    if arguments.check:
        check_all(arguments.check)
        return
    print(f"{'work':46} {'ours ms':>9} {'peer ms':>10} {'ratio':>9}  {'wanted':18} best peer")
    for rows in (paste_rows, encode_rows, nms_rows, mask_rows, crop_rows):
        if arguments.only and rows.__name__ != f"{arguments.only}_rows":
            continue
        for row in rows():
            ratio = row.peer_ms / row.ours_ms
            print(
                f"{row.work:46} {row.ours_ms:9.3f} {row.peer_ms:10.2f} {ratio:8.2f}x  {row.wanted:18} {row.peer}",
                flush=True,
            )


if __name__ == "__main__":
    main()
