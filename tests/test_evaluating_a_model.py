"""`rayseg eval --model`: labels through the label pipeline on a real cluster, then evaluates what it wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rayseg import cli
from rayseg.models.rectangles import INFO, boxes_of
from rayseg.outputs.verify import verify

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def data(tmp_path):
    """Images in whose quadrants one colour is strongest, and as truths what the known model finds there; one is mislabelled."""
    rng = np.random.default_rng(0)
    truth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(INFO.class_names)],
    }
    (tmp_path / "images").mkdir()
    for image_id in range(6):
        height, width = (96, 128) if image_id % 2 else (128, 96)
        colours = rng.integers(0, 3, 4)
        pixels = np.zeros((height, width, 3), np.uint8)
        for k, colour in enumerate(colours):
            rows = slice(k // 2 * height // 2, (k // 2 + 1) * height // 2)
            pixels[rows, k % 2 * width // 2 : (k % 2 + 1) * width // 2, colour] = 200 + 5 * image_id + k
        Image.fromarray(pixels).save(tmp_path / "images" / f"{image_id}.png")
        truth["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
        for box, colour in zip(boxes_of((height, width)), colours, strict=True):
            x1, y1, x2, y2 = box.tolist()
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": 10 + int(colour),
                    "iscrowd": 0,
                    "area": (x2 - x1) * (y2 - y1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    wrong = truth["annotations"][0]
    wrong["category_id"] = 10 + (wrong["category_id"] - 10 + 1) % 3
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    return tmp_path


def invoke(*words):
    result = CliRunner().invoke(cli.app, ["eval", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_model_is_labelled_with_and_evaluated(data):
    out = data / "eval"
    text = invoke("--data", data / "instances.json", "--model", "rectangles", "--out", out, "draws=20")
    report = verify(str(out / "labels"))
    assert report.ok and report.counts["labelled"] == 6
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["problems"] == [] and metrics["counts"]["predictions"] == 24
    assert metrics["error_kinds"]["class"]["count"] == 1 and metrics["error_kinds"]["missed"]["count"] == 0
    assert 0.8 < metrics["segm"]["AP50"] < 1 and metrics["mean_iou_of_matches"]["segm"] > 0.85
    assert "mask" in text and (out / "report.html").read_bytes().count(b"data:image/jpeg") >= 2
    again = json.loads(
        invoke(
            "--data",
            data / "instances.json",
            "--predictions",
            out / "labels",
            "--out",
            data / "again",
            "--json",
            "draws=20",
        )
    )
    assert again["segm"] == metrics["segm"] and again["intervals"] == metrics["intervals"]
