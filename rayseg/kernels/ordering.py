"""Scores in descending order: a stable radix sort, several times faster than a comparison sort at 20,000 boxes."""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

_DIGIT_BITS = 11
_PASSES = 3  # of 11 bits each: 32-bit keys


@kernel
def descending_order(scores):
    """Indices (N,) int64 that sort float32 `scores` best first, ties by lower index; NaN counts as best, as in torch."""
    n = len(scores)
    bits = scores.view(np.uint32)
    keys, order = np.empty(n, np.uint32), np.empty(n, np.int64)
    for i in range(n):
        word = bits[i]
        if scores[i] != scores[i]:
            keys[i] = 0
        elif scores[i] == 0:
            keys[i] = np.uint32(0x7FFFFFFF)  # -0.0 equals 0.0
        elif word & np.uint32(0x80000000):
            keys[i] = word
        else:
            keys[i] = ~word & np.uint32(0x7FFFFFFF)
        order[i] = i
    other_keys, other_order = np.empty(n, np.uint32), np.empty(n, np.int64)
    for digit in range(_PASSES):
        _radix_pass(keys, order, other_keys, other_order, np.uint32(digit * _DIGIT_BITS))
        keys, other_keys = other_keys, keys
        order, other_order = other_order, order
    return order


@kernel
def _radix_pass(keys, order, keys_out, order_out, shift):
    """Sort by one digit, keeping the order of equal ones."""
    mask = np.uint32((1 << _DIGIT_BITS) - 1)
    places = np.zeros(1 << _DIGIT_BITS, np.int64)
    for key in keys:
        places[(key >> shift) & mask] += 1
    total = 0
    for value in range(len(places)):
        places[value], total = total, total + places[value]
    for i in range(len(keys)):
        value = (keys[i] >> shift) & mask
        keys_out[places[value]], order_out[places[value]] = keys[i], order[i]
        places[value] += 1


@kernel
def group_by_class(order, classes, n_groups):
    """`order` sorted by class, else unchanged, and where each class begins (n_groups + 1). Classes are 0..n_groups-1."""
    starts = np.zeros(n_groups + 1, np.int64)
    for label in classes:
        starts[label + 1] += 1
    for g in range(n_groups):
        starts[g + 1] += starts[g]
    grouped, free = np.empty(len(order), np.int64), starts.copy()
    for i in order:
        grouped[free[classes[i]]] = i
        free[classes[i]] += 1
    return grouped, starts
