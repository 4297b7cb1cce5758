"""Whether a closed ring crosses itself, without comparing every side with every other.

Sides are taken in the order of their left ends; a side meets only those that begin before it ends.
K points of a ring.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

_MAX_PAIRS = 50_000_000  # about a tenth of a second; only rings of tens of thousands of long sides have more
_ROUNDING = 4e-16  # Shewchuk's bound for the sign of a 2 x 2 determinant of differences (1997, section 4.1), rounded up


def crosses_itself(ring: np.ndarray) -> bool:
    """Whether two sides of the ring (K, 2), closed from its last point to its first, cross within both of them.

    Sides that only touch, share an end or lie on one another do not count: rings that reach their holes over a bridge,
    and outlines along pixel edges, do that. A ring of coordinates that are not finite does not cross, and nor does one
    that would take more than 50 million comparisons to tell.
    """
    points = np.ascontiguousarray(ring, np.float64)
    if len(points) < 4 or not np.isfinite(points).all():
        return False
    ends = np.roll(points, -1, axis=0)
    order = np.argsort(np.minimum(points[:, 0], ends[:, 0]), kind="stable")
    return bool(_any_crossing(points, ends, order))


@kernel
def _any_crossing(points, ends, order):
    """Whether any two of the sides points[i] to ends[i] cross; `order` sorts them by their left ends."""
    pairs = 0
    for n in range(len(order)):
        i = order[n]
        right = max(points[i, 0], ends[i, 0])
        top, bottom = min(points[i, 1], ends[i, 1]), max(points[i, 1], ends[i, 1])
        for m in range(n + 1, len(order)):
            k = order[m]
            if min(points[k, 0], ends[k, 0]) > right:
                break
            pairs += 1
            if max(points[k, 1], ends[k, 1]) < top or min(points[k, 1], ends[k, 1]) > bottom:
                continue
            if _cross(points[i], ends[i], points[k], ends[k]):
                return True
        if pairs > _MAX_PAIRS:
            return False
    return False


@kernel
def _cross(a, b, c, d):
    """Whether the segments a b and c d cross within both."""
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


@kernel
def _side(a, b, p):
    """On which side of the line a b the point p lies, as 1 or -1; 0 on it, or where rounding could decide."""
    left, right = (b[0] - a[0]) * (p[1] - a[1]), (b[1] - a[1]) * (p[0] - a[0])
    if abs(left - right) <= _ROUNDING * (abs(left) + abs(right)):
        return 0
    return 1 if left > right else -1
