"""How large an annotation is, from what it holds; nothing is drawn.

K points of a ring.
"""

from __future__ import annotations

import math

import numpy as np

from rayseg import kernels
from rayseg.annotations import Annotation, Ellipse, Mask, Polygons


def area_px(annotation: Annotation) -> float | None:
    """The area in square pixels: an RLE's pixels, what polygons and ellipses enclose, else the box; None for lines and points.

    Parts of a polygon that overlap count twice. 0 for an RLE that does not decode.
    """
    shape = annotation.shape
    if isinstance(shape, Mask):
        return float(kernels.check_rle(shape.counts, shape.image_hw).area)
    if isinstance(shape, Polygons):
        return math.fsum(part_area(part) for part in shape.parts)
    if isinstance(shape, Ellipse):
        return math.pi * abs(shape.radii_xy[0] * shape.radii_xy[1])
    if shape is not None or annotation.box_xyxy is None:
        return None
    x1, y1, x2, y2 = annotation.box_xyxy
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def part_area(part: tuple[np.ndarray, ...]) -> float:
    """The area of an outline less that of its holes."""
    areas = [ring_area(ring) for ring in part]
    return max(areas[0] - math.fsum(areas[1:]), 0.0) if areas else 0.0


def ring_area(ring: np.ndarray) -> float:
    """The area within a ring (K, 2), whichever way it runs; 0 under 3 points."""
    if len(ring) < 3:
        return 0.0
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]  # from its first point: far from the origin digits are lost
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]))) / 2
