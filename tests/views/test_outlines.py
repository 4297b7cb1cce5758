"""Outlines, filled again by an independent even-odd rule, are the mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from rayseg.views.outlines import path_data, trace


def filled(loops, hw):
    """Even-odd by counting the vertical strokes left of each pixel's centre."""
    crossings = np.zeros(hw, int)
    for loop in loops:
        for (x1, y1), (x2, y2) in zip(loop, np.roll(loop, -1, axis=0), strict=True):
            if x1 == x2:
                crossings[min(y1, y2) : max(y1, y2), x1:] += 1
    return crossings % 2 == 1


@given(hnp.arrays(bool, st.tuples(st.integers(0, 7), st.integers(0, 7))))
def test_outline_filled_again_is_the_mask(mask):
    loops = trace(mask)
    assert np.array_equal(filled(loops, mask.shape), mask)
    for loop in loops:  # closed, along the grid, corners only
        strokes = np.diff(np.concatenate([loop, loop[:1]]), axis=0)
        assert ((strokes == 0).sum(axis=1) == 1).all()
        assert ((strokes[:, 0] == 0) != (np.roll(strokes, 1, axis=0)[:, 0] == 0)).all()


def test_parts_touching_by_a_corner_are_loops_of_their_own():
    assert len(trace(np.eye(3, dtype=bool))) == 3


@pytest.mark.parametrize(("draw", "loops"), [("disc", 1), ("ring", 2), ("two", 2)])
def test_loops_count_parts_and_holes(draw, loops):
    canvas = Image.new("L", (40, 40))
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((2, 2, 30, 30), fill=1)
    if draw == "ring":
        pen.ellipse((10, 10, 20, 20), fill=0)
    if draw == "two":
        pen.rectangle((33, 33, 38, 38), fill=1)
    assert len(trace(np.asarray(canvas))) == loops


def test_path_of_one_pixel():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    assert path_data(trace(mask)) == "M2 1h1v1h-1z"
