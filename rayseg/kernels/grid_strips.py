"""The strips of a grid, one after the other: which cells may change, where they do, and the edges that makes.

A strip is the image's columns between two columns of the grid. Names as in `grid_edges`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rayseg.kernels.bilinear import SMALL_OUTPUT, neighbour
from rayseg.kernels.compilation import kernel
from rayseg.kernels.grid_cells import CROSSING_ERROR, POSITION_ERROR, UNSURE, cell_crossings, cell_pixels
from rayseg.kernels.intrinsics import trailing_zeros
from rayseg.kernels.rle_codec import reserved

_GROUP = 8  # columns go through the arithmetic in whole vector registers


class Window(NamedTuple):
    """A grid's output size, where it begins in the image, and the part of the image (x1, y1, x2, y2) that shows."""

    width: int
    height: int
    left: int
    top: int
    x1: int
    y1: int
    x2: int
    y2: int
    small: bool


class Scratch(NamedTuple):
    """Arrays used again for all grids of a call; W columns of the image, K words of 64 grid rows."""

    firsts: np.ndarray  # (W,) int32, the grid column left of each image column
    weights: np.ndarray  # (W + _GROUP,) float32, of the one right of it
    above: np.ndarray  # (C, K) uint64, a bit for each corner that may lie above the threshold
    below: np.ndarray  # (C, K) uint64, a bit for each corner that may lie below
    active: np.ndarray  # (R,) int64, the cells of a strip in which the mask may change
    starts: np.ndarray  # (R + 1,) int32, first image row of each cell
    bases: np.ndarray  # (R,) int32 and float32 (R,): the image row at which each grid row lies
    fractions: np.ndarray
    crossings: np.ndarray  # (R * (W + _GROUP),) int32, of the active cells, one cell after the other


@kernel
def window_of(place, clip):
    """The `Window` of a grid over rectangle `place`, cut to rectangle `clip` (both x1, y1, x2, y2, ends left out)."""
    width, height = place[2] - place[0], place[3] - place[1]
    x1, y1 = max(place[0], clip[0]), max(place[1], clip[1])
    x2, y2 = min(place[2], clip[2]), min(place[3], clip[3])
    return Window(width, height, place[0], place[1], x1, y1, x2, y2, width + height <= SMALL_OUTPUT)


@kernel
def new_scratch(columns, rows, image_width):
    """`Scratch` for grids (C, R) in an image of that width."""
    words = (rows + 63) // 64
    return Scratch(
        np.empty(image_width, np.int32),
        np.zeros(image_width + _GROUP, np.float32),
        np.empty((columns, words), np.uint64),
        np.empty((columns, words), np.uint64),
        np.empty(rows, np.int64),
        np.empty(rows + 1, np.int32),
        np.empty(rows, np.int32),
        np.empty(rows, np.float32),
        np.empty(rows * (image_width + _GROUP), np.int32),
    )


@kernel
def walk_strips(grid, window, threshold, margin, image_height, scratch, edges):
    """Edges of all strips. Returns `edges`, or a longer array where they did not fit, and their number."""
    firsts, weights, above, below, active, starts, bases, fractions, crossings = scratch
    rows, shown = grid.shape[1], window.x2 - window.x1
    row_pixels = np.float32(window.height / rows)
    doubt = row_pixels * (POSITION_ERROR * np.float32(rows) + CROSSING_ERROR) + np.float32(1e-6)
    tolerance = (threshold, margin, row_pixels, doubt)
    first = np.int64(neighbour(rows, window.height, np.int32(window.y1 - window.top), window.small)[0])
    last = np.int64(neighbour(rows, window.height, np.int32(window.y2 - 1 - window.top), window.small)[0])
    count, begin = 0, 0
    while begin < shown:
        left = np.int64(firsts[begin])
        right = min(left + 1, grid.shape[0] - 1)
        end = begin + 1
        while end < shown and firsts[np.uint64(end)] == left:
            end += 1
        found = _active_cells(above, below, left, right, first, last, active)
        state = _state(above, below, left, right, first)
        if found > 0 or state > 0:
            columns = end - begin
            unsure = _strip_crossings(
                grid,
                left,
                right,
                active,
                found,
                columns,
                starts,
                bases,
                fractions,
                weights,
                begin,
                tolerance,
                crossings,
            )
            careful = unsure or state < 0
            room = columns * (found + 3 + (window.y2 - window.y1 if careful else 0))
            if count + room > len(edges):
                edges = reserved(edges, count, room)
            origin = (window.x1 + begin) * image_height
            if careful:
                count = _careful_edges(
                    grid, left, weights, begin, columns, active, found, starts, crossings, state, threshold, window, origin,
                    image_height, edges, count,
                )  # fmt: skip
            else:
                rims = (state > 0, window.y1, window.y2)
                count = _quick_edges(crossings, found, columns, rims, origin, image_height, edges, count)
        begin = end
    return edges, count


@kernel
def _active_cells(above, below, left, right, first, last, active):
    """Cells `first` to `last` between two grid columns in which the mask may change; returns their number."""
    found = 0
    one, top = np.uint64(1), np.uint64(63)
    for word in range(first // 64, last // 64 + 1):
        up, down = above[left, word] | above[right, word], below[left, word] | below[right, word]
        next_up, next_down = np.uint64(0), np.uint64(0)
        if word + 1 < above.shape[1]:
            next_up = above[left, word + 1] | above[right, word + 1]
            next_down = below[left, word + 1] | below[right, word + 1]
        changing = (up | (up >> one) | (next_up << top)) & (down | (down >> one) | (next_down << top))
        while changing != 0:
            r = 64 * word + trailing_zeros(changing)
            changing &= changing - one
            if first <= r <= last:
                active[found] = r
                found += 1
    return found


@kernel
def _state(above, below, left, right, row):
    """Whether a strip lies inside (1), outside (0), or differently in its columns (-1) at a grid row."""
    word, bit = row // 64, np.uint64(1) << np.uint64(row % 64)
    up = (above[left, word] | above[right, word]) & bit != 0
    down = (below[left, word] | below[right, word]) & bit != 0
    return -1 if up and down else (1 if up else 0)


@kernel
def _strip_crossings(
    grid, left, right, active, found, columns, starts, bases, fractions, weights, begin, tolerance, out
):
    """Crossings of the active cells, cell after cell in `out`, in whole groups of columns; returns whether one is unsure.

    tolerance  threshold, doubt about a value, pixels in a grid row, doubt about a crossing in pixels
    """
    threshold, margin, row_pixels, doubt = tolerance
    whole_groups = (columns + _GROUP - 1) // _GROUP * _GROUP
    unsure = False
    for k in range(found):
        r = np.uint64(active[np.uint64(k)])
        low = np.uint64(min(np.int64(r) + 1, grid.shape[1] - 1))
        corners = (
            grid[left, r] - threshold, grid[right, r] - threshold, grid[left, low] - threshold,
            grid[right, low] - threshold,
        )  # fmt: skip
        place = (bases[r], fractions[r], starts[r], starts[r + np.uint64(1)])
        unsure |= cell_crossings(
            corners, weights, begin, whole_groups, row_pixels, doubt, margin, place, out, k * whole_groups
        )
    return unsure


@kernel
def _quick_edges(crossings, found, columns, rims, origin, step, edges, count):
    """Edges of a strip whose crossings are all sure; returns their count so far.

    rims    whether each column begins inside, its first row and its end row
    origin  flat index of the first column's row 0; `step` leads to the next column's
    """
    begins_inside, first_row, end_row = rims
    stride = np.uint64((columns + _GROUP - 1) // _GROUP * _GROUP)
    for j in range(columns):
        outset = count
        if begins_inside:
            edges[np.uint64(count)] = origin + first_row
            count += 1
        at = np.uint64(j)
        for _ in range(found):
            row = np.int64(crossings[at])
            at += stride
            edges[np.uint64(count)] = origin + row  # written in any case, counted where it is one: no branch to guess
            count += row >= 0
        edges[np.uint64(count)] = origin + end_row
        count += (count - outset) & 1
        origin += step
    return count


@kernel
def _careful_edges(
    grid, left, weights, begin, columns, active, found, starts, crossings, state, threshold, window, origin, step, edges, count
):  # fmt: skip
    """Edges of a strip some of whose crossings are unsure, or that begins differently in its columns (state -1)."""
    stride = (columns + _GROUP - 1) // _GROUP * _GROUP
    for j in range(columns):
        outset = count
        if state > 0:
            edges[count] = origin + window.y1
            count += 1
        for k in range(found):
            row = np.int64(crossings[k * stride + j])
            if row == UNSURE or (k == 0 and state < 0):
                r = active[k]
                count = cell_pixels(
                    grid, left, r, weights[begin + j], window, threshold, (starts[r], starts[r + 1]),
                    (count - outset) % 2 == 1, origin, edges, count,
                )  # fmt: skip
            elif row >= 0:
                edges[count] = origin + row
                count += 1
        if (count - outset) % 2 == 1:
            edges[count] = origin + window.y2
            count += 1
        origin += step
    return count
