"""`rayseg predict`: a model here and an endpoint give the same; what fails is named and stops nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from serve.fake_endpoint import TOKEN

from rayseg import cli, load, read

WHERE = ("--model", "rectangles"), ("--url",)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Three images and one that is none, in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 60)), ("b.png", (33, 21)), ("more/a.png", (50, 50))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:100])
    return folder


@pytest.fixture
def predict(monkeypatch, capsys, endpoint):
    """Runs the command; its exit code, standard output and error."""

    def run(*words: str) -> tuple[int, str, str]:
        words = tuple(word for given in words for word in ((given, endpoint.url) if given == "--url" else (given,)))
        monkeypatch.setattr(sys, "argv", ["rayseg", "predict", *map(str, words)])
        monkeypatch.setenv("RAYSEG_RETRY_S", "0")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.mark.parametrize("where", WHERE)
def test_one_image_to_standard_output(predict, photos, where):
    code, out, err = predict("photos/a.png", *where)
    assert code == 0 and "1 image with 4 instances" in err
    document = json.loads(out)
    assert document["images"] == [{"id": 1, "file_name": "photos/a.png", "width": 60, "height": 40}]
    assert [one["name"] for one in document["categories"]] == ["red", "green", "blue"]
    expected = load("rectangles").predict([np.asarray(Image.open(photos / "a.png"))])[0].to_coco(1)
    found = [{**one, "bbox": np.round(one["bbox"], 3).tolist()} for one in document["annotations"]]
    assert found == [
        {"id": i, **one, "bbox": np.round(one["bbox"], 3).tolist(), "iscrowd": 0} for i, one in enumerate(expected, 1)
    ]


@pytest.mark.parametrize("where", WHERE)
def test_a_folder_into_one_file_with_overlays(predict, photos, where):
    code, out, err = predict("photos", "nowhere.jpg", *where, "--out", "found.json", "--overlay", "drawn")
    assert (code, out) == (1, "")
    assert "photos/broken.png: " in err and "nowhere.jpg" in err and "3 images with 12 instances, 2 failed" in err
    document = json.loads(Path("found.json").read_text())
    assert [one["file_name"] for one in document["images"]] == ["photos/a.png", "photos/b.png", "photos/more/a.png"]
    assert sorted(one["file_name"] for one in document["errors"]) == ["nowhere.jpg", "photos/broken.png"]
    assert all(one["kind"] and one["message"] for one in document["errors"])
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a-2.png", "a.png", "b.png"]
    assert Image.open("drawn/a-2.png").size == (50, 50)
    coco = COCO("found.json")
    assert coco.loadRes(document["annotations"]).annToMask(coco.loadAnns(1)[0]).shape == (40, 60)
    assert sum(len(image.annotations) for image in read("found.json", "coco", images=".").images) == 12


@pytest.mark.parametrize("where", WHERE)
def test_a_file_each(predict, photos, where):
    code, out, _ = predict(
        "photos/*.png", *where, "--out", "each", "--max-detections", "1", "--classes", "red,green,blue"
    )
    assert (code, out) == (1, "")
    assert sorted(path.name for path in Path("each").iterdir()) == ["a.json", "b.json"]
    assert [len(json.loads(path.read_text())["annotations"]) for path in Path("each").iterdir()] == [1, 1]


@pytest.mark.parametrize("where", WHERE)
def test_the_score_and_the_classes(predict, photos, where):
    scores = [one["score"] for one in json.loads(predict("photos/a.png", *where)[1])["annotations"]]
    least = sorted(scores)[2]
    document = json.loads(predict("photos/a.png", *where, "--score-threshold", repr(least - 1e-6))[1])
    assert [one["score"] for one in document["annotations"]] == [score for score in scores if score >= least]
    found = {one["category_id"] for one in json.loads(predict("photos", *where, "--classes", "blue")[1])["annotations"]}
    assert found == {2}


def test_wrong_usage(predict, photos):
    for words, said in (
        (["photos/a.png"], "expected --model"),
        (["photos/a.png", "--model", "rectangles", "--classes", "rad"], "did you mean 'red'"),
        (["photos/a.png", "--url", "--model", "other"], "serves rectangles"),
        (["photos/a.png", "--url", "--device", "cpu"], "--device is for a model here"),
    ):
        code, out, err = predict(*words)
        assert (code, out) == (2, "") and said in err


def test_the_token_comes_from_the_environment(predict, photos, endpoint, monkeypatch):
    endpoint.wants_token = True
    code, _, err = predict("photos/a.png", "--url")
    assert code == 1 and "401" in err
    monkeypatch.setenv("RAYSEG_TOKEN", TOKEN)
    assert predict("photos/a.png", "--url")[0] == 0
