"""What a cluster elsewhere would not find."""

from typing import Any

import pytest

from rayseg.errors import UsageError
from rayseg.label.spec import LabelSpec
from rayseg.serve.spec import ServeSpec
from rayseg.specs import Spec
from rayseg.submit.paths import local_paths, placed
from rayseg.train.spec import TrainSpec

URL = "http://head:8265"


def label(**values):
    return LabelSpec(**{"images": "s3://b/i", "model": "s3://b/m", "out": "s3://b/o"} | values)


def test_uris_and_names_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not local_paths(label(model="maskrcnn_resnet50_fpn"))
    assert not local_paths(label(model="rectangles", images="gs://b/i", column="path/of"))
    (tmp_path / "my-model").mkdir()
    assert local_paths(label(model="my-model")) == {"model": "my-model"}
    named = TrainSpec(data="s3://b/d", out="s3://b/o", model="m", backbone_weights="ResNet50_Weights.IMAGENET1K_V2")
    assert not local_paths(named)
    filed = named.model_copy(update={"backbone_weights": "body.safetensors"})
    assert local_paths(filed) == {"backbone_weights": "body.safetensors"}


@pytest.mark.parametrize("value", ["photos", "photos/", "/data/photos", "../photos", "file:///data/photos", "a:b.jpg"])
def test_every_spelling_of_a_local_place_is_found(value):
    assert local_paths(label(images=value)) == {"images": value}


class Search(Spec):
    out: str
    train: dict[str, Any]


def test_places_that_lie_deeper(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    serve = ServeSpec(models={"small": "models/s", "images": "rectangles", "large": "s3://b/l"})
    assert local_paths(serve) == {"models.small": "models/s"}
    search = Search(
        out="s3://b/o", train={"data": "train", "val": "val", "model": "maskrcnn_resnet50_fpn", "epochs": 3}
    )
    assert local_paths(search) == {"train.data": "train", "train.val": "val"}
    shared = placed(search, shared=True, url=URL)
    assert shared.train == search.train | {"data": f"{tmp_path}/train", "val": f"{tmp_path}/val"}


def test_all_of_them_are_named_with_what_to_do():
    spec = TrainSpec(data="train/", val="s3://b/val", out="out", model="models/m1", weights="start.pth")
    with pytest.raises(UsageError) as error:
        placed(spec, shared=False, url=URL)
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == ["data", "model", "out", "weights"]
    assert all(URL in line for line in lines[:4]) and "--shared-paths" in lines[-1]


def test_shared_paths_become_absolute_and_stay_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = placed(label(images="photos/", out="file:///mnt/out"), shared=True, url=URL)
    assert spec.images == f"{tmp_path}/photos/" and spec.out == "file:///mnt/out" and spec.model == "s3://b/m"
