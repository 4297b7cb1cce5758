"""Where a bilinearly enlarged grid crosses a threshold, found per source cell instead of per pixel.

A column of the image lies between two columns of the grid. Along it the surface is linear inside each grid cell, so a
cell holds at most one crossing, and a cell whose four corners lie on one side holds none in any of its columns: those
are passed over. A crossing is computed directly; only where it falls too close to a pixel's centre to be sure of the
float32 rounding is that pixel evaluated with torch's exact formula (`bilinear`). So the work grows with the length of
the outline, and the result is that of the dense computation, bit for bit.

An edge is a flat column-major index (x * H + y) where the mask changes. C columns and R rows of the grid.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rayseg.kernels.bilinear import SMALL_OUTPUT, blend_four, blend_two, neighbour
from rayseg.kernels.compilation import kernel

# The sides of the threshold on which a corner may lie; cells hold the union of their corners'.
_ABOVE, _BELOW, _BOTH = np.uint8(1), np.uint8(2), np.uint8(3)

# Bounds on float32 rounding with a margin of about 4: of a blended value, relative to the grid's largest; of a source
# position, relative to the grid's height.
_VALUE_ERROR = 1e-6
_POSITION_ERROR = 1e-6


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


@kernel
def window_of(place, clip):
    """The `Window` of a grid over rectangle `place`, cut to rectangle `clip` (both x1, y1, x2, y2, ends left out)."""
    width, height = place[2] - place[0], place[3] - place[1]
    x1, y1 = max(place[0], clip[0]), max(place[1], clip[1])
    x2, y2 = min(place[2], clip[2]), min(place[3], clip[3])
    return Window(width, height, place[0], place[1], x1, y1, x2, y2, width + height <= SMALL_OUTPUT)


@kernel
def grid_edges(grid, window, threshold, image_height, edges):
    """Edges of one mask from its grid (C, R) float32, given column by column.

    `edges` is a scratch int64 array. Returns it, or a longer one where it was too short, and the number of edges in it.
    """
    if window.x1 >= window.x2 or window.y1 >= window.y2:
        return edges, 0
    largest = np.float32(0)
    finite = True
    for value in grid.flat:
        size = abs(value)
        finite &= size < np.inf
        largest = max(largest, size)
    margin = np.float32(_VALUE_ERROR) * max(largest, abs(threshold))
    count = 0
    sides = _corner_sides(grid, threshold, margin)
    cells = _row_cells(grid.shape[1], window)
    active = np.empty(grid.shape[1], np.int64)
    n_active, starts_inside, strip = 0, False, np.int64(-1)
    room = 2 * (window.y2 - window.y1) + 2
    for x in range(window.x1, window.x2):
        if count + room > len(edges):
            edges = _grown(edges, count, room)
        left, weight = neighbour(grid.shape[0], window.width, x - window.left, window.small)
        right = min(left + 1, grid.shape[0] - 1)
        if not finite:
            count = _dense_column(grid, window, threshold, x, x * image_height, edges, count)
            continue
        if left != strip:
            strip = left
            n_active, starts_inside = _active_cells(sides[left], sides[right], cells, window, active)
        if n_active == 0 and not starts_inside:
            continue
        count = _column(
            grid[left], grid[right], weight, window, threshold, margin,
            cells, active[:n_active], starts_inside, x * image_height, edges, count,
        )  # fmt: skip
    return edges, count


@kernel
def _grown(edges, count, room):
    longer = np.empty(2 * (count + room), np.int64)
    longer[:count] = edges[:count]
    return longer


@kernel
def _corner_sides(grid, threshold, margin):
    """For each corner the sides of the threshold on which it may lie, (C, R) uint8."""
    sides = np.empty(grid.shape, np.uint8)
    low, high = threshold - margin, threshold + margin
    for c in range(grid.shape[0]):
        for r in range(grid.shape[1]):
            value = grid[c, r]
            sides[c, r] = _ABOVE if value >= high else (_BELOW if value < low else _BOTH)
    return sides


class RowCells(NamedTuple):
    """The grid's rows seen from the image: cell r (between rows r and r + 1) holds pixels `starts[r]` to `starts[r + 1]`.

    Row r lies at image row `bases[r] + fractions[r]`; a source row is `pixels` image rows high.
    """

    first: int
    last: int
    starts: np.ndarray  # (R + 1,) int64
    bases: np.ndarray  # (R,) int64
    fractions: np.ndarray  # (R,) float32
    pixels: np.float32


@kernel
def _row_cells(rows, window):
    """`RowCells` of the visible rows; cells outside hold no pixel."""
    starts = np.empty(rows + 1, np.int64)
    bases = np.empty(rows, np.int64)
    fractions = np.empty(rows, np.float32)
    pixels = window.height / rows
    first = neighbour(rows, window.height, window.y1 - window.top, window.small)[0]
    last = neighbour(rows, window.height, window.y2 - 1 - window.top, window.small)[0]
    for r in range(rows):
        centre = (r + 0.5) * pixels - 0.5
        base = math.floor(centre)
        bases[r] = np.int64(base) + window.top
        fractions[r] = np.float32(centre - base)
        y = min(max(bases[r], window.y1), window.y2)
        while y > window.y1 and neighbour(rows, window.height, y - 1 - window.top, window.small)[0] >= r:
            y -= 1
        while y < window.y2 and neighbour(rows, window.height, y - window.top, window.small)[0] < r:
            y += 1
        starts[r] = y
    starts[rows] = window.y2
    return RowCells(first, last, starts, bases, fractions, np.float32(pixels))


@kernel
def _active_cells(left_sides, right_sides, cells, window, active):
    """Cells of one strip of columns in which the mask may change; returns their number and whether it starts inside."""
    rows = len(left_sides)
    every = rows * 10 > window.height * 9  # not enlarged: a cell may hold no pixel, so none can vouch for the next
    count = 0
    starts_inside = False
    above = left_sides[cells.first] | right_sides[cells.first]
    for r in range(cells.first, cells.last + 1):
        following = min(r + 1, rows - 1)
        below = left_sides[following] | right_sides[following]
        sides = above | below
        if r == cells.first and sides == _ABOVE:
            starts_inside = True
        if (sides == _BOTH or every) and cells.starts[r] < cells.starts[r + 1]:
            active[count] = r
            count += 1
        above = below
    return count, starts_inside


@kernel
def _put(edges, count, edge):
    """Append an edge; one at the place of the last takes both away. Returns the new count."""
    if count > 0 and edges[count - 1] == edge:
        return count - 1
    edges[count] = edge
    return count + 1


@kernel
def _column(left, right, weight, window, threshold, margin, cells, active, starts_inside, origin, edges, count):
    """Edges of one column of pixels between the grid columns `left` and `right`; `origin` is its flat index at y = 0."""
    rows = len(left)
    one = np.float32(1)
    inverse = one - weight
    inside = starts_inside
    if inside:
        count = _put(edges, count, origin + window.y1)
    for r in active:
        following = min(r + 1, rows - 1)
        start, end = cells.starts[r], cells.starts[r + 1]
        top = blend_two(left[r], right[r], weight)
        bottom = blend_two(left[following], right[following], weight)
        from_top, from_bottom = threshold - top, threshold - bottom
        if abs(from_top) > margin and abs(from_bottom) > margin:
            top_inside, bottom_inside = from_top < 0, from_bottom < 0
            if top_inside != inside:
                count = _put(edges, count, origin + start)
                inside = top_inside
            if top_inside == bottom_inside:
                continue
            slope = one / (bottom - top)
            crossing = cells.fractions[r] + from_top * slope * cells.pixels
            doubt = cells.pixels * (np.float32(_POSITION_ERROR) * np.float32(rows) + margin * abs(slope))
            pixel = np.int64(math.ceil(crossing)) + cells.bases[r]
            nearest = np.int64(np.rint(crossing)) + cells.bases[r]
            if abs(crossing - np.rint(crossing)) <= doubt:
                if doubt >= np.float32(0.5):
                    pixel = -1
                elif start <= nearest < end:
                    pixel = nearest
                    exact = _pixel(left, right, weight, window, nearest)
                    if (exact >= threshold) == top_inside:
                        pixel += 1
            if pixel >= 0:
                count = _put(edges, count, origin + min(max(pixel, start), end))
                inside = bottom_inside
                continue
        for y in range(start, end):
            if (_pixel(left, right, weight, window, y) >= threshold) != inside:
                count = _put(edges, count, origin + y)
                inside = not inside
    if inside:
        count = _put(edges, count, origin + window.y2)
    return count


@kernel
def _pixel(left, right, weight, window, y):
    """torch's value of pixel `y` in the column between grid columns `left` and `right`."""
    rows = len(left)
    r, down = neighbour(rows, window.height, y - window.top, window.small)
    following = min(r + 1, rows - 1)
    if window.small:
        return blend_four(left[r], right[r], left[following], right[following], weight, down)
    top = blend_two(left[r], right[r], weight)
    return blend_two(top, blend_two(left[following], right[following], weight), down)


@kernel
def _dense_column(grid, window, threshold, x, origin, edges, count):
    """Edges of one column of a grid with infinite or NaN values, pixel by pixel."""
    columns, rows = grid.shape
    left, weight = neighbour(columns, window.width, x - window.left, window.small)
    right = left if columns == window.width else min(left + 1, columns - 1)
    inside = False
    for y in range(window.y1, window.y2):
        r, down = neighbour(rows, window.height, y - window.top, window.small)
        following = r if rows == window.height else min(r + 1, rows - 1)
        if window.small:
            value = blend_four(
                grid[left, r], grid[right, r], grid[left, following], grid[right, following], weight, down
            )
        else:
            top = blend_two(grid[left, r], grid[right, r], weight)
            value = blend_two(top, blend_two(grid[left, following], grid[right, following], weight), down)
        if (value >= threshold) != inside:
            count = _put(edges, count, origin + y)
            inside = not inside
    if inside:
        count = _put(edges, count, origin + window.y2)
    return count
