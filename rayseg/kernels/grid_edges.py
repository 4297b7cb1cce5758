"""Where a bilinearly enlarged grid crosses a threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rayseg.kernels.bilinear import SMALL_OUTPUT, neighbour, pixel_value
from rayseg.kernels.compilation import kernel


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
    """Edges of one mask from its grid (C, R) float32, given column by column."""
    if window.x1 >= window.x2 or window.y1 >= window.y2:
        return edges, 0
    count = 0
    room = 2 * (window.y2 - window.y1) + 2
    columns = grid.shape[0]
    for x in range(window.x1, window.x2):
        if count + room > len(edges):
            longer = np.empty(2 * (count + room), np.int64)
            longer[:count] = edges[:count]
            edges = longer
        left, weight = neighbour(columns, window.width, x - window.left, window.small)
        right = left if columns == window.width or left + 1 == columns else left + 1
        inside = False
        for y in range(window.y1, window.y2):
            value = pixel_value(grid, left, right, weight, window.height, y - window.top, window.small)
            if (value >= threshold) != inside:
                count = _put(edges, count, x * image_height + y)
                inside = not inside
        if inside:
            count = _put(edges, count, x * image_height + window.y2)
    return edges, count


@kernel
def _put(edges, count, edge):
    if count > 0 and edges[count - 1] == edge:
        return count - 1
    edges[count] = edge
    return count + 1
