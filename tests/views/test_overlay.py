"""Overlays tint exactly the mask, in its class's colour, and leave the rest of the image alone."""

import numpy as np
import pytest

from rayseg import kernels
from rayseg.errors import UsageError
from rayseg.records import Instances
from rayseg.views.colours import class_hex, class_rgb
from rayseg.views.overlay import draw


def instances_of(masks, scores, classes):
    n = len(masks)
    boxes = np.zeros((n, 4), np.float32)
    return Instances(
        boxes, np.array(scores, np.float32), np.array(classes), kernels.encode(masks), tuple(masks.shape[1:])
    )


def test_only_the_mask_changes_and_its_rim_has_the_class_colour():
    image = np.full((20, 30, 3), 100, np.uint8)
    masks = np.zeros((1, 20, 30), bool)
    masks[0, 5:12, 8:20] = True
    drawn = draw(image, instances_of(masks, [0.9], [3]), "abcde", captions=False)
    assert np.array_equal((drawn != 100).any(axis=-1), masks[0])
    assert tuple(drawn[5, 8]) == class_rgb(3)
    inner = drawn[8, 14].astype(int)
    assert (np.abs(inner - (100 * 0.55 + np.array(class_rgb(3)) * 0.45)) <= 1).all()
    assert (image == 100).all()


def test_low_scores_are_left_out_and_the_best_lies_on_top():
    masks = np.ones((3, 8, 8), bool)
    found = instances_of(masks, [0.9, 0.6, 0.1], [0, 1, 2])
    drawn = draw(np.zeros((8, 8, 3), np.uint8), found, "abc", min_score=0.95, captions=False)
    assert not drawn.any()
    drawn = draw(np.zeros((8, 8, 3), np.uint8), found, "abc", min_score=0.5, captions=False)
    assert tuple(drawn[0, 0]) == class_rgb(0)


def test_captions_stay_inside_small_images():
    masks = np.ones((1, 12, 9), bool)
    drawn = draw(np.zeros((12, 9, 3), np.uint8), instances_of(masks, [0.5], [0]), ["a very long name"])
    assert drawn.shape == (12, 9, 3)


def test_another_images_instances_are_refused():
    with pytest.raises(UsageError, match=r"\(4, 4\).*\(5, 4\)"):
        draw(np.zeros((4, 4, 3), np.uint8), instances_of(np.ones((1, 5, 4), bool), [0.5], [0]), "a")


def test_colours_are_distinct_for_many_classes():
    colours = {class_rgb(i) for i in range(80)}
    assert len(colours) == 80
    assert all(0 <= channel <= 255 for rgb in colours for channel in rgb)
    assert class_hex(0) == "#e69f00"
