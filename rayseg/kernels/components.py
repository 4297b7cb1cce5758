"""Connected parts of a mask, on its runs: a union-find over the pieces of neighbouring columns that touch.

A piece is a run cut at column borders: column x, rows y1 to y2 (end left out). Pieces are in column-major order.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel


@kernel
def column_pieces(runs, height, value):
    """Pieces (P, 3) int64 of x, y1, y2 of one mask's runs of ones (`value` 1) or zeros (0)."""
    total = 0
    for k in range(value, len(runs), 2):
        total += runs[k] // height + 2
    pieces = np.empty((total, 3), np.int64)
    count, position = 0, np.int64(0)
    for k in range(len(runs)):
        if k % 2 == value:
            begin, end = position, position + runs[k]
            while begin < end:
                x = begin // height
                stop = min(end, (x + 1) * height)
                pieces[count, 0], pieces[count, 1], pieces[count, 2] = x, begin - x * height, stop - x * height
                count += 1
                begin = stop
        position += runs[k]
    return pieces[:count].copy()


@kernel
def label_pieces(pieces, diagonal):
    """Parts of pieces: a label (P,) int64 per piece, from 0 in the order in which the parts begin, and their number.

    Pieces of one part share an edge of a pixel, or a corner at least where `diagonal`.
    """
    n = len(pieces)
    parent = np.arange(n)
    reach = 1 if diagonal else 0
    low = 0  # the first piece of the column before that can still touch
    for k in range(n):
        x, y1, y2 = pieces[k, 0], pieces[k, 1], pieces[k, 2]
        while low < k and (pieces[low, 0] < x - 1 or (pieces[low, 0] == x - 1 and pieces[low, 2] + reach <= y1)):
            low += 1
        other = low
        while other < k and pieces[other, 0] == x - 1 and pieces[other, 1] < y2 + reach:
            _join(parent, other, k)
            other += 1
    labels, count = np.empty(n, np.int64), 0
    for k in range(n):
        root = _root(parent, k)
        if root == k:
            labels[k] = count
            count += 1
        else:
            labels[k] = labels[root]
    return labels, count


@kernel
def _root(parent, k):
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@kernel
def _join(parent, a, b):
    """Join two parts under the piece that comes first."""
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@kernel
def part_areas(pieces, labels, count):
    """Pixels of each part, (count,) int64."""
    areas = np.zeros(count, np.int64)
    for k in range(len(pieces)):
        areas[labels[k]] += pieces[k, 2] - pieces[k, 1]
    return areas
