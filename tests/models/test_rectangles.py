"""The model without weights, through the same `Predictor` as any other."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import rayseg
from rayseg.errors import UsageError
from rayseg.models import checkpoints
from rayseg.models.rectangles import boxes_of


@pytest.fixture
def predictor():
    return rayseg.load("rectangles")


@pytest.fixture
def quadrants():
    """80 x 120 pixels: red, green above blue, dark red."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[:40, :60, 0], image[:40, 60:, 1], image[40:, :60, 2], image[40:, 60:, 0] = 250, 200, 150, 100
    return image


def test_finds_one_rectangle_in_each_quadrant(predictor, quadrants):
    (found,) = predictor.predict([quadrants])
    assert [predictor.class_names[i] for i in found.classes] == ["red", "green", "blue", "red"]
    expected = [[15, 10, 45, 30], [75, 10, 105, 30], [15, 50, 45, 70], [75, 50, 105, 70]]
    np.testing.assert_array_equal(found.boxes_xyxy, expected)
    np.testing.assert_array_equal(boxes_of((80, 120)), expected)
    np.testing.assert_allclose(found.scores, 0.5 + np.array([250, 200, 150, 100]) / 512)


def test_masks_fill_their_boxes(predictor, quadrants):
    (found,) = predictor.predict([quadrants])
    for row in found.to_coco():
        x, y, w, h = (int(v) for v in row["bbox"])
        box = np.zeros((80, 120), bool)
        box[y : y + h, x : x + w] = True
        mask = coco_mask.decode(row["segmentation"]).astype(bool)
        assert (mask & box).sum() / (mask | box).sum() > 0.9


def test_thresholds_are_obeyed(predictor, quadrants):
    predictor.score_threshold = 0.8
    assert len(predictor.predict([quadrants])[0]) == 2
    predictor.max_detections = 1
    (found,) = predictor.predict([quadrants])
    assert [predictor.class_names[i] for i in found.classes] == ["red"]
    predictor.score_threshold = 1.0
    assert len(predictor.predict([quadrants])[0]) == 0


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (3, 2)])
def test_tiny_images(predictor, hw):
    (found,) = predictor.predict([np.full((*hw, 3), 9, np.uint8)])
    assert found.image_hw == hw and len(found) == 4


def test_steps_make_up_predict(predictor, quadrants):
    prepared = predictor.prepare(quadrants)
    assert prepared.pixels is quadrants
    (stepwise,) = predictor.finish(predictor.detect([prepared]))
    (found,) = predictor.predict([quadrants])
    assert stepwise.rles == found.rles
    assert checkpoints.describe("rectangles").fingerprint == predictor.fingerprint


def test_what_is_not_an_image_is_said(predictor):
    with pytest.raises(UsageError, match="float64"):
        predictor.predict([np.zeros((2, 2, 3))])
