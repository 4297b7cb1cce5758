"""What a spec may ask of images and models, in a worker's whole run: fitted anchors, timm's bodies, every augmentation."""

import numpy as np
import pytest
from tiny_training import SETTINGS, TINY

import rayseg
from rayseg import read, specs
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import UsageError
from rayseg.models import checkpoints
from rayseg.models.anchors import fit_anchors
from rayseg.train.anchor_fitting import fitted_anchors
from rayseg.train.records import packed
from rayseg.train.session import Session
from rayseg.train.spec import TrainSpec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_coco(root, generate(5, seed=0, size_px=64, max_objects=3))
    return str(root)


def run(data, out, settings, **changes):
    values = {"data": data, "out": str(out), "model": "maskrcnn_resnet10_fpn", "batch_size": 2, "steps": 2}
    spec = specs.validate(TrainSpec, {**values, "settings": {**SETTINGS, **settings}, **changes})
    told = []
    assert Session(spec, packed(read(data)), tell=told.append).go().finished
    return " ".join(event.get("message", "") for event in told)


def test_fitted_anchors_are_in_the_checkpoint_and_in_the_log(data, tmp_path):
    said = run(data, tmp_path, {"anchor_ratios": (0.5, 2.0)}, fit_anchors=True)
    boxes = np.concatenate([sample.boxes_xyxy() for sample in generate(5, seed=0, size_px=64, max_objects=3)])
    given = TINY.model_copy(update={"anchor_ratios": (0.5, 2.0)})
    expected = fit_anchors(boxes[:, 2:] - boxes[:, :2], given)
    found = checkpoints.load(str(tmp_path)).settings
    assert (found.anchor_sizes, found.anchor_ratios) == (expected.anchor_sizes, expected.anchor_ratios)
    assert found.anchor_sizes != given.anchor_sizes and expected.text() in said


def test_anchors_are_fitted_to_objects_as_the_network_sees_them():
    def image(name, image_hw, *annotations):
        return AnnotatedImage(name, "nowhere.png", image_hw, annotations)

    small = image("a", (32, 32), Annotation(0, (0, 0, 8, 8)), Annotation(0, (0, 0, 32, 32), crowd=True))
    large = image("b", (128, 256), Annotation(0, (10, 10, 50, 90)), Annotation(0, (0, 0, 12, 20)))
    records = packed(Dataset((Category("a"),), [small, large, image("c", (9, 9))]))
    found = fitted_anchors(records, TINY)  # at 64 pixels at most: the first doubled, the second a quarter
    assert found == fit_anchors(np.array([[16, 16], [10, 20], [3, 5]]), TINY)
    with pytest.raises(UsageError, match="no box has an area"):
        fitted_anchors(packed(Dataset((Category("a"),), [image("c", (9, 9))])), TINY)


def test_a_run_with_a_timm_body_and_every_augmentation_ends_in_a_checkpoint_that_labels(data, tmp_path):
    augmentation = {"scale_jitter": [0.5, 1.5], "sizes": [48, 64], "crop": 0.5, "colour": 0.5, "copy_paste": 0.5,
                    "mosaic": 0.5}  # fmt: skip
    settings = {"backbone": "timm/mobilenetv3_small_050", "backbone_norm": "frozen_batch"}
    said = run(data, tmp_path, settings, augmentation=augmentation)
    assert "random weights" in said
    image = next(generate(1, seed=9, size_px=64)).image
    assert rayseg.load(str(tmp_path)).predict([image])[0].image_hw == (64, 64)
