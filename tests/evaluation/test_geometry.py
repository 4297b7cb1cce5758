"""Boundaries and polygons on run lengths: OpenCV's erosion and pycocotools' filling, to the last pixel."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rayseg import kernels
from rayseg.evaluation.numbers import boundary_distance
from rayseg.evaluation.rasters import rings_to_rles
from rayseg.kernels import Rles
from rayseg.kernels.boundaries import boundaries


def eroded_away(mask, distance):
    """What the Boundary IoU paper's code keeps: the mask less its erosion, `distance` times by 3 x 3."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask - cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]


def random_masks(rng):
    height, width = rng.integers(1, 50, 2)
    masks = np.zeros((rng.integers(1, 5), height, width), np.uint8)
    for mask in masks:
        for _ in range(rng.integers(0, 4)):
            rows, columns = np.sort(rng.integers(0, height + 1, 2)), np.sort(rng.integers(0, width + 1, 2))
            mask[rows[0] : rows[1], columns[0] : columns[1]] = 1
        if rng.random() < 0.4:
            mask[rng.random((height, width)) < 0.03] = 0
        if rng.random() < 0.1:
            mask[:] = 1
    return masks


@pytest.mark.parametrize("seed", range(60))
def test_boundaries_equal_opencvs_erosion(seed):
    rng = np.random.default_rng(seed)
    masks, distance = random_masks(rng), int(rng.integers(1, 6))
    expected = kernels.encode(np.stack([eroded_away(mask, distance) for mask in masks]))
    assert boundaries(kernels.encode(masks), distance) == expected


def test_a_boundary_of_no_width_is_refused_and_no_masks_have_none():
    with pytest.raises(ValueError, match="1 pixel or more"):
        boundaries(Rles.empty((3, 4)), 0)
    assert len(boundaries(Rles.empty((3, 4)), 2)) == 0


@pytest.mark.parametrize(("hw", "distance"), [((480, 640), 16), ((10, 10), 1), ((1080, 1920), 44)])
def test_distances_are_two_percent_of_the_diagonal(hw, distance):
    assert boundary_distance(hw) == distance


def filled(rings, hw):
    return coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *hw))["counts"]


def random_ring(rng, hw):
    points = rng.random((rng.integers(3, 9), 2)) * np.array(hw[::-1]) * 1.3 - np.array(hw[::-1]) * 0.15
    points = (points, np.round(points), np.round(points * 2) / 2, np.round(points, 2), np.round(points * 5) / 5)[
        rng.integers(5)
    ]
    if rng.random() < 0.2:
        points = np.repeat(points, 2, axis=0)
    if rng.random() < 0.2:
        points = np.concatenate([points, points[:1]])
    return points


@given(st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_polygons_equal_pycocotools(seed):
    rng = np.random.default_rng(seed)
    hws = [tuple(rng.integers(1, 60, 2).tolist()) for _ in range(8)]
    masks = [[random_ring(rng, hw) for _ in range(rng.integers(1, 4))] for hw in hws]
    assert rings_to_rles(masks, hws) == [filled(rings, hw) for rings, hw in zip(masks, hws, strict=True)]


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0), (10, 0), (10, 10), (0, 10)],
        [(-5, -5), (70, -5), (70, 70), (-5, 70)],
        [(3.5, 3.5)] * 4,
        [(0, 5), (40, 5), (20, 5)],
        [(5, 0), (5, 40), (5, 20)],
        [(0.1, 0.1), (39.9, 39.9), (0.1, 39.9)],
        [(100, 100), (120, 100), (110, 120)],
    ],
)
def test_polygons_at_the_edges(points):
    ring = np.array(points, np.float64)
    assert rings_to_rles([[ring]], [(40, 40)]) == [filled([ring], (40, 40))]


def test_polygons_of_coco(shared_data):
    for file in sorted((shared_data / "coco_small" / "annotations").glob("*.json")):
        truth = json.loads(file.read_text())
        sizes = {one["id"]: (one["height"], one["width"]) for one in truth["images"]}
        annotations = [one for one in truth["annotations"] if isinstance(one["segmentation"], list)]
        masks = [[np.array(ring).reshape(-1, 2) for ring in one["segmentation"]] for one in annotations]
        hws = [sizes[one["image_id"]] for one in annotations]
        assert rings_to_rles(masks, hws) == [filled(rings, hw) for rings, hw in zip(masks, hws, strict=True)]
        assert len(masks) > 400


def test_no_polygons():
    assert rings_to_rles([], []) == []
