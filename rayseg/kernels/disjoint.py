"""Masks of one image made disjoint, on run lengths: each loses the pixels of those before it."""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.rle_codec import MAX_DIGITS, put_edges, reserved
from rayseg.kernels.rles import Rles


def made_disjoint(rles: Rles, kept_share: float) -> tuple[Rles, np.ndarray]:
    """What is left of each mask, in the order given, and the indices (int64) of those that stay.

    A mask of which less than `kept_share` is left goes, and its pixels stay free for those after it.
    """
    runs, offsets = rles.runs()
    counts, new_offsets, kept = _disjoint(runs, offsets, rles.image_hw[0] * rles.image_hw[1], float(kept_share))
    return Rles(counts, new_offsets, rles.image_hw), kept


@kernel
def _disjoint(runs, offsets, size, kept_share):
    n = len(offsets) - 1
    out, out_offsets = np.empty(256, np.uint8), np.zeros(n + 1, np.int64)
    kept, count = np.empty(n, np.int64), 0
    taken = np.empty(0, np.int64)  # edges of the union of those that stayed
    for i in range(n):
        edges = _edges_of(runs[offsets[i] : offsets[i + 1]])
        left = _without(edges, taken)
        area = _area(edges)
        if area == 0 or _area(left) < kept_share * area:
            continue
        out = reserved(out, out_offsets[count], (len(left) + 2) * MAX_DIGITS)
        out_offsets[count + 1] = put_edges(out, out_offsets[count], left, size)
        kept[count] = i
        count += 1
        taken = union_edges(left, taken)
    return out[: out_offsets[count]].copy(), out_offsets[: count + 1].copy(), kept[:count].copy()


@kernel
def _edges_of(runs):
    edges, found, position = np.empty(len(runs) + 1, np.int64), 0, np.int64(0)
    for k in range(len(runs)):
        if k % 2 == 1 and runs[k] > 0:
            edges[found], edges[found + 1] = position, position + runs[k]
            found += 2
        position += runs[k]
    return edges[:found].copy()


@kernel
def _area(edges):
    area = np.int64(0)
    for k in range(0, len(edges), 2):
        area += edges[k + 1] - edges[k]
    return area


@kernel
def _without(first, second):
    """The pixels of `first` that are not in `second`: walk both, inside where only the first is."""
    return _combined(first, second, False)


@kernel
def union_edges(first, second):
    """The pixels that are in either of two masks, each given by its rising edges."""
    return _combined(first, second, True)


@kernel
def _combined(first, second, unite):
    edges, found = np.empty(len(first) + len(second), np.int64), 0
    a, b, inside = 0, 0, False
    while a < len(first) or b < len(second):
        from_first = b == len(second) or (a < len(first) and first[a] <= second[b])
        place = first[a] if from_first else second[b]
        while a < len(first) and first[a] == place:
            a += 1
        while b < len(second) and second[b] == place:
            b += 1
        in_first, in_second = a % 2 == 1, b % 2 == 1
        now = (in_first or in_second) if unite else (in_first and not in_second)
        if now != inside:
            edges[found] = place
            found += 1
            inside = now
    return edges[:found].copy()
