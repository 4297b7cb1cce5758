"""The twelve numbers against pycocotools and against COCO's published ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rayseg import kernels
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import UsageError
from rayseg.evaluation.coco import METRIC_NAMES, box_ap, mask_ap, results_of
from rayseg.records import Instances


def reference(truth, results, iou_type):
    """pycocotools, given only what `iou_type` measures."""
    dropped = "bbox" if iou_type == "segm" else "segmentation"
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    found = coco.loadRes(
        [{key: value for key, value in one.items() if key not in (dropped, "area")} for one in results]
    )
    evaluation = COCOeval(coco, found, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(METRIC_NAMES, evaluation.stats, strict=True))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Drawn ground truth, and detections of it that are shifted, mislabelled, doubled or missing."""
    samples = list(generate(12, seed=1, size_px=128))
    truth = write_coco(tmp_path_factory.mktemp("scene"), samples)
    rng = np.random.default_rng(0)
    results = []
    for image_id, sample in enumerate(samples):
        chosen = np.flatnonzero(rng.random(len(sample.classes)) < 0.85).repeat(2)
        shifted = [np.roll(sample.masks[i], rng.integers(-3, 4, 2), (0, 1)) for i in chosen]
        masks = np.array(shifted, bool).reshape(-1, *sample.masks.shape[1:])
        rles = kernels.encode(masks)
        boxes = rles.boxes_xywh().astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        classes = np.where(rng.random(len(chosen)) < 0.15, rng.integers(0, 5, len(chosen)), sample.classes[chosen])
        scores = np.sort(rng.random(len(chosen), dtype=np.float32))[::-1].copy()
        found = Instances(boxes, scores, classes, rles, sample.masks.shape[1:])
        results += results_of(found, image_id, [1, 2, 3, 4, 5])
    return truth, results


def test_drawn_scene_equals_pycocotools(scene):
    truth, results = scene
    metrics = mask_ap(truth, results)
    assert metrics.segm == pytest.approx(reference(truth, results, "segm"), abs=1e-12)
    assert metrics.bbox == pytest.approx(reference(truth, results, "bbox"), abs=1e-12)
    assert 0.1 < metrics.segm["AP"] < 0.9 and metrics.segm["AP"] != metrics.bbox["AP"]
    assert box_ap(truth, results) == metrics.bbox


def test_class_ap_averages_to_ap_and_is_pycocotools_of_that_class(scene):
    truth, results = scene
    metrics = mask_ap(truth, results)
    assert np.mean(list(metrics.class_ap.values())) == pytest.approx(metrics.segm["AP"])
    of_star = [one for one in results if one["category_id"] == 3]
    stars = {**truth, "annotations": [one for one in truth["annotations"] if one["category_id"] == 3]}
    assert metrics.class_ap["star"] == pytest.approx(reference(stars, of_star, "segm")["AP"], abs=1e-12)


def test_perfect_detections_and_no_detections(scene):
    truth, _ = scene
    perfect = [{**one, "score": 0.5} for one in truth["annotations"]]
    metrics = mask_ap(truth, perfect)
    assert metrics.segm["AP"] == metrics.bbox["AP"] == pytest.approx(1)
    assert metrics.segm["APl"] == -1 or metrics.segm["APl"] == pytest.approx(1)
    assert mask_ap(truth, []).segm["AP"] == 0


def test_nothing_is_printed(scene, capfd):
    mask_ap(*scene)
    assert capfd.readouterr() == ("", "")


def test_ground_truth_from_a_file_and_bytes_counts(scene, tmp_path):
    truth, results = scene
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    as_bytes = [
        {**one, "segmentation": {**one["segmentation"], "counts": one["segmentation"]["counts"].encode()}}
        for one in results
    ]
    assert mask_ap(str(path), as_bytes) == mask_ap(truth, results)


def test_empty_masks_count_as_false(scene):
    truth, results = scene
    nothing = coco_mask.encode(np.zeros((128, 128), np.uint8, order="F"))
    empty = {"image_id": 0, "category_id": 1, "score": 0.99, "segmentation": nothing, "bbox": [0, 0, 0, 0]}
    assert mask_ap(truth, [*results, empty]).segm == pytest.approx(
        reference(truth, [*results, empty], "segm"), abs=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 999}, "image_id 999"),
        ({"category_id": 77}, "category_id 77"),
        ({"segmentation": None}, "expected segmentation"),
    ],
)
def test_results_that_cannot_match_are_named(scene, change, message):
    truth, results = scene
    broken = {key: value for key, value in {**results[3], **change}.items() if value is not None}
    with pytest.raises(UsageError, match=f"result 3.*{message}"):
        mask_ap(truth, [*results[:3], broken])


def test_what_is_no_ground_truth_is_named(tmp_path):
    with pytest.raises(UsageError, match="categories"):
        mask_ap({"images": [], "annotations": []}, [])
    with pytest.raises(UsageError, match=r"nowhere\.json"):
        mask_ap(tmp_path / "nowhere.json", [])


def published(lines, iou_type):
    """The twelve numbers that follow `type=...` in the COCO API's own listing."""
    start = lines.index(f"type={iou_type}")
    values = [line for line in lines[start:] if line.startswith(" Average")][:12]
    return dict(zip(METRIC_NAMES, (float(line.rpartition("=")[2]) for line in values), strict=True))


def test_published_numbers_of_coco(shared_data: Path):
    folder = shared_data / "coco_eval"
    truth = folder / "instances_val2014_100.json"
    lines = (folder / "val2014_fake_eval_res.txt").read_text().splitlines()
    segm = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    bbox = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    assert mask_ap(truth, segm).segm == pytest.approx(published(lines, "segm"), abs=5e-4)
    assert box_ap(truth, bbox) == pytest.approx(published(lines, "bbox"), abs=5e-4)
    assert mask_ap(truth, segm).bbox == pytest.approx(
        reference(json.loads(truth.read_text()), segm_boxes(segm), "bbox"), abs=1e-12
    )


def segm_boxes(results):
    """The boxes of the masks, as pycocotools takes them where results bring none."""
    return [{**one, "bbox": coco_mask.toBbox(one["segmentation"]).tolist()} for one in results]
