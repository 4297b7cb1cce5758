"""From a mask to its outline, along the edges of its pixels.

Exact: filled by the even-odd rule, the outline is the mask again, holes and separate parts included.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up: the next entry is a turn to the right


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Closed loops around a mask (H, W): (P, 2) int64 corners each, x then y, the first one not repeated.

    A loop runs clockwise around a part and counter-clockwise around a hole. Pixels that touch by a corner alone are
    parts of their own.
    """
    ahead = _edges(mask.astype(bool))
    loops = []
    while ahead:
        start, directions = next(iter(ahead.items()))
        loops.append(_follow(ahead, start, directions[0]))
    return loops


def path_data(loops: Iterable[np.ndarray]) -> str:
    """The loops as one SVG path, in relative horizontal and vertical strokes."""
    return "".join(_loop_path(loop) for loop in loops)


def resized(mask: np.ndarray, shown_hw: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) at `shown_hw`, from the pixel under each new pixel's centre."""
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(shown_hw, mask.shape, strict=True))
    return mask[rows][:, columns]


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """For each corner of the pixel grid on the outline, the directions of the edges that leave it, mask to the right."""
    framed = np.pad(mask, 1)
    inside, above, left = framed[1:, 1:], framed[:-1, 1:], framed[1:, :-1]  # by upper left corner, (H + 1, W + 1)
    ahead: dict[tuple[int, int], list[int]] = {}
    for edges, direction in (
        (inside & ~above, 0),
        (left & ~inside, 1),
        (above & ~inside, 2),
        (inside & ~left, 3),
    ):
        ys, xs = np.nonzero(edges)
        xs, ys = xs + (direction == 2), ys + (direction == 3)  # these two leave from their far end
        for corner in zip(xs.tolist(), ys.tolist(), strict=True):
            ahead.setdefault(corner, []).append(direction)
    return ahead


def _follow(ahead: dict[tuple[int, int], list[int]], start: tuple[int, int], first: int) -> np.ndarray:
    """Take the loop that leaves `start` in the direction `first` out of `ahead`; its corners (P, 2).

    Where two loops or two parts of one touch, turning right stays with the same pixel.
    """
    corners, place, direction, last = [], start, first, -1
    while True:
        _take(ahead, place, direction)
        if direction != last:
            corners.append(place)
        last = direction
        place = (place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1])
        right, choices = (direction + 1) % 4, ahead.get(place, [])
        if place == start and (right == first or not choices):
            return np.array(corners)
        direction = right if right in choices else choices[0]


def _take(ahead: dict[tuple[int, int], list[int]], place: tuple[int, int], direction: int) -> None:
    ahead[place].remove(direction)
    if not ahead[place]:
        del ahead[place]


def _loop_path(loop: np.ndarray) -> str:
    strokes = [f"v{dy}" if dx == 0 else f"h{dx}" for dx, dy in np.diff(loop, axis=0).tolist()]
    return f"M{loop[0, 0]} {loop[0, 1]}{''.join(strokes)}z"
