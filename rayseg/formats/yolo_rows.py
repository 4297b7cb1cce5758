"""A row of a YOLO label file: `class cx cy w h` for a box, `class x1 y1 x2 y2 ...` for an outline, all in 0..1.

Pixels are multiples of a millionth, nothing finer: reading takes n = round(10^6 v W) and x = n / 10^6, writing v = x / W
with all the digits that a double needs. So whatever was read is written and read back as the very same numbers, whatever
the image's size: x, v and v W are each rounded once, by 2^-53 of their size at most, so 10^6 v W is off n by less than
4.01 * 2^-53 n < 0.5 for sides up to 2^24 pixels. And a decimal of up to six places, as most files have them, stays the
double that it was. Of a box the width and twice the centre are such multiples: so centre and size stay within 0..1, and
corners that are multiples themselves stay what they are.

A row has one ring. Further parts and holes are joined to it by bridges, lines that run there and back: they cover nothing
by the even-odd rule, nor do they by the non-zero rule.

Shapes: K points of a ring.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from rayseg.annotations import Annotation, Box, Mask, Polygons
from rayseg.formats import shapes
from rayseg.formats.bridges import joined
from rayseg.kernels import Rles

_GRID = 1e6
_JOINED = "a row has one outline: holes and parts are joined by bridges"
_UNITED = "a row has one outline: overlapping parts are united along pixel edges, then joined by bridges"
_CUT = "cut at the image's edge"
_ELLIPSE = "YOLO has no ellipses: written as 72 points"
_ROUNDED = "coordinates are rounded to a millionth of a pixel"


class Row(NamedTuple):
    """What a row says: the class id, the numbers of its box or outline, its confidence, and what follows a box.

    box or ring is given: box (x1, y1, x2, y2) or ring (K, 2) float64, in pixels.
    """

    class_id: int
    box: Box | None
    ring: np.ndarray | None
    score: float | None
    keypoints: list[float]


def has_confidence(line: str, keypoint_values: int = 0) -> bool:
    """Whether the number of values is that of a row with a confidence at its end."""
    count = len(line.split())
    return count == 6 + keypoint_values if keypoint_values else count % 2 == 0


def parse(line: str, image_hw: tuple[int, int], *, scored: bool, keypoint_values: int = 0) -> Row:
    """One row in pixels of an image (H, W). Raises `ValueError` that says what was expected and found."""
    texts = line.split()
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"expected numbers, found {line[:80]!r}") from None
    if not values or not values[0].is_integer() or not 0 <= values[0] < 1 << 31:
        raise ValueError(f"expected a class id as a whole number, found {line[:20]!r}")
    class_id, values = int(values[0]), values[1:]
    score = _score(values.pop()) if scored and values else None
    _check_count(len(values), len(texts) - 1, scored, keypoint_values)
    keypoints: list[float] = []
    if keypoint_values:
        keypoints, values = values[4:], values[:4]
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"expected coordinates of 0 to 1, found {value}")
    if not np.isfinite(keypoints).all():
        raise ValueError(f"expected keypoints as finite numbers, found {keypoints}")
    sides = np.array([image_hw[1], image_hw[0]], np.float64)
    points = np.array(values, np.float64).reshape(-1, 2)
    if len(points) > 2:
        return Row(class_id, None, on_grid(points * sides), score, keypoints)
    return Row(class_id, _box(np.rint(points * sides * _GRID * [[2], [1]])), None, score, keypoints)


def on_grid(points: np.ndarray) -> np.ndarray:
    """Rounded to millionths of a pixel, and without negative zeros."""
    return np.rint(points * _GRID) / _GRID + 0.0


def box_row(box: Box, image_hw: tuple[int, int]) -> tuple[list[float], str]:
    """The four numbers of a box, and why they are not the box exactly ("" where they are)."""
    sides = np.array([image_hw[1], image_hw[0]], np.float64)
    steps = _steps(np.array(box, np.float64).reshape(2, 2))
    change = "" if _box(steps) == tuple(box) else _ROUNDED
    if (steps < 0).any() or (steps > sides * _GRID * [[2], [1]]).any():
        steps, change = _steps(np.clip(np.array(box, np.float64).reshape(2, 2), 0, sides)), _CUT
    return (steps / _GRID / [[2], [1]] / sides).reshape(-1).tolist(), change


def ring_row(ring: np.ndarray, image_hw: tuple[int, int]) -> list[float]:
    """The numbers of a ring (K, 2) that lies within the image."""
    return (ring / np.array([image_hw[1], image_hw[0]], np.float64)).reshape(-1).tolist()


class Outline(NamedTuple):
    """The one ring (K, 2) of a mask within the image, why it is not the mask exactly ("" where it is), and its IoU."""

    ring: np.ndarray
    reason: str
    iou: float


def outline(annotation: Annotation, image_hw: tuple[int, int]) -> Outline | None:
    """A mask as one ring; None where nothing of it lies in the image."""
    given = shapes.polygons_of(annotation, image_hw)
    rings, reasons = [], []
    for ring in (ring for part in given.parts for ring in part):
        rounded = on_grid(ring)
        inside = on_grid(clipped(rounded, image_hw))
        if not np.array_equal(inside, rounded):
            reasons.append(_CUT)
        elif not np.array_equal(rounded, ring) and not isinstance(annotation.shape, Mask):
            reasons.append(_ROUNDED)
        if len(inside) >= 3:
            rings.append(inside)
    if not rings:
        return None
    if not isinstance(annotation.shape, Polygons | Mask):
        reasons = [_ELLIPSE]
    if len(rings) > 1:
        reasons.insert(0, _JOINED)
    if not reasons:
        return Outline(rings[0], "", 1.0)
    return _measured(annotation, rings, reasons[0], image_hw)


def _measured(
    annotation: Annotation, rings: list[np.ndarray], reason: str, image_hw: tuple[int, int]
) -> Outline | None:
    """The rings joined; where that is another mask, because parts overlap, the mask's own outlines are."""
    whole = shapes.rle_of(annotation, image_hw)
    ring = joined(rings)
    iou = shapes.iou(whole, _filled(ring, image_hw))
    if iou < 1 and len(rings) > 1 and whole.areas()[0]:
        united = dataclasses.replace(annotation, shape=Mask(whole.strings()[0], image_hw))
        ring = joined([ring for part in shapes.polygons_of(united, image_hw).parts for ring in part])
        return Outline(ring, _UNITED, shapes.iou(whole, _filled(ring, image_hw)))
    return Outline(ring, reason, iou)


def _filled(ring: np.ndarray, image_hw: tuple[int, int]) -> Rles:
    return shapes.rle_of(Annotation(0, shape=Polygons(((ring,),))), image_hw)


def clipped(ring: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """What of a ring (K, 2) lies in the image, by Sutherland and Hodgman (1974): cut at one side after the other.

    The pixels inside stay the same; where the ring leaves and comes back it then runs along the edge.
    """
    for axis, limit in ((0, image_hw[1]), (1, image_hw[0])):
        for least, sign in ((0.0, 1.0), (-float(limit), -1.0)):
            depth = sign * ring[:, axis] - least  # how far inside, negative outside
            if (depth >= 0).all():
                continue
            ring = _cut(ring, depth, axis, sign * least)
            if len(ring):
                ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    return ring


def _cut(ring: np.ndarray, depth: np.ndarray, axis: int, edge: float) -> np.ndarray:
    """The side of the line where `depth` (K,) is not negative."""
    before, depth_before = np.roll(ring, 1, axis=0), np.roll(depth, 1)
    crosses = (depth >= 0) != (depth_before >= 0)
    share = depth_before / np.where(crosses, depth_before - depth, 1.0)
    points = before + share[:, None] * (ring - before)
    points[:, axis] = edge
    both = np.stack([points, ring], axis=1)  # (K, 2, 2): where the side meets the edge, then its end
    return both[np.stack([crosses, depth >= 0], axis=1)]


def _check_count(count: int, found: int, scored: bool, keypoint_values: int) -> None:
    """`count` values of a box or outline, out of the `found` after the class id."""
    if keypoint_values:
        expected, fits = f"4 values of a box and {keypoint_values} of keypoints", count == 4 + keypoint_values
    else:
        expected, fits = "4 values of a box or pairs of x and y, three or more", count >= 4 and count % 2 == 0
    if not fits:
        confidence = ", then a confidence, as most rows have one" if scored else ""
        raise ValueError(f"expected {expected}{confidence}, found {found} values")


def _steps(corners: np.ndarray) -> np.ndarray:
    """Of the corners (2, 2) of a box twice its centre, and its size, in millionths of a pixel: whole numbers (2, 2)."""
    return np.rint(np.stack([corners[0] + corners[1], corners[1] - corners[0]]) * _GRID)


def _box(steps: np.ndarray) -> Box:
    """The inverse of `_steps`."""
    x1, y1, x2, y2 = (np.stack([steps[0] - steps[1], steps[0] + steps[1]]) / (2 * _GRID) + 0.0).reshape(-1).tolist()
    return x1, y1, x2, y2


def _score(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"expected a confidence of 0 to 1, found {value}")
    return value
