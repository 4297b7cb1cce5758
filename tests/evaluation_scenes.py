"""Random ground truths and detections of them, as COCO dicts, small and full of hard cases; pycocotools' numbers for them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Rng = np.random.Generator


def scene(
    seed: int, images: int = 8, classes: int = 3, *, gaps: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO dict and results: polygons of several parts, crowds, masks in RLE, tied scores, empty images and classes."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, images + 1) * (7 if gaps else 1)).tolist()
    category_ids = rng.permutation(np.arange(1, classes + 1) * (3 if gaps else 1)).tolist()
    truth: dict[str, Any] = {
        "images": [
            {
                "id": key,
                "file_name": f"{key:04d}.jpg",
                "height": int(rng.integers(40, 200)),
                "width": int(rng.integers(40, 200)),
            }
            for key in ids
        ],
        "categories": [{"id": key, "name": f"class {key}"} for key in category_ids],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 6)):
            add_truth(rng, truth, image, int(rng.choice(category_ids[:-1] if classes > 1 else category_ids)))
        results += detections(rng, truth, image, category_ids)
    rng.shuffle(results)  # type: ignore[arg-type]
    return truth, results


def add_truth(rng: Rng, truth: dict[str, Any], image: dict[str, Any], category_id: int) -> None:
    """One annotation: polygons, or a crowd in RLE."""
    height, width = image["height"], image["width"]
    rings = [ring(rng, height, width) for _ in range(rng.choice([1, 1, 1, 2]))]
    rle = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
    crowd = bool(rng.random() < 0.12)
    dense = coco_mask.decode(rle)
    truth["annotations"].append(
        {
            "id": len(truth["annotations"]) + 1,
            "image_id": image["id"],
            "category_id": category_id,
            "iscrowd": int(crowd),
            "area": float(coco_mask.area(rle)) * float(rng.choice([1, 1, 0.97])),
            "bbox": [round(float(side), 2) for side in coco_mask.toBbox(rle)],
            "segmentation": {"size": [height, width], "counts": uncompressed(dense)} if crowd else rings,
        }
    )


def ring(rng: Rng, height: int, width: int) -> list[float]:
    """A star-shaped polygon of anything from 4 pixels to most of the image across."""
    radius = float(np.exp(rng.uniform(np.log(2), np.log(min(height, width) / 2))))
    corners = int(rng.integers(4, 10))
    angles = np.sort(rng.random(corners)) * 2 * np.pi
    radii = radius * rng.uniform(0.5, 1, corners)
    x = rng.uniform(radius / 2, width - radius / 2) + radii * np.cos(angles)
    y = rng.uniform(radius / 2, height - radius / 2) + radii * np.sin(angles)
    return np.round(np.stack([x.clip(0, width), y.clip(0, height)], 1), 2).ravel().tolist()


def uncompressed(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed counts of a mask (H, W)."""
    flat = mask.ravel(order="F")
    cuts = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *cuts, len(flat)]).tolist()


def detections(rng: Rng, truth: dict[str, Any], image: dict[str, Any], category_ids: list[int]) -> list[dict[str, Any]]:
    """Shifted, doubled, mislabelled copies of the image's truths, and masks on nothing; scores of few values, so with ties."""
    height, width = image["height"], image["width"]
    found = []
    for one in truth["annotations"]:
        if one["image_id"] != image["id"]:
            continue
        for _ in range(rng.integers(0, 3)):
            shift = rng.integers(-4, 5, 2) if rng.random() < 0.7 else np.zeros(2, int)
            rle = as_rle(one["segmentation"], height, width)
            moved = np.roll(coco_mask.decode(rle), shift, (0, 1))
            label = int(rng.choice(category_ids)) if rng.random() < 0.25 else one["category_id"]
            found.append(result(rng, image, label, moved))
    for _ in range(rng.integers(0, 3)):
        rle = coco_mask.frPyObjects([ring(rng, height, width)], height, width)[0]
        found.append(result(rng, image, int(rng.choice(category_ids)), coco_mask.decode(rle)))
    return found


def result(rng: Rng, image: dict[str, Any], category_id: int, mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    box = coco_mask.toBbox(rle) + rng.choice([0, 0.25, 1]) * np.array([-1, -1, 2, 2])
    return {
        "image_id": image["id"],
        "category_id": category_id,
        "score": float(rng.integers(1, 20)) / 20,
        "bbox": [float(side) for side in box],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


def as_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation
    pieces = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.merge(pieces) if isinstance(pieces, list) else pieces


def only(results: list[dict[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """Results with those of `bbox` and `segmentation` that are named."""
    dropped = {"bbox", "segmentation", "area"} - set(fields)
    return [{key: value for key, value in one.items() if key not in dropped} for one in results]


def untied(results: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The same with scores all different: who comes first of equal scores and different classes nobody has laid down."""
    places = np.random.default_rng(seed).permutation(len(results))
    return [{**one, "score": (int(place) + 1) / (len(results) + 2)} for one, place in zip(results, places, strict=True)]


def pycocotools_eval(
    truth: dict[str, Any], results: list[dict[str, Any]], measure: str, max_dets=(1, 10, 100), evaluator=COCOeval
) -> COCOeval:
    """pycocotools' evaluation, or that of a subclass of its `evaluator`, accumulated."""
    import copy

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        found = coco.loadRes(copy.deepcopy(results)) if results else empty(coco)
        evaluation = evaluator(coco, found, measure)
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def empty(coco: COCO) -> COCO:
    nothing = COCO()
    nothing.dataset = {**coco.dataset, "annotations": []}
    nothing.createIndex()
    return nothing


def twelve(evaluation: COCOeval) -> list[float | None]:
    """The twelve summaries, None for its -1; AP with the most detections whatever they are."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    parts = [precision[:, :, :, 0, -1], precision[0, :, :, 0, -1], precision[5, :, :, 0, -1]]
    parts += [precision[:, :, :, size, -1] for size in (1, 2, 3)]
    parts += [recall[:, :, 0, most] for most in range(3)] + [recall[:, :, size, -1] for size in (1, 2, 3)]
    return [float(part[part > -1].mean()) if (part > -1).any() else None for part in parts]


def reference(
    truth: dict[str, Any], results: list[dict[str, Any]], measure: str, max_dets=(1, 10, 100)
) -> list[float | None]:
    """pycocotools' twelve numbers."""
    return twelve(pycocotools_eval(truth, results, measure, max_dets))
