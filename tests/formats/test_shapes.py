"""Shapes to pixels, outlines and boxes, against drawing every pixel by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg import kernels
from rayseg.annotations import Annotation, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.formats import shapes

HW = (23, 31)
SQUARE = np.array([(2.0, 3.0), (12, 3), (12, 13), (2, 13)])
HOLE = np.array([(5.0, 6.0), (9, 6), (9, 10), (5, 10)])


def mask_of(dense: np.ndarray) -> Mask:
    return Mask(kernels.encode(dense[None]).strings()[0], dense.shape)


def test_a_part_with_a_hole_covers_its_outline_without_the_hole():
    dense = shapes.rle_of(Annotation(0, shape=Polygons(((SQUARE, HOLE),))), HW).decode(0)
    expected = np.zeros(HW, np.uint8)
    expected[3:13, 2:12] = 1
    expected[6:10, 5:9] = 0
    assert np.array_equal(dense, expected)


def test_overlapping_parts_are_a_union_and_a_lone_box_is_filled():
    two = Polygons(((SQUARE,), (SQUARE + 4,)))
    expected = np.zeros(HW, np.uint8)
    expected[3:13, 2:12] = 1
    expected[7:17, 6:16] = 1
    assert np.array_equal(shapes.rle_of(Annotation(0, shape=two), HW).decode(0), expected)
    box = shapes.rle_of(Annotation(0, box_xyxy=(2.0, 3.0, 12.0, 13.0)), HW)
    assert box == shapes.rle_of(Annotation(0, shape=Polygons(((SQUARE,),))), HW)


def test_masks_are_taken_as_they_are_and_only_at_their_size():
    dense = np.random.default_rng(0).integers(0, 2, HW).astype(np.uint8)
    mask = mask_of(dense)
    assert shapes.rle_of(Annotation(0, shape=mask), HW).strings() == [mask.counts]
    with pytest.raises(ValueError, match="23 x 31 pixels in an image of 31 x 23"):
        shapes.rle_of(Annotation(0, shape=mask), (31, 23))
    with pytest.raises(ValueError, match="23 x 31"):
        shapes.polygons_of(Annotation(0, shape=mask), (31, 23))


@pytest.mark.parametrize("shape", [Polyline(SQUARE), Points(SQUARE), Polygons(()), None])
def test_what_has_no_area_has_an_empty_mask(shape):
    annotation = Annotation(0, shape=shape)
    assert shapes.rle_of(annotation, HW).areas().tolist() == [0]
    assert shapes.polygons_of(annotation, HW) == Polygons(())
    assert shapes.has_mask(annotation) == isinstance(shape, Polygons)


def test_several_at_once_are_the_same_as_one_by_one():
    dense = np.zeros(HW, np.uint8)
    dense[4:9, 5:20] = 1
    annotations = [
        Annotation(0, shape=Polygons(((SQUARE, HOLE),))),
        Annotation(0, shape=mask_of(dense)),
        Annotation(0, box_xyxy=(1.0, 1.0, 5.0, 5.0)),
        Annotation(0, shape=Ellipse((10.0, 9.0), (6.0, 4.0), 30)),
        Annotation(0, shape=Points(SQUARE), box_xyxy=(1.0, 1.0, 5.0, 5.0)),
    ]
    for chosen in (annotations, annotations[:1], annotations[1:2], []):
        together = shapes.rles_of(chosen, HW)
        assert together.strings() == [shapes.rle_of(one, HW).strings()[0] for one in chosen]
        assert together.check() == [None] * len(chosen)


sides = st.integers(1, 24)
numbers = st.floats(-12, 36, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(sides, sides, numbers, numbers, st.floats(0, 30), st.floats(0, 30), st.floats(-400, 400))
def test_an_ellipse_covers_the_pixels_whose_centres_are_in_it(height, width, x, y, rx, ry, angle):
    rle = shapes.rle_of(Annotation(0, shape=Ellipse((x, y), (rx, ry), angle)), (height, width))
    assert rle.check() == [None]
    dy, dx = np.mgrid[:height, :width] + 0.5 - np.array([y, x]).reshape(2, 1, 1)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    thin = min(rx, ry) < 1e-6
    radius = np.inf * np.ones_like(dx) if thin else ((dx * c + dy * s) / rx) ** 2 + ((dy * c - dx * s) / ry) ** 2
    sure = np.abs(radius - 1) > 1e-9
    assert np.array_equal(rle.decode(0)[sure], (radius < 1)[sure])


def test_an_ellipse_turns_clockwise_on_the_screen():
    dense = shapes.rle_of(Annotation(0, shape=Ellipse((12.0, 12.0), (10.0, 2.0), 45)), (24, 24)).decode(0)
    assert dense[17, 17]  # right and down
    assert not dense[6, 17]


def test_an_ellipse_as_a_polygon_has_its_area_and_its_box_is_tight():
    ellipse = Ellipse((50.0, 40.0), (30.0, 12.0), 20)
    ((ring,),) = shapes.polygons_of(Annotation(0, shape=ellipse), (100, 100)).parts
    x, y = ring.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert len(ring) == 72
    assert area == pytest.approx(math.pi * 30 * 12, rel=1e-9)
    turns = np.linspace(0, 2 * math.pi, 100_000)
    u, v = 30 * np.cos(turns), 12 * np.sin(turns)
    c, s = math.cos(math.radians(20)), math.sin(math.radians(20))
    px, py = 50 + u * c - v * s, 40 + u * s + v * c
    found = shapes.box_of(Annotation(0, shape=ellipse))
    assert found == pytest.approx((px.min(), py.min(), px.max(), py.max()), abs=1e-6)


def test_boxes_are_those_given_or_tight():
    given_box = (0.5, 1.0, 3.0, 4.0)
    assert shapes.box_of(Annotation(0, box_xyxy=given_box, shape=Points(SQUARE))) == given_box
    assert shapes.box_of(Annotation(0, shape=Polygons(((SQUARE, HOLE), (SQUARE + 7,))))) == (2, 3, 19, 20)
    assert shapes.box_of(Annotation(0, shape=Polyline(HOLE))) == (5, 6, 9, 10)
    dense = np.zeros(HW, np.uint8)
    assert shapes.box_of(Annotation(0, shape=mask_of(dense))) is None
    dense[4:9, 5:20] = 1
    assert shapes.box_of(Annotation(0, shape=mask_of(dense))) == (5, 4, 20, 9)
    assert shapes.box_of(Annotation(0)) is None
    assert shapes.box_of(Annotation(0, shape=Polygons(()))) is None


dense_masks = st.integers(0, 2**32 - 1).map(
    lambda seed: (np.random.default_rng(seed).random(HW) < np.random.default_rng(seed).random()).astype(np.uint8)
)


@settings(max_examples=100, deadline=None)
@given(dense_masks)
def test_outlines_of_a_mask_give_the_mask_back_also_bridged(dense):
    annotation = Annotation(0, shape=mask_of(dense))
    polygons = shapes.polygons_of(annotation, HW)
    assert all(ring.dtype == np.float64 for part in polygons.parts for ring in part)
    joined = Polygons(tuple((shapes.bridged(part),) for part in polygons.parts))
    for outline in (polygons, joined):
        assert np.array_equal(shapes.rle_of(Annotation(0, shape=outline), HW).decode(0), dense)


def test_a_bridge_runs_between_the_nearest_points_and_holes_run_against_the_outline():
    ring = shapes.bridged((SQUARE, HOLE))
    assert ring.tolist() == [[2, 3], [5, 6], [5, 10], [9, 10], [9, 6], [5, 6], [2, 3], [12, 3], [12, 13], [2, 13]]
    assert np.array_equal(ring, shapes.bridged((SQUARE, HOLE[::-1][[3, 0, 1, 2]])))
    assert np.array_equal(shapes.bridged((SQUARE,)), SQUARE)


def test_rings_become_parts_without_their_repeated_end():
    found = shapes.rings_to_polygons([[0, 0, 4, 0, 4, 4, 0, 0], HOLE, [[1, 1], [2, 2], [1, 1]]])
    assert [len(part) for part in found.parts] == [1, 1, 1]
    assert [len(part[0]) for part in found.parts] == [3, 4, 3]
    with pytest.raises(ValueError):
        shapes.rings_to_polygons([[1, 2, 3]])


@settings(max_examples=50, deadline=None)
@given(dense_masks, dense_masks)
def test_iou_is_that_of_the_pixels(first, second):
    union = np.logical_or(first, second).sum()
    expected = np.logical_and(first, second).sum() / union if union else 1.0
    found = shapes.iou(kernels.encode(first[None]), kernels.encode(second[None]))
    assert found == pytest.approx(expected)


def test_two_empty_masks_are_the_same_mask():
    empty = kernels.from_polygons([()], HW)
    assert shapes.iou(empty, empty) == 1.0
    assert shapes.iou(empty, kernels.from_polygons([[[SQUARE]]], HW)) == 0.0


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Annotation(0, box_xyxy=(1, 2, math.nan, 4)), "box"),
        (Annotation(0, box_xyxy=(5, 2, 1, 4)), "box"),
        (Annotation(0, shape=Polygons(())), "polygon"),
        (Annotation(0, shape=Polygons(((SQUARE[:2],),))), "polygon"),
        (Annotation(0, shape=Polygons(((SQUARE, HOLE * math.inf),))), "polygon"),
        (Annotation(0, shape=Mask(b"0", HW)), "mask"),
        (Annotation(0, shape=mask_of(np.ones((3, 4), np.uint8))), "mask"),
        (Annotation(0, shape=Ellipse((1, 1), (0, 4))), "ellipse"),
        (Annotation(0, shape=Ellipse((1, math.nan), (3, 4))), "ellipse"),
        (Annotation(0, shape=Polyline(SQUARE[:1])), "points"),
        (Annotation(0, shape=Points(SQUARE * math.nan)), "points"),
    ],
)
def test_what_cannot_be_drawn_is_named(annotation, kind):
    found = shapes.fault(annotation, HW)
    assert found is not None
    assert found[0] == kind


def test_what_can_be_drawn_has_no_fault():
    for shape in (
        Polygons(((SQUARE, HOLE),)),
        mask_of(np.ones(HW, np.uint8)),
        Ellipse((1, 1), (2, 3)),
        Points(SQUARE),
        None,
    ):
        assert shapes.fault(Annotation(0, box_xyxy=(1, 1, 1, 4), shape=shape), HW) is None
    assert shapes.hw_fault((1, 1 << 20)) is None
    assert shapes.hw_fault((0, 5)) and shapes.hw_fault((5, (1 << 20) + 1))
