"""Dense masks and instance-id maps to RLE, by looking only at where neighbouring rows differ.

A column-major run ends where a pixel differs from the one above it. Images lie row by row, so whole rows are compared with
the row above in vector registers, and only blocks that differ are looked into; what is found is then put in column order.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.intrinsics import trailing_zeros, word_at
from rayseg.kernels.rle_codec import MAX_DIGITS, put_edges, reserved
from rayseg.kernels.rles import Rles

_BLOCK = 128  # pixels compared at once
_WORD = 8  # and within a block that differs
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH = np.uint64(0x8080808080808080)


def encode(masks: np.ndarray) -> Rles:
    """RLEs of masks (N, H, W) bool or uint8, any non-zero pixel being inside: pycocotools' encode for masks of 0 and 1.

    Fastest where each mask lies row by row (C order) or column by column, as pycocotools' decode gives it.
    Raises ValueError for another shape, TypeError for another dtype.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, H, W), found {masks.shape}")
    if masks.dtype not in (np.bool_, np.uint8):
        raise TypeError(f"masks must be bool or uint8, found {masks.dtype}")
    n, height, width = masks.shape
    pixels = masks.view(np.uint8)
    turned = pixels.transpose(0, 2, 1)
    if turned.flags.c_contiguous and not pixels.flags.c_contiguous:
        counts, offsets = _encode_columns(turned.reshape(n, height * width), height * width)
    else:
        flat = np.ascontiguousarray(pixels).reshape(n, height * width)
        counts, offsets = _encode_rows(flat, height, width)
    return Rles(counts, offsets, (height, width))


def encode_id_map(ids: np.ndarray, background: int = 0) -> tuple[np.ndarray, Rles]:
    """All instances of an id map (H, W) of any integer dtype in one pass: their ids, rising, and their RLEs.

    Each value but `background` is one instance, connected or not, as in Cityscapes' instanceIds, VOC's SegmentationObject
    and panoptic maps. Ids come as (N,) int64. Raises ValueError for another shape, TypeError for another dtype.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2:
        raise ValueError(f"an id map must be (H, W), found {ids.shape}")
    if ids.dtype.kind not in "iu" or ids.dtype == np.uint64:
        raise TypeError(f"an id map must hold integers up to int64, found {ids.dtype}")
    height, width = ids.shape
    if ids.size == 0:
        return np.empty(0, np.int64), Rles.empty((height, width))
    places, before, after = _id_changes(np.ascontiguousarray(ids).reshape(-1), height, width, np.int64(background))
    names = np.unique(after)
    names = names[names != background]
    counts, offsets = _encode_changes(
        places, np.searchsorted(names, before), np.searchsorted(names, after),
        before == background, after == background, len(names), height * width,
    )  # fmt: skip
    return names, Rles(counts, offsets, (height, width))


@kernel
def _encode_rows(masks, height, width):
    """Counts and offsets of masks (N, H * W) uint8 that lie row by row."""
    counts, offsets = np.empty(4096, np.uint8), np.zeros(len(masks) + 1, np.int64)
    places, edges = np.empty(4096, np.int64), np.empty(4096, np.int64)
    ends = np.empty(width + 1, np.int64)
    for i in range(len(masks)):
        places, found = _row_changes(masks[i], height, width, places)
        edges = reserved(edges, 0, found)
        _column_order(places, found, height, width, ends, edges)
        counts = reserved(counts, offsets[i], (found + 2) * MAX_DIGITS)
        offsets[i + 1] = put_edges(counts, offsets[i], edges[:found], height * width)
    return counts[: offsets[-1]].copy(), offsets


@kernel
def _row_changes(mask, height, width, places):
    """Pixels that differ from the one above, row by row, as y * W + x; a top pixel's is the bottom of the column before.

    Returns `places` (int64), or a longer array where they did not fit, and their number.
    """
    found = 0
    below = np.uint64((height - 1) * width)
    places = reserved(places, 0, width)
    for x in range(width if height > 0 else 0):
        previous = x > 0 and mask[below + np.uint64(x) - np.uint64(1)] != 0
        if (mask[x] != 0) != previous:
            places[found] = x
            found += 1
    for y in range(1, height):
        places = reserved(places, found, width)
        row = np.uint64(y * width)
        for begin in range(0, width, _BLOCK):
            here, length = row + np.uint64(begin), min(_BLOCK, width - begin)
            if length == _BLOCK and _same(mask, here, here - np.uint64(width)):
                continue
            found = _changes(mask, here, here - np.uint64(width), length, places, found)
    return places, found


@kernel
def _same(values, a, b):
    """Whether the `_BLOCK` bytes from index a equal those from index b."""
    differ = np.uint8(0)
    for k in range(np.uint64(_BLOCK)):
        differ = np.uint8(differ | (values[a + k] ^ values[b + k]))
    return differ == 0


@kernel
def _same_ids(raw, a, b, size):
    """The same for `_BLOCK` values of `size` bytes each."""
    for k in range(size):
        place = np.uint64(k) * np.uint64(_BLOCK)
        if not _same(raw, a + place, b + place):
            return False
    return True


@kernel
def _changes(mask, here, before, length, places, found):
    """Append to `places`, which has room, the indices of `length` from `here` that differ from those from `before`."""
    words = np.uint64(length) // np.uint64(_WORD)
    for k in range(words):
        a = here + np.uint64(k) * np.uint64(_WORD)
        one, other = word_at(mask, a), word_at(mask, before + np.uint64(k) * np.uint64(_WORD))
        if one == other:
            continue
        differ = _inside(one) ^ _inside(other)
        while differ != np.uint64(0):
            places[np.uint64(found)] = np.int64(a) + (trailing_zeros(differ) >> 3)
            found += 1
            differ &= differ - np.uint64(1)
    for k in range(words * np.uint64(_WORD), np.uint64(length)):
        a, b = here + np.uint64(k), before + np.uint64(k)
        places[np.uint64(found)] = np.int64(a)
        found += (mask[a] != 0) != (mask[b] != 0)
    return found


@kernel
def _inside(word):
    """The high bit of each byte that is not zero."""
    return (((word & _LOW) + _LOW) | word) & _HIGH


@kernel
def _column_order(places, found, height, width, ends, edges):
    """Sort changes from row order (y * W + x) to flat column-major indices x * H + y, by counting."""
    ends[:] = 0
    for k in range(found):
        ends[places[k] % width + 1] += 1
    for x in range(width):
        ends[x + 1] += ends[x]
    for k in range(found):
        y, x = divmod(places[k], width)
        edges[ends[x]] = x * height + y
        ends[x] += 1


@kernel
def _encode_columns(masks, size):
    """Counts and offsets of masks (N, H * W) uint8 that lie column by column."""
    counts, offsets = np.empty(4096, np.uint8), np.zeros(len(masks) + 1, np.int64)
    edges = np.empty(4096, np.int64)
    one = np.uint64(1)
    for i in range(len(masks)):
        mask, found = masks[i], 0
        if size > 0 and mask[0] != 0:
            edges[0] = 0
            found = 1
        for begin in range(1, size, _BLOCK):
            here, length = np.uint64(begin), min(_BLOCK, size - begin)
            if length == _BLOCK and _same(mask, here, here - one):
                continue
            edges = reserved(edges, found, _BLOCK)
            found = _changes(mask, here, here - one, length, edges, found)
        counts = reserved(counts, offsets[i], (found + 2) * MAX_DIGITS)
        offsets[i + 1] = put_edges(counts, offsets[i], edges[:found], size)
    return counts[: offsets[-1]].copy(), offsets


@kernel
def _id_changes(ids, height, width, background):
    """Where an id map changes, in column order: flat column-major indices, and the ids before and after (int64)."""
    places, found = np.empty(4096, np.int64), 0
    places = reserved(places, 0, width)
    raw, size = ids.view(np.uint8), np.uint64(ids.itemsize)
    for x in range(width):
        if ids[x] != (ids[(height - 1) * width + x - 1] if x > 0 else background):
            places[found] = x
            found += 1
    for y in range(1, height):
        places = reserved(places, found, width)
        row = np.uint64(y * width)
        for begin in range(0, width, _BLOCK):
            here, length = row + np.uint64(begin), min(_BLOCK, width - begin)
            if length == _BLOCK and _same_ids(raw, here * size, (here - np.uint64(width)) * size, size):
                continue
            for k in range(np.uint64(length)):
                places[found] = np.int64(here + k)
                found += ids[here + k] != ids[here + k - np.uint64(width)]
    edges, before, after = np.empty(found, np.int64), np.empty(found, np.int64), np.empty(found, np.int64)
    _column_order(places, found, height, width, np.empty(width + 1, np.int64), edges)
    current = background
    for k in range(found):
        x, y = divmod(edges[k], height)
        before[k], current = current, np.int64(ids[y * width + x])
        after[k] = current
    return edges, before, after


@kernel
def _encode_changes(places, before, after, from_nothing, to_nothing, n, size):
    """Counts and offsets of N instances; at each place one begins (index `after`) and one ends (`before`)."""
    starts = np.zeros(n + 1, np.int64)
    for k in range(len(places)):
        if not from_nothing[k]:
            starts[before[k] + 1] += 1
        if not to_nothing[k]:
            starts[after[k] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    edges, free = np.empty(starts[n], np.int64), starts.copy()
    for k in range(len(places)):
        if not from_nothing[k]:
            edges[free[before[k]]] = places[k]
            free[before[k]] += 1
        if not to_nothing[k]:
            edges[free[after[k]]] = places[k]
            free[after[k]] += 1
    counts, offsets = np.empty((len(edges) + 2 * n) * MAX_DIGITS, np.uint8), np.zeros(n + 1, np.int64)
    for i in range(n):
        offsets[i + 1] = put_edges(counts, offsets[i], edges[starts[i] : starts[i + 1]], size)
    return counts[: offsets[n]].copy(), offsets
