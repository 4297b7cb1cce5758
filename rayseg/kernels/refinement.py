"""Clean-up of masks, on their runs: small holes filled, small islands dropped, one part kept, outlines smoothed.

Parts of a mask are connected by pixel edges, or by corners too with `diagonal=True`; its holes are then connected the other
way, so that a part and the hole around it never cross.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.components import column_pieces, label_pieces, part_areas
from rayseg.kernels.rle_codec import MAX_DIGITS, decompress_counts, fill_runs, put_edges, reserved
from rayseg.kernels.rles import Rles


def fill_holes(rles: Rles, under_area: float, *, diagonal: bool = False) -> Rles:
    """The masks with holes of fewer than `under_area` pixels filled. What touches the image's border is no hole."""
    return _refined(rles, _FILL, under_area, diagonal)


def drop_islands(rles: Rles, under_area: float, *, diagonal: bool = False) -> Rles:
    """The masks without parts of fewer than `under_area` pixels. A mask of such parts only becomes empty."""
    return _refined(rles, _DROP, under_area, diagonal)


def keep_largest(rles: Rles, *, diagonal: bool = False) -> Rles:
    """The largest part of each mask, the first in column order of equal ones."""
    return _refined(rles, _LARGEST, 0.0, diagonal)


def smooth(rles: Rles, radius: int) -> Rles:
    """The masks after a vote: each pixel becomes what most pixels in the square of 2 * radius + 1 around it are.

    Only pixels of the image vote; a tie changes nothing. Raises ValueError for a radius that is not a whole number >= 0.
    """
    if int(radius) != radius or radius < 0:
        raise ValueError(f"radius must be a whole number of pixels >= 0, found {radius}")
    counts, offsets = _smoothed(rles.counts, rles.offsets, *rles.image_hw, int(radius))
    return Rles(counts, offsets, rles.image_hw)


_FILL, _DROP, _LARGEST = 0, 1, 2


def _refined(rles: Rles, step: int, under_area: float, diagonal: bool) -> Rles:
    height, width = rles.image_hw
    counts, offsets = _refine(rles.counts, rles.offsets, height, width, step, float(under_area), bool(diagonal))
    return Rles(counts, offsets, rles.image_hw)


@kernel
def _refine(counts, offsets, height, width, step, under_area, diagonal):
    """Counts and offsets of all masks after one step."""
    runs, run_offsets = decompress_counts(counts, offsets)
    out, out_offsets = np.empty(len(counts) + 64, np.uint8), np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        mask_runs = runs[run_offsets[i] : run_offsets[i + 1]]
        pieces = column_pieces(mask_runs, max(height, 1), 1)
        if step == 0:
            holes = column_pieces(mask_runs, max(height, 1), 0)
            edges = _both(pieces, holes[_small_holes(holes, height, width, under_area, not diagonal)], height)
        else:
            labels, n_parts = label_pieces(pieces, diagonal)
            areas = part_areas(pieces, labels, n_parts)
            stays = areas >= under_area
            if step == 2 and n_parts > 0:
                stays = np.arange(n_parts) == np.argmax(areas)
            edges = _both(pieces[stays[labels]], pieces[:0], height)
        out = reserved(out, out_offsets[i], (len(edges) + 2) * MAX_DIGITS)
        out_offsets[i + 1] = put_edges(out, out_offsets[i], edges, height * width)
    return out[: out_offsets[-1]].copy(), out_offsets


@kernel
def _small_holes(pieces, height, width, under_area, diagonal):
    """Which pieces of the background (P,) belong to holes below the area."""
    labels, n_parts = label_pieces(pieces, diagonal)
    small = part_areas(pieces, labels, n_parts) < under_area
    for k in range(len(pieces)):
        x, y1, y2 = pieces[k, 0], pieces[k, 1], pieces[k, 2]
        if x == 0 or x == width - 1 or y1 == 0 or y2 == height:
            small[labels[k]] = False
    return small[labels]


@kernel
def _both(first, second, height):
    """Edges of the pieces of two disjoint sets, each in column order."""
    edges = np.empty(2 * (len(first) + len(second)), np.int64)
    a, b = 0, 0
    for k in range(len(first) + len(second)):
        if b == len(second) or (
            a < len(first) and first[a, 0] * height + first[a, 1] < second[b, 0] * height + second[b, 1]
        ):
            piece = first[a]
            a += 1
        else:
            piece = second[b]
            b += 1
        edges[2 * k], edges[2 * k + 1] = piece[0] * height + piece[1], piece[0] * height + piece[2]
    return edges


@kernel
def _smoothed(counts, offsets, height, width, radius):
    """Counts and offsets of all masks after the vote, each in the columns it covers and `radius` more."""
    runs, run_offsets = decompress_counts(counts, offsets)
    out, out_offsets = np.empty(len(counts) + 64, np.uint8), np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        edges = np.empty(0, np.int64)
        mask_runs = runs[run_offsets[i] : run_offsets[i + 1]]
        if len(mask_runs) > 1:
            ones = mask_runs[1 : len(mask_runs) - len(mask_runs) % 2].sum()
            x1 = max(mask_runs[0] // height - radius, 0)
            x2 = min((mask_runs[0] + ones - 1) // height + 1 + radius, width)
            edges = _voted(mask_runs, height, x1, x2, width, radius)
        out = reserved(out, out_offsets[i], (len(edges) + 2) * MAX_DIGITS)
        out_offsets[i + 1] = put_edges(out, out_offsets[i], edges, height * width)
    return out[: out_offsets[-1]].copy(), out_offsets


@kernel
def _voted(runs, height, x1, x2, width, radius):
    """Edges of one mask after the vote, in columns x1 to x2."""
    flat = np.zeros((x2 - x1) * height, np.uint8)
    shifted = runs.copy()
    shifted[0] -= x1 * height
    fill_runs(shifted, flat)
    mask = flat.reshape(x2 - x1, height)
    votes = np.zeros(height, np.int64)  # ones within radius columns, for each row
    edges, found = np.empty(1024, np.int64), 0
    for x in range(x1, min(x1 + radius, x2)):
        votes += mask[x - x1]
    for x in range(x1, x2):
        if x + radius < x2:
            votes += mask[x + radius - x1]
        if x - radius - 1 >= x1:
            votes -= mask[x - radius - 1 - x1]
        columns = min(x + radius + 1, width) - max(x - radius, 0)
        edges = reserved(edges, found, height + 2)
        total, inside = np.int64(0), False
        for y in range(min(radius, height)):
            total += votes[y]
        for y in range(height):
            total += votes[y + radius] if y + radius < height else 0
            total -= votes[y - radius - 1] if y - radius - 1 >= 0 else 0
            pixels = columns * (min(y + radius + 1, height) - max(y - radius, 0))
            now = mask[x - x1, y] == 1 if 2 * total == pixels else 2 * total > pixels
            if now != inside:
                edges[found] = x * height + y
                found += 1
                inside = now
        if inside:
            edges[found] = (x + 1) * height
            found += 1
    return edges[:found]
