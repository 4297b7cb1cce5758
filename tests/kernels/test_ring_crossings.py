"""Rings that cross themselves, against every pair of sides in exact arithmetic."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.kernels.ring_crossings import crosses_itself

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def side(a, b, p):
    value = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
    return (value > 0) - (value < 0)


def slow_answer(ring):
    exact = [tuple(Fraction(float(v)) for v in point) for point in ring]
    sides = list(zip(exact, exact[1:] + exact[:1], strict=True))
    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for (a, b), (c, d) in combinations(sides, 2)
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12))
def test_small_whole_numbers_with_many_touches(points):
    assert crosses_itself(np.array(points, np.float64).reshape(-1, 2)) == slow_answer(points)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 25))
def test_random_points(seed, count):
    ring = np.random.default_rng(seed).uniform(-1000, 1000, (count, 2))
    assert crosses_itself(ring) == slow_answer(ring.tolist())


@pytest.mark.parametrize(
    ("ring", "expected"),
    [
        ([(0, 0), (10, 10), (10, 0), (0, 10)], True),  # a bow tie
        (SQUARE, False),
        ([*SQUARE, (0, 0), (2, 2), (2, 4), (4, 4), (4, 2), (2, 2)], False),  # a hole over a bridge
        ([(0, 0), (5, 5), (10, 0), (10, 10), (5, 5), (0, 10)], False),  # two triangles touch at a corner
        ([(0, 0), (float("nan"), 10), (10, 0), (0, 10)], False),
        ([], False),
    ],
)
def test_known_rings(ring, expected):
    assert crosses_itself(np.array(ring, np.float64).reshape(-1, 2)) is expected


def test_long_rings_are_told_without_comparing_all_pairs():
    angles = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1000
    assert not crosses_itself(circle)
    circle[[50_000, 50_001]] = circle[[50_001, 50_000]]
    assert crosses_itself(circle)
