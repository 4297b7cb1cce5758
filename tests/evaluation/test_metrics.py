"""The record: what is undefined is None everywhere, in JSON and in the table of classes."""

from __future__ import annotations

import json

import evaluation_scenes as scenes
import pytest

from rayseg.evaluation import Metrics, evaluate
from rayseg.evaluation.metrics import plain
from rayseg.formats.registry import read


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> Metrics:
    """Of a scene whose last class has no truths, and in which nothing is large."""
    folder = tmp_path_factory.mktemp("metrics")
    truth, results = scenes.scene(6, images=25)
    truth["annotations"] = [one for one in truth["annotations"] if one["area"] < 96**2]
    (folder / "truth.json").write_text(json.dumps(truth))
    return evaluate(read(str(folder / "truth.json"), "coco"), results, draws=40)


def numbers(value, path=""):
    if isinstance(value, dict):
        for key, one in value.items():
            yield from numbers(one, f"{path}/{key}")
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from numbers(one, f"{path}/{i}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def test_json_holds_no_minus_one_and_nothing_infinite(metrics):
    values = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert values["segm"]["APl"] is values["segm"]["ARl"] is None
    below = {path: value for path, value in numbers(values) if value < 0}
    assert not {path for path in below if "ap_cost" not in path}
    assert set(values["classes"]) == set(metrics.class_names)
    for name, rows in values["intervals"].items():
        assert rows["AP"][0] < values[name]["AP"] < rows["AP"][1]


def test_a_class_without_truths_is_undefined_wherever_it_stands(metrics):
    (bare,) = [one for one in metrics.classes if one.truths == 0]
    assert bare.predictions > 0, "its predictions are there, and still it has no AP"
    assert set(bare.measures["segm"].values()) == {None} and metrics.class_ap[bare.name] is None
    assert bare.f1 is bare.threshold is bare.interval is bare.mean_iou is None
    header, rows = metrics.class_rows()
    row = dict(zip(header, next(row for row in rows if row[0] == bare.name), strict=True))
    assert row["segm_AP"] is row["bbox_ARl"] is row["f1"] is None and row["truths"] == 0
    assert metrics.to_json()["classes"][bare.name]["segm"]["AP"] is None


def test_the_mean_of_classes_is_the_whole(metrics):
    known = [value for value in metrics.class_ap.values() if value is not None]
    assert sum(known) / len(known) == pytest.approx(metrics.segm["AP"])
    assert metrics.segm == metrics.measures["segm"] and metrics.boundary["AP"] <= metrics.segm["AP"]


def test_curves_are_means_over_classes_with_truths(metrics):
    curve = metrics.to_json()["curves"]["segm"]
    assert len(curve["recall"]) == len(curve["precision_at_iou_0.50"]) == 101
    assert sum(curve["precision_at_iou_0.50"]) / 101 == pytest.approx(metrics.segm["AP50"])


def test_plain_values():
    import numpy as np

    assert plain({"a": np.float64("nan"), 1: (np.int32(3), float("inf"), np.array([1.5, np.nan]), None, True, "x")}) == {
        "a": None, "1": [3, None, [1.5, None], None, True, "x"],
    }  # fmt: skip
