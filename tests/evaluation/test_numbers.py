"""The twelve numbers of masks and of boxes: pycocotools' to 1e-12, COCO's published ones to three digits."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import evaluation_scenes as scenes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.evaluation import evaluate
from rayseg.evaluation.numbers import metric_names
from rayseg.evaluation.official import twelve
from rayseg.evaluation.ranked import all_precision_recall, ranked
from rayseg.formats.registry import read


def values(found):
    return list(found.values())


def close(found, expected):
    assert [one is None for one in found] == [one is None for one in expected]
    known = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None]
    assert [a for a, _ in known] == pytest.approx([b for _, b in known], abs=1e-12, rel=0)


def run(tmp_path: Path, truth, results, **kwargs):
    """`evaluate` from files, as the command has them."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    kwargs = {"draws": 0, "examples_each": 0, "boundary": False, "data_format": "coco", **kwargs}
    return evaluate(str(tmp_path / "truth.json"), str(tmp_path / "results.json"), **kwargs)


@pytest.mark.parametrize("seed", range(25))
def test_masks_and_boxes_equal_pycocotools(tmp_path, seed):
    truth, results = scenes.scene(seed)
    metrics = run(tmp_path, truth, results)
    close(values(metrics.segm), scenes.reference(truth, scenes.only(results, "segmentation"), "segm"))
    close(values(metrics.bbox), scenes.reference(truth, scenes.only(results, "bbox"), "bbox"))


@pytest.mark.parametrize("seed", range(5))
def test_boxes_of_results_that_bring_masks_only(tmp_path, seed):
    truth, results = scenes.scene(seed)
    bare = scenes.only(results, "segmentation")
    boxed = [{**one, "bbox": scenes.coco_mask.toBbox(one["segmentation"]).tolist()} for one in bare]
    close(values(run(tmp_path, truth, bare).bbox), scenes.reference(truth, scenes.only(boxed, "bbox"), "bbox"))


@pytest.mark.parametrize("fields", [("bbox", "segmentation"), ("segmentation",)])
def test_sizes_as_loadres_has_them(tmp_path, fields):
    """pycocotools, given the file as it is, sizes a mask by its box where there is one, and a box by its mask where not."""
    differs = False
    for seed in range(6):
        truth, results = scenes.scene(seed, images=12)
        given_results = scenes.only(results, *fields)
        metrics = run(tmp_path, truth, given_results, sizes="loadres")
        for measure in ("segm", "bbox"):
            close(values(metrics.measures[measure]), scenes.reference(truth, given_results, measure))
        differs |= metrics.measures != run(tmp_path, truth, given_results).measures
    assert differs, "the scenes must tell the two rules apart"


@pytest.mark.parametrize("max_dets", [(1, 2, 3), (1, 3, 500)])
def test_other_max_dets(tmp_path, max_dets):
    truth, results = scenes.scene(3, images=5, classes=2)
    results += [{**one, "score": one["score"] * 0.9} for one in results] * 2
    metrics = run(tmp_path, truth, results, max_dets=max_dets)
    assert list(metrics.segm) == list(metric_names(max_dets)) and f"AR{max_dets[2]}" in metrics.segm
    bare = scenes.only(results, "segmentation")
    close(values(metrics.segm), scenes.reference(truth, bare, "segm", max_dets))


@pytest.mark.parametrize("seed", range(4))
def test_classes_equal_pycocotools_class_by_class(tmp_path, seed):
    truth, results = scenes.scene(seed, images=12)
    metrics = run(tmp_path, truth, results)
    evaluation = scenes.pycocotools_eval(truth, scenes.only(results, "segmentation"), "segm")
    names = {one["id"]: one["name"] for one in truth["categories"]}
    by_name = {one.name: one for one in metrics.classes}
    for k, key in enumerate(evaluation.params.catIds):
        part = evaluation.eval["precision"][:, :, k, 0, -1]
        expected = None if (part == -1).all() else pytest.approx(part.mean(), abs=1e-12)
        assert by_name[names[key]].measures["segm"]["AP"] == expected
        assert metrics.class_ap[names[key]] == expected


@pytest.mark.parametrize("seed", range(6))
def test_records_give_the_same_numbers_as_hotcoco(tmp_path, seed):
    """What everything else is computed from agrees with what is published, to the last bit."""
    truth, results = scenes.scene(seed, images=10)
    metrics = run(tmp_path, truth, results)
    for measure in ("segm", "bbox"):
        ranks = ranked(metrics.records, measure, len(metrics.classes), metrics.order)
        precision, recall = all_precision_recall(ranks, len(metrics.image_names), (1, 10, 100))
        assert twelve(precision, recall, (1, 10, 100)) == metrics.measures[measure]
        assert np.array_equal(
            np.where(precision[..., 0, -1] < 0, np.nan, precision[..., 0, -1]), metrics.curves[measure], equal_nan=True
        )


@given(st.integers(100, 10**6), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_any_scene_equals_pycocotools(tmp_path_factory, seed, images, classes):
    truth, results = scenes.scene(seed, images, classes)
    metrics = run(tmp_path_factory.mktemp("any"), truth, results)
    close(values(metrics.segm), scenes.reference(truth, scenes.only(results, "segmentation"), "segm"))
    close(values(metrics.bbox), scenes.reference(truth, scenes.only(results, "bbox"), "bbox"))


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_faster_coco_eval(tmp_path, seed):
    from faster_coco_eval import COCO, COCOeval_faster

    truth, results = scenes.scene(seed, images=12)
    bare = scenes.only(results, "segmentation")
    coco = COCO(json.loads(json.dumps(truth)))
    evaluation = COCOeval_faster(
        coco, coco.loadRes(json.loads(json.dumps(bare))), "boundary", print_function=lambda *_: None
    )
    evaluation.evaluate()
    evaluation.accumulate()
    close(values(run(tmp_path, truth, results, boundary=True).boundary), scenes.twelve(evaluation))


class DenseBoundaryEval(scenes.COCOeval):
    """pycocotools' evaluation by Boundary IoU as its paper defines it (Cheng et al., 2021): dense masks, OpenCV's erosion.

    The boundary is 2 % of the image's diagonal wide; the overlap is the lesser of those of mask and boundary, of a crowd
    that of the mask.
    """

    def computeIoU(self, imgId, catId):
        key = imgId, catId
        truths = self._gts[key]
        found = sorted(self._dts[key], key=lambda one: -one["score"])[: self.params.maxDets[-1]]
        if not truths or not found:
            return []
        return np.array([[self.overlap(one, truth) for truth in truths] for one in found])

    def overlap(self, found, truth):
        a, b = (self.cocoGt.annToMask(one) for one in (found, truth))
        if truth["iscrowd"]:
            return (a & b).sum() / max(a.sum(), 1)
        return min(jaccard(a, b), jaccard(boundary_of(a), boundary_of(b)))


def jaccard(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def boundary_of(mask):
    distance = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask - cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]


@given(st.integers(100, 10**6))
@settings(max_examples=15, deadline=None)
def test_boundaries_equal_pycocotools_on_dense_boundaries(tmp_path_factory, seed):
    truth, results = scenes.scene(seed, images=4)
    metrics = run(tmp_path_factory.mktemp("boundary"), truth, results, boundary=True)
    bare = scenes.only(results, "segmentation")
    expected = scenes.twelve(scenes.pycocotools_eval(truth, bare, "segm", evaluator=DenseBoundaryEval))
    close(values(metrics.boundary), expected)


def published(lines, measure):
    """The twelve numbers that follow `type=...` in the COCO API's own listing."""
    rows = [line for line in lines[lines.index(f"type={measure}") :] if line.startswith(" Average")][:12]
    return [float(line.rpartition("=")[2]) for line in rows]


def test_all_24_published_numbers_of_coco(shared_data: Path):
    folder = shared_data / "coco_eval"
    lines = (folder / "val2014_fake_eval_res.txt").read_text().splitlines()
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    for measure in ("segm", "bbox"):
        file = folder / f"instances_val2014_fake{measure}100_results.json"
        metrics = evaluate(
            read(str(folder / "instances_val2014_100.json"), "coco"),
            str(file),
            draws=0,
            examples_each=0,
            boundary=False,
        )
        found = values(metrics.measures[measure])
        assert found == pytest.approx(published(lines, measure), abs=5e-4)
        close(found, scenes.reference(truth, json.loads(file.read_text()), measure))
        assert metrics.problems == ()
    assert metrics.segm is None, "results of boxes alone say nothing of masks"
