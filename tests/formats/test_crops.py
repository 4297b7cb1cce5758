"""Masks cut to their rectangle and put back, against whole arrays."""

from __future__ import annotations

import numpy as np
from annotated_samples import rle
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayseg.formats.crops import crop_of, mask_of


def dense(height: int, width: int, kind: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed).random((height, width))
    chance = {"none": 0.0, "all": 1.1, "few": 0.1, "half": 0.5}.get(kind, 0.5)
    pixels = (random < chance).astype(np.uint8)
    if kind == "columns":  # runs that go on from one column to the next
        pixels[:, : width // 2] = 1
    return pixels


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["none", "all", "few", "half", "columns"]),
    st.integers(0, 999),
)
@example(1, 1, "none", 0)
@example(1, 1, "all", 0)
def test_a_crop_is_the_tight_rectangle_and_goes_back(height: int, width: int, kind: str, seed: int):
    pixels = dense(height, width, kind, seed)
    left, top, cut = crop_of(rle(pixels))
    rows, columns = np.nonzero(pixels)
    if len(rows):
        expected = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (left, top) == (columns.min(), rows.min()) and np.array_equal(cut, expected)
    else:
        assert (left, top, cut.tolist()) == (0, 0, [[False]])
    assert mask_of(left, top, cut, (height, width)) == rle(pixels)


@settings(deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 999))
def test_what_lies_outside_is_cut(left: int, top: int, seed: int):
    stamp = dense(6, 5, "half", seed)
    around = np.zeros((40, 40), np.uint8)
    around[15 + top : 21 + top, 15 + left : 20 + left] = stamp
    assert mask_of(left, top, stamp, (8, 7)) == rle(around[15:23, 15:22])
