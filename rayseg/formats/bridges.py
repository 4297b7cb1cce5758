"""Several rings as one, for formats with one ring per object: joined by bridges, lines that run there and back.

A bridge covers nothing by the even-odd rule, nor by the non-zero rule. Shapes: K points of a ring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PAIRS_MAX = 1 << 20  # beyond that many pairs of points not all of the joined ring are tried


def joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Rings as one (K, 2): each is joined, at the nearest pair of points, to what was joined before it."""
    whole = rings[0]
    for ring in rings[1:]:
        step = max(1, len(whole) * len(ring) // _PAIRS_MAX)
        distances = ((whole[::step, None] - ring[None]) ** 2).sum(axis=2)
        i, j = divmod(int(distances.argmin()), len(ring))
        turned = np.roll(ring, -j, axis=0)
        whole = np.concatenate([whole[: i * step + 1], turned, turned[:1], whole[i * step :]])
    return whole
