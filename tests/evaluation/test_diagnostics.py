"""Error kinds, confusion, calibration, thresholds and match quality: against hotcoco's, by hand, and by brute force."""

from __future__ import annotations

import evaluation_scenes as scenes
import numpy as np
import pytest
from hotcoco import COCO, COCOeval

from rayseg.evaluation import evaluate
from rayseg.evaluation.error_kinds import KINDS
from rayseg.formats.registry import read

HOT_KINDS = {
    "class": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}


def run(tmp_path, truth, results, **kwargs):
    import json

    (tmp_path / "truth.json").write_text(json.dumps(truth))
    kwargs = {"draws": 0, "examples_each": 3, "boundary": False, **kwargs}
    return evaluate(read(str(tmp_path / "truth.json"), "coco"), results, **kwargs)


def without_crowds(truth):
    """hotcoco takes what lies on a crowd for background; here crowds count nowhere, so they are compared by hand."""
    annotations = [one for one in truth["annotations"] if not one["iscrowd"]]
    return {**truth, "annotations": annotations}


def hot(truth, results, measure):
    dropped = "bbox" if measure == "segm" else "segmentation"
    coco = COCO(truth)
    found = coco.load_res([{key: value for key, value in one.items() if key != dropped} for one in results])
    evaluation = COCOeval(coco, found, measure)
    evaluation.evaluate()
    return evaluation


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("measure", ["segm", "bbox"])
def test_error_kinds_equal_hotcocos(tmp_path, seed, measure):
    truth, results = scenes.scene(seed, images=15)
    truth = without_crowds(truth)
    results = scenes.untied(scenes.only(results, "segmentation" if measure == "segm" else "bbox"), seed)
    metrics = run(tmp_path, truth, results)
    expected = hot(truth, results, measure).tide_errors()
    assert metrics.primary == measure
    for ours, theirs in HOT_KINDS.items():
        assert metrics.error_kinds[ours]["count"] == expected["counts"][theirs], ours
        assert metrics.error_kinds[ours]["ap_cost"] == pytest.approx(expected["delta_ap"][theirs], abs=1e-9), ours


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_confusion_equals_hotcocos(tmp_path, seed, threshold):
    truth, results = scenes.scene(seed, images=15)
    truth, results = without_crowds(truth), scenes.untied(scenes.only(results, "segmentation"), seed)
    metrics = run(tmp_path, truth, results, score_threshold=threshold)
    expected = hot(truth, results, "segm").confusion_matrix(min_score=threshold)
    names = {one["id"]: f"class {one['id']}" for one in truth["categories"]}
    places = [metrics.class_names.index(names[key]) for key in expected["cat_ids"]] + [len(metrics.classes)]
    assert np.array_equal(metrics.confusion.matrix[np.ix_(places, places)], expected["matrix"])
    assert metrics.confusion.score == threshold


@pytest.mark.parametrize("seed", range(6))
def test_calibration_equals_hotcocos(tmp_path, seed):
    truth, results = scenes.scene(seed, images=15)
    metrics = run(tmp_path, truth, scenes.only(results, "segmentation"))
    expected = hot(truth, scenes.only(results, "segmentation"), "segm").calibration()
    assert metrics.calibration.ece == pytest.approx(expected["ece"], abs=1e-12)
    assert metrics.calibration.mce == pytest.approx(expected["mce"], abs=1e-12)
    assert [one["count"] for one in metrics.calibration.bins] == [one["count"] for one in expected["bins"]]


def test_scores_outside_0_to_1_have_no_calibration(tmp_path):
    truth, results = scenes.scene(1)
    metrics = run(tmp_path, truth, [{**one, "score": one["score"] * 10 - 3} for one in results])
    assert metrics.calibration.ece is None and metrics.calibration.bins == []
    assert metrics.segm["AP"] is not None


@pytest.mark.parametrize("seed", range(6))
def test_best_thresholds_are_the_best_of_all(tmp_path, seed):
    """Every score that occurs is tried as the threshold, by pycocotools' matches."""
    truth, results = scenes.scene(seed, images=15)
    results = scenes.only(results, "segmentation")
    metrics = run(tmp_path, truth, results)
    evaluation = scenes.pycocotools_eval(truth, results, "segm")
    names = {one["id"]: one["name"] for one in truth["categories"]}
    pooled = []
    for key, found in matches(evaluation).items():
        one = metrics.classes[metrics.class_names.index(names[key])]
        pooled.append(found)
        best = best_f1([found])
        if best is None:
            assert one.f1 is None and one.threshold is None
        else:
            assert one.f1 == pytest.approx(best[0]) and f1_at([found], one.threshold) == pytest.approx(best[0])
            assert one.precision == pytest.approx(best[1]) and one.recall == pytest.approx(best[2])
    assert f1_at(pooled, metrics.best_threshold) == pytest.approx(best_f1(pooled)[0])


def matches(evaluation):
    """By category: scores and hits at IoU .50 of detections that count, and the number of truths that do."""
    found = {key: ([], [], 0) for key in evaluation.params.catIds}
    for one in evaluation.evalImgs:
        if one is None or list(one["aRng"]) != [0, 1e10]:
            continue
        scores, hits, truths = found[one["category_id"]]
        counts = ~np.asarray(one["dtIgnore"][0], bool)
        scores += np.array(one["dtScores"])[counts].tolist()
        hits += (np.array(one["dtMatches"][0])[counts] > 0).tolist()
        found[one["category_id"]] = scores, hits, truths + int((np.asarray(one["gtIgnore"]) == 0).sum())
    return found


def f1_at(found, threshold):
    kept = [hit for scores, hits, _ in found for score, hit in zip(scores, hits, strict=True) if score >= threshold]
    return 2 * sum(kept) / (len(kept) + sum(truths for _, _, truths in found))


def best_f1(found):
    """F1, precision, recall at the best threshold; None where nothing is ever right."""
    thresholds = {score for scores, _, _ in found for score in scores}
    if not any(hit for _, hits, _ in found for hit in hits):
        return None
    best = max(thresholds, key=lambda threshold: (f1_at(found, threshold), threshold))
    kept = [hit for scores, hits, _ in found for score, hit in zip(scores, hits, strict=True) if score >= best]
    return f1_at(found, best), sum(kept) / len(kept), sum(kept) / sum(truths for _, _, truths in found)


def square(x, y, side=20):
    """An RLE of a square in an image of 100 x 100."""
    mask = np.zeros((100, 100), np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    rle = scenes.coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def by_hand(*truths):
    """Ground truth of one image; each truth is (category id, x, y)."""
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": label, "iscrowd": 0, "area": 400.0, "bbox": [x, y, 20, 20],
             "segmentation": square(x, y)}
            for i, (label, x, y) in enumerate(truths)
        ],
    }  # fmt: skip


def found_at(label, x, y, score):
    return {"image_id": 1, "category_id": label, "score": score, "segmentation": square(x, y)}


def test_every_kind_of_error_by_hand(tmp_path):
    truth = by_hand((1, 0, 0), (1, 40, 0), (2, 0, 40), (2, 40, 40), (1, 70, 70))
    results = [
        found_at(1, 0, 0, 0.9),  # right
        found_at(1, 1, 0, 0.8),  # duplicate
        found_at(1, 52, 0, 0.7),  # IoU 8/32 with its class: localisation
        found_at(1, 0, 40, 0.6),  # on a dog: class
        found_at(1, 52, 40, 0.5),  # beside a dog: both
        found_at(2, 80, 0, 0.4),  # background
    ]
    metrics = run(tmp_path, truth, results)
    counts = {kind: found["count"] for kind, found in metrics.error_kinds.items()}
    assert counts == {"class": 1, "localisation": 1, "both": 1, "duplicate": 1, "background": 1, "missed": 2}
    # cat has 3 truths; of its ranking 1 0 0 0 0 the first is right: AP .34 (recalls 0 to .33); dog has none right: 0
    assert metrics.segm["AP50"] == pytest.approx((34 / 101 + 0) / 2)
    # the dog found as a cat becomes a dog's first: 1 of 2 dogs, before the background at .4: 51 recalls
    assert metrics.error_kinds["class"]["ap_cost"] == pytest.approx(51 / 101 / 2)
    assert metrics.mean_iou["segm"] == 1.0
    matrix = metrics.confusion.matrix
    assert metrics.confusion.score == 0.9 and matrix[0, 0] == 1 and matrix[:, 2].tolist() == [2, 2, 0]
    words = {(one.kind, one.what) for one in metrics.examples}
    assert words == {("false", "duplicate"), ("missed", ""), ("poor", "")}


def test_crowds_count_nowhere(tmp_path):
    truth = by_hand((1, 0, 0), (1, 40, 40))
    truth["annotations"][1]["iscrowd"] = 1
    results = [found_at(1, 0, 0, 0.9), found_at(1, 40, 40, 0.8), found_at(1, 42, 42, 0.7), found_at(2, 40, 40, 0.6)]
    metrics = run(tmp_path, truth, results, score_threshold=0.0)
    counts = {kind: found["count"] for kind, found in metrics.error_kinds.items()}
    assert counts == {"class": 0, "localisation": 0, "both": 0, "duplicate": 0, "background": 1, "missed": 0}
    assert metrics.confusion.matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert sum(one["count"] for one in metrics.calibration.bins) == 2  # the two that lie on the crowd do not count
    assert metrics.classes[0].truths == 1 and metrics.classes[0].f1 == 1.0


def test_examples_are_the_worst_and_carry_their_masks(tmp_path):
    truth, results = scenes.scene(4, images=30)
    metrics = run(tmp_path, truth, results, examples_each=4)
    records = metrics.records
    false = [one for one in metrics.examples if one.kind == "false"]
    wrong = records.detections.scores[np.isin(records.detections.kinds, list(KINDS.values()))]
    assert len(false) == 4 and false[0].focus.score == wrong.max()
    assert [one.focus.score for one in false] == sorted((one.focus.score for one in false), reverse=True)
    assert len({one.image for one in false}) == 4, "one of an image, so that the page is not all one image"
    by_id = {one["id"]: one for one in truth["images"]}
    for one in metrics.examples:
        size = next((entry["height"], entry["width"]) for entry in by_id.values() if entry["file_name"] == one.name)
        assert one.image_hw == size
        of_image = [entry for entry in results if by_id[entry["image_id"]]["file_name"] == one.name]
        if one.kind != "missed":
            masks = {
                entry["segmentation"]["counts"].encode() for entry in of_image if entry["score"] == one.focus.score
            }
            assert one.focus.rle in masks
    poor = [one for one in metrics.examples if one.kind == "poor"]
    lows = [one.iou for one in poor]
    assert lows == sorted(lows) and lows[0] >= 0.5 and poor[0].partner is not None
    area = scenes.coco_mask.area
    for one in poor:
        pair = [{"size": list(one.image_hw), "counts": shape.rle} for shape in (one.focus, one.partner)]
        both, either = (area(scenes.coco_mask.merge(pair, intersect=flag)) for flag in (True, False))
        assert one.iou == pytest.approx(both / either)
