"""Panoptic quality: hotcoco's (panopticapi's protocol) on disjoint segments, by hand, and refused where it is not defined."""

from __future__ import annotations

import json

import evaluation_scenes as scenes
import numpy as np
import pytest
from hotcoco import COCO
from hotcoco.panoptic import PanopticEval
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rayseg import kernels
from rayseg.evaluation import evaluate
from rayseg.formats.registry import read
from rayseg.kernels import Rles
from rayseg.kernels.disjoint import made_disjoint


def rle(mask):
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def annotation(number, image_id, category_id, mask):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle(mask),
        "area": int(mask.sum()),
        "bbox": [0, 0, 1, 1],
        "iscrowd": 0,
    }


def voronoi(rng, points, hw, border=0.0):
    """A map of ids 1 to N, 0 between the cells."""
    ys, xs = np.mgrid[: hw[0], : hw[1]]
    distances = np.sort(np.hypot(ys[..., None] - points[:, 0], xs[..., None] - points[:, 1]), axis=-1)
    nearest = np.argmin(np.hypot(ys[..., None] - points[:, 0], xs[..., None] - points[:, 1]), axis=-1) + 1
    return np.where(distances[..., 1] - distances[..., 0] < border, 0, nearest)


def panoptic_scene(seed, *, crowds=True):
    """Truths and predictions that tile images, apart from gaps; scores above the threshold.

    At most one crowd of a class in an image, as COCO has it: of several panopticapi looks at the last alone.
    """
    rng = np.random.default_rng(seed)
    truth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": str(k), "isthing": 1} for k in (1, 2, 3)],
    }
    results = []
    for image_id in range(1, 7):
        hw = int(rng.integers(30, 60)), int(rng.integers(30, 60))
        truth["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": hw[0], "width": hw[1]})
        points = rng.random((rng.integers(2, 8), 2)) * hw
        cells = voronoi(rng, points, hw, 2.0)
        labels = rng.integers(1, 4, len(points))
        for k in range(len(points)):
            mask = cells == k + 1
            if mask.any() and rng.random() < 0.8:
                earlier = {
                    one["category_id"] for one in truth["annotations"] if one["iscrowd"] and one["image_id"] == image_id
                }
                crowd = crowds and rng.random() < 0.15 and int(labels[k]) not in earlier
                number = len(truth["annotations"]) + 1
                one = annotation(number, image_id, int(labels[k]), mask)
                truth["annotations"].append({**one, "iscrowd": int(crowd)})
        found = voronoi(rng, points + rng.normal(0, 2.5, points.shape), hw, 1.0)
        for k in range(len(points)):
            if (found == k + 1).any():
                label = int(labels[k]) if rng.random() < 0.8 else int(rng.integers(1, 4))
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": label,
                        "segmentation": rle(found == k + 1),
                        "score": float(0.5 + rng.random() / 2),
                    }
                )
    return truth, results


def run(tmp_path, truth, results):
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return evaluate(read(str(tmp_path / "truth.json"), "coco"), results, draws=0, examples_each=0, boundary=False)


@pytest.mark.parametrize("seed", range(12))
def test_disjoint_segments_give_hotcocos_numbers(tmp_path, seed):
    truth, results = panoptic_scene(seed)
    metrics = run(tmp_path, truth, results)
    evaluation = PanopticEval(COCO(truth), COCO(truth).load_res(results))
    evaluation.evaluate()
    expected = evaluation.results()
    assert metrics.panoptic.reason is None
    for name in ("pq", "sq", "rq"):
        assert getattr(metrics.panoptic, name) == pytest.approx(expected["All"][name], abs=1e-12)
        for one in metrics.classes:
            theirs = expected["per_class"][int(one.name)][name]
            assert one.panoptic[name] == (None if theirs == -1 else pytest.approx(theirs, abs=1e-12))


def pixel_by_pixel(truth, results):
    """PQ, SQ and RQ by class: Kirillov et al., 2019, section 4, with the rules for void and crowds of 4.2, on id maps."""
    kinds = {one["id"]: {"iou": [], "false": 0, "missed": 0} for one in truth["categories"]}
    for image in truth["images"]:
        truths, found = (
            [one for one in listed if one["image_id"] == image["id"]] for listed in (truth["annotations"], results)
        )
        maps = []
        for listed in (truths, found):
            ids = np.zeros((image["height"], image["width"]), int)  # 0 is void
            for number, one in enumerate(listed, start=1):
                ids[coco_mask.decode(one["segmentation"]) > 0] = number
            maps.append(ids)
        hit_truths = set()
        for number, one in enumerate(found, start=1):
            inside = maps[1] == number
            void, area, passed_over = ((maps[0] == 0) & inside).sum(), inside.sum(), 0
            hit = False
            for k, other in enumerate(truths, start=1):
                region = maps[0] == k
                if other["category_id"] != one["category_id"]:
                    continue
                if other["iscrowd"]:
                    passed_over += (region & inside).sum()
                    continue
                iou = (region & inside).sum() / ((region | inside).sum() - void)
                if iou > 0.5:
                    kinds[one["category_id"]]["iou"].append(iou)
                    hit_truths.add(k)
                    hit = True
            if not hit and (void + passed_over) / area <= 0.5:
                kinds[one["category_id"]]["false"] += 1
        for k, other in enumerate(truths, start=1):
            if k not in hit_truths and not other["iscrowd"]:
                kinds[other["category_id"]]["missed"] += 1
    values = {}
    for label, one in kinds.items():
        hits, tried = len(one["iou"]), len(one["iou"]) + one["false"] / 2 + one["missed"] / 2
        if tried:
            sq = sum(one["iou"]) / hits if hits else 0.0
            values[str(label)] = {"pq": sum(one["iou"]) / tried, "sq": sq, "rq": hits / tried}
    return values


@given(st.integers(100, 10**9))
@settings(max_examples=20, deadline=None)
def test_panoptic_quality_pixel_by_pixel(tmp_path_factory, seed):
    truth, results = panoptic_scene(seed)
    metrics = run(tmp_path_factory.mktemp("panoptic"), truth, results)
    expected = pixel_by_pixel(truth, results)
    for one in metrics.classes:
        values = expected.get(one.name, {"pq": None, "sq": None, "rq": None})
        assert one.panoptic == (values if values["pq"] is None else pytest.approx(values, abs=1e-12))
    for name in ("pq", "sq", "rq"):
        known = [values[name] for values in expected.values()]
        mean = pytest.approx(np.mean(known), abs=1e-12) if known else None
        assert getattr(metrics.panoptic, name) == mean


def test_what_lies_on_no_truth_is_not_counted(tmp_path):
    mask, other = np.zeros((20, 20)), np.zeros((20, 20))
    mask[:10], other[15:18] = 1, 1
    truth, _ = panoptic_scene(0)
    truth["images"] = [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 20}]
    truth["annotations"] = [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "segmentation": rle(mask),
            "area": 200,
            "bbox": [0, 0, 20, 10],
            "iscrowd": 0,
        }
    ]
    found = [{"image_id": 1, "category_id": 1, "segmentation": rle(one), "score": 0.9} for one in (mask, other)]
    metrics = run(tmp_path, truth, found)
    assert metrics.panoptic.pq == 1.0 and metrics.panoptic.labelled == 0.5


def test_overlapping_predictions_are_made_disjoint_best_first(tmp_path):
    left, wide = np.zeros((20, 20)), np.zeros((20, 20))
    left[:, :8], wide[:, :16] = 1, 1
    truth, _ = panoptic_scene(0)
    truth["images"] = [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 20}]
    truth["annotations"] = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "segmentation": rle(one),
            "area": 1,
            "bbox": [0, 0, 1, 1],
            "iscrowd": 0,
        }
        for k, one in ((1, left), (2, 1 - left))
    ]
    found = [
        {"image_id": 1, "category_id": 1, "segmentation": rle(one), "score": score}
        for one, score in ((left, 0.9), (wide, 0.8), (wide, 0.1))
    ]
    metrics = run(tmp_path, truth, found)
    # the wide one keeps its columns 8 to 15, which are 8 of the second truth's 12
    assert metrics.panoptic.pq == pytest.approx((1 + 8 / 12) / 2) and metrics.panoptic.rq == 1


def test_overlapping_truths_have_no_panoptic_quality(tmp_path):
    truth, results = scenes.scene(1, images=20)
    panoptic = run(tmp_path, truth, results).panoptic
    assert panoptic.pq is panoptic.labelled is None and "overlap" in panoptic.reason


@pytest.mark.parametrize("seed", range(20))
def test_disjoint_masks_equal_dense_ones(seed):
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, 13, 17), bool)
    for mask in masks:
        for _ in range(rng.integers(0, 3)):
            y, x = rng.integers(0, 12), rng.integers(0, 16)
            mask[y : y + rng.integers(1, 10), x : x + rng.integers(1, 12)] = True
    share = float(rng.choice([0.0, 0.5, 1.0]))
    left, kept = made_disjoint(kernels.encode(masks), share)
    taken, expected = np.zeros((13, 17), bool), []
    for k, mask in enumerate(masks):
        rest = mask & ~taken
        if mask.any() and rest.sum() >= share * mask.sum():
            expected.append((k, rest))
            taken |= rest
    assert kept.tolist() == [k for k, _ in expected]
    assert left == kernels.encode(np.array([one for _, one in expected])) if expected else left == Rles.empty((13, 17))
