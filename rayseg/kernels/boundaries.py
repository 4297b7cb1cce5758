"""Boundaries of masks, on run lengths: the pixels of a mask that lie within a distance of its outline.

A pixel is inner where the square of 2 d + 1 pixels around it lies in the mask (beyond the image's border nothing does);
the boundary is what is not inner. Columns are eroded upwards and downwards, then each is cut with its d neighbours on
either side, by windows that double: no pixel is touched. Cheng et al., "Boundary IoU", 2021, whose reference erodes dense
masks d times by 3 x 3.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.rle_codec import MAX_DIGITS, decompress_counts, put_edges, reserved
from rayseg.kernels.rles import Rles


def boundaries(rles: Rles, distance: int) -> Rles:
    """The boundary of every mask, `distance` pixels wide. Raises ValueError for a distance below 1."""
    if distance < 1:
        raise ValueError(f"distance must be 1 pixel or more, found {distance}")
    n, hw = len(rles), rles.image_hw
    owners, heights, widths = np.zeros(n, np.int64), np.array([hw[0]]), np.array([hw[1]])
    counts, offsets = boundary_counts(rles.counts, rles.offsets, owners, heights, widths, np.array([distance]))
    return Rles(counts, offsets, hw)


@kernel
def boundary_counts(counts, offsets, owners, heights, widths, distances):
    """Bytes and offsets (N + 1) of the boundaries of N masks of several images.

    Mask i is of image `owners[i]`, whose sides and distance in pixels stand in the last three arguments.
    """
    n = len(owners)
    out, out_offsets = np.empty(len(counts) * 2 + 64, np.uint8), np.zeros(n + 1, np.int64)
    for i in range(n):
        height, width, distance = heights[owners[i]], widths[owners[i]], distances[owners[i]]
        edges = _edges(counts, offsets[i : i + 2])
        inner = _inner_edges(edges, max(height, 1), distance)
        if len(inner) == 0:
            length = offsets[i + 1] - offsets[i]
            out = reserved(out, out_offsets[i], length)
            out[out_offsets[i] : out_offsets[i] + length] = counts[offsets[i] : offsets[i + 1]]
            out_offsets[i + 1] = out_offsets[i] + length
            continue
        both = _merged(edges, inner)
        out = reserved(out, out_offsets[i], (len(both) + 2) * MAX_DIGITS)
        out_offsets[i + 1] = put_edges(out, out_offsets[i], both, height * width)
    return out[: out_offsets[n]].copy(), out_offsets


@kernel
def _edges(counts, offsets):
    """Flat indices where one mask begins and ends, in turn."""
    runs, _ = decompress_counts(counts, offsets)
    edges = np.empty(len(runs) + 1, np.int64)
    position, found = np.int64(0), 0
    for k in range(len(runs)):
        if k % 2 == 1 and runs[k] > 0:
            edges[found], edges[found + 1] = position, position + runs[k]
            found += 2
        position += runs[k]
    return edges[:found]


@kernel
def _inner_edges(edges, height, distance):
    """The edges of what is farther than `distance` from the outline."""
    nothing = np.empty(0, np.int64)
    if len(edges) == 0:
        return nothing
    first = edges[0] // height
    columns = (edges[-1] - 1) // height + 1 - first
    reach = 2 * distance + 1
    if columns < reach or height < reach:
        return nothing
    starts, tops, bottoms = _shortened(edges, first, columns, height, distance)
    window = 1
    while window < reach and len(tops) > 0:
        step = min(window, reach - window)
        starts, tops, bottoms = _cut(starts, tops, bottoms, step)
        window += step
    inner = np.empty(2 * len(tops), np.int64)
    for x in range(len(starts) - 1):
        for k in range(starts[x], starts[x + 1]):
            inner[2 * k] = (first + distance + x) * height + tops[k]
            inner[2 * k + 1] = (first + distance + x) * height + bottoms[k]
    return inner


@kernel
def _shortened(edges, first, columns, height, distance):
    """Spans by column from `first`, shorter by `distance` at both ends: column offsets, tops and bottoms."""
    room = len(edges) // 2 + columns
    starts, tops, bottoms = np.zeros(columns + 1, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    count, column = 0, np.int64(0)
    for k in range(0, len(edges), 2):
        begin, end = edges[k], edges[k + 1]
        while begin < end:
            x = begin // height
            while column < x - first:
                column += 1
                starts[column] = count
            stop = min(end, (x + 1) * height)
            top, bottom = begin - x * height + distance, stop - x * height - distance
            if top < bottom:
                tops[count], bottoms[count] = top, bottom
                count += 1
            begin = stop
    starts[column + 1 :] = count
    return starts, tops[:count], bottoms[:count]


@kernel
def _cut(starts, tops, bottoms, step):
    """Every column's spans with those of the column `step` to its right; the last `step` columns go."""
    columns = max(len(starts) - 1 - step, 0)
    new_starts = np.zeros(columns + 1, np.int64)
    new_tops, new_bottoms = np.empty(2 * len(tops), np.int64), np.empty(2 * len(tops), np.int64)
    count = 0
    for x in range(columns):
        a, b = starts[x], starts[x + step]
        while a < starts[x + 1] and b < starts[x + step + 1]:
            top, bottom = max(tops[a], tops[b]), min(bottoms[a], bottoms[b])
            if top < bottom:
                new_tops[count], new_bottoms[count] = top, bottom
                count += 1
            if bottoms[a] < bottoms[b]:
                a += 1
            else:
                b += 1
        new_starts[x + 1] = count
    return new_starts, new_tops[:count], new_bottoms[:count]


@kernel
def _merged(first, second):
    """Two rising lists as one."""
    merged = np.empty(len(first) + len(second), np.int64)
    a = b = 0
    for k in range(len(merged)):
        if b == len(second) or (a < len(first) and first[a] <= second[b]):
            merged[k] = first[a]
            a += 1
        else:
            merged[k] = second[b]
            b += 1
    return merged
