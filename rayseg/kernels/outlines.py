"""Outlines of masks along pixel edges, traced on the pieces of their columns (`components`).

A piece has a top and a bottom edge, one pixel wide. On the vertical line between two columns the ends of these edges,
sorted by y, pair up: between the two of a pair exactly one column is inside, so the outline runs there, or it goes straight
on where both lie at the same y. Following edges and pairs gives all rings in time linear in the pieces.

Rings run clockwise as seen on the screen around parts (y points down) and the other way around holes. Parts that touch
only at corners stay apart; so holes that do are one.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.components import column_pieces, label_pieces

_TOP_LEFT, _TOP_RIGHT, _BOTTOM_LEFT, _BOTTOM_RIGHT = 0, 1, 2, 3  # the ends of a piece's edges: 4 * piece + these


@kernel
def mask_rings(runs, height):
    """All rings of one mask: points (P, 2) int32, ring offsets (R + 1) and the part (R,) of each ring, all int64.

    Rings are sorted by part, a part's own outline first, then its holes.
    """
    pieces = column_pieces(runs, height, 1)
    labels, n_parts = label_pieces(pieces, False)
    partners = _link(pieces)
    points, offsets, parts = _trace(pieces, labels, partners)
    return _sorted_by_part(points, offsets, parts, n_parts)


@kernel
def _link(pieces):
    """The partner (4 P,) of each edge's end, on its vertical line."""
    n = len(pieces)
    partners = np.empty(4 * n, np.int64)
    begin, before, before_x = 0, 0, np.int64(-2)
    while begin < n:
        x, end = pieces[begin, 0], begin + 1
        while end < n and pieces[end, 0] == x:
            end += 1
        if before_x == x - 1:
            _link_line(pieces, before, begin, begin, end, partners)
        else:
            _link_line(pieces, before, begin, 0, 0, partners)
            _link_line(pieces, 0, 0, begin, end, partners)
        before, before_x, begin = begin, x, end
    _link_line(pieces, before, n, 0, 0, partners)
    return partners


@kernel
def _link_line(pieces, left, left_end, right, right_end, partners):
    """Pair the right ends of one column's edges and the left ends of the next column's, on the line between them."""
    a, b = 2 * left, 2 * right  # twice the piece, plus 1 for its bottom edge
    waiting = np.int64(-1)
    while a < 2 * left_end or b < 2 * right_end:
        ya = pieces[a // 2, 1 + a % 2] if a < 2 * left_end else np.int64(1 << 62)
        yb = pieces[b // 2, 1 + b % 2] if b < 2 * right_end else np.int64(1 << 62)
        # where both end at once inside a pair, the column that is inside closes it: parts part at corners
        from_left = ya < yb or (ya == yb and (waiting < 0 or a % 2 == 1))
        if from_left:
            tip = 4 * (a // 2) + (_BOTTOM_RIGHT if a % 2 == 1 else _TOP_RIGHT)
            a += 1
        else:
            tip = 4 * (b // 2) + (_BOTTOM_LEFT if b % 2 == 1 else _TOP_LEFT)
            b += 1
        if waiting < 0:
            waiting = tip
        else:
            partners[tip], partners[waiting] = waiting, tip
            waiting = np.int64(-1)


@kernel
def _trace(pieces, labels, partners):
    """Follow edges and partners around each ring; top edges lead right, bottom edges left."""
    n = len(pieces)
    points, count = np.empty((4 * n, 2), np.int32), 0
    offsets, parts, rings = np.zeros(n + 1, np.int64), np.empty(n, np.int64), 0
    seen = np.zeros(n, np.bool_)
    for start in range(n):
        if seen[start]:
            continue
        piece, top = start, True
        while not (top and seen[piece]):
            if top:
                seen[piece] = True
            x = pieces[piece, 0] + (1 if top else 0)
            y = pieces[piece, 1] if top else pieces[piece, 2]
            tip = partners[4 * piece + (_TOP_RIGHT if top else _BOTTOM_LEFT)]
            piece, top = tip // 4, tip % 4 < _BOTTOM_LEFT
            following = pieces[piece, 1] if top else pieces[piece, 2]
            if following != y:
                points[count, 0], points[count, 1] = x, y
                points[count + 1, 0], points[count + 1, 1] = x, following
                count += 2
        parts[rings] = labels[start]
        rings += 1
        offsets[rings] = count
    return points[:count], offsets[: rings + 1], parts[:rings]


@kernel
def _sorted_by_part(points, offsets, parts, n_parts):
    """The rings sorted by part, else in the order they were found: a part's own outline is found before its holes."""
    order = np.argsort(parts, kind="mergesort")
    sorted_points, sorted_offsets = np.empty_like(points), np.zeros(len(offsets), np.int64)
    for place in range(len(order)):
        ring = order[place]
        length = offsets[ring + 1] - offsets[ring]
        begin = sorted_offsets[place]
        sorted_offsets[place + 1] = begin + length
        sorted_points[begin : begin + length] = points[offsets[ring] : offsets[ring + 1]]
    return sorted_points, sorted_offsets, parts[order]


@kernel
def simplified(points, offsets, tolerance):
    """Douglas-Peucker on each ring: points (P', 2) and offsets of the vertices that stay, at least 3 a ring."""
    keep = np.zeros(len(points), np.bool_)
    new_offsets = np.zeros(len(offsets), np.int64)
    stack = np.empty((len(points) + 2, 2), np.int64)
    for ring in range(len(offsets) - 1):
        begin, n = offsets[ring], offsets[ring + 1] - offsets[ring]
        opposite, _ = _farthest(points, begin, n, 0, n)
        keep[begin] = keep[begin + opposite] = True
        depth, kept = 2, 2
        stack[0, 0], stack[0, 1], stack[1, 0], stack[1, 1] = 0, opposite, opposite, n
        while depth > 0:
            depth -= 1
            first, last = stack[depth, 0], stack[depth, 1]
            middle, distance = _farthest(points, begin, n, first, last)
            if distance > tolerance or (kept < 3 and distance > 0):
                keep[begin + middle] = True
                kept += 1
                stack[depth, 0], stack[depth, 1], stack[depth + 1, 0], stack[depth + 1, 1] = first, middle, middle, last
                depth += 2
        new_offsets[ring + 1] = new_offsets[ring] + kept
    return points[keep], new_offsets


@kernel
def _farthest(points, begin, n, first, last):
    """The vertex strictly between two of a ring that is farthest from the segment between them, and its distance."""
    ax, ay = np.float64(points[begin + first, 0]), np.float64(points[begin + first, 1])
    dx, dy = points[begin + last % n, 0] - ax, points[begin + last % n, 1] - ay
    squared = dx * dx + dy * dy
    best, far = first, -1.0
    for k in range(first + 1, last):
        px, py = points[begin + k, 0] - ax, points[begin + k, 1] - ay
        along = 0.0 if squared == 0 else min(max((px * dx + py * dy) / squared, 0.0), 1.0)
        ex, ey = px - along * dx, py - along * dy
        distance = ex * ex + ey * ey
        if distance > far:
            best, far = k, distance
    return best, np.sqrt(max(far, 0.0))
