"""From what an annotation holds to pixels, outlines and boxes: the geometry that every format shares.

A pixel is inside a shape where its centre is; rings of a part follow the even-odd rule, a mask is the union of its parts
(`rayseg.kernels.from_polygons`). Lines and points have no pixels.

Shapes: N annotations, K points of a ring, H W image pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rayseg import kernels
from rayseg.annotations import Annotation, Box, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.kernels import Rles

SIDE_MAX = 1 << 20  # pixels; an image that claims a longer side is taken for a broken one
PIXELS_MAX = 1 << 33  # what the kernels' run lengths hold
COORDINATE_MAX = 1e9
_RADIUS_MIN = 1e-6  # pixels; a thinner ellipse covers no centre but by chance
_ELLIPSE_POINTS = 72
_BRIDGE_PAIRS_MAX = 1 << 22  # beyond that many pairs of points only one point of a hole is tried


def fault(annotation: Annotation, image_hw: tuple[int, int] | None) -> tuple[str, str] | None:
    """What is wrong with an annotation's box or shape, as (kind, message) for `Faults.add`; None for a sound one.

    Kinds: "box" for one that is not four finite numbers, x1 <= x2, y1 <= y2; "polygon" for no ring, a ring under 3 points
    or coordinates that are not finite; "mask" for an RLE that does not decode or is not of `image_hw`; "ellipse", "points".
    """
    box, shape = annotation.box_xyxy, annotation.shape
    if box is not None:
        if not all(abs(side) <= COORDINATE_MAX for side in box):
            return "box", f"expected a box of finite numbers, found {list(box)}"
        if box[0] > box[2] or box[1] > box[3]:
            return "box", f"expected a box of positive width and height, found corners {list(box)}"
    if isinstance(shape, Polygons):
        return _polygons_fault(shape)
    if isinstance(shape, Mask):
        return _mask_fault(shape, image_hw)
    if isinstance(shape, Ellipse):
        values = (*shape.centre_xy, *shape.radii_xy, shape.angle)
        if not all(abs(value) <= COORDINATE_MAX for value in values) or min(shape.radii_xy) <= 0:
            return "ellipse", f"expected an ellipse of finite numbers and positive radii, found {values}"
    if isinstance(shape, Polyline | Points):
        return _points_fault(shape)
    return None


def hw_fault(image_hw: tuple[int, int]) -> str | None:
    """What is wrong with an image's claimed size: sides of 1 to `SIDE_MAX`, `PIXELS_MAX` in all. None for a sound one."""
    height, width = image_hw
    if 1 <= height <= SIDE_MAX and 1 <= width <= SIDE_MAX and height * width <= PIXELS_MAX:
        return None
    return f"expected sides of 1 to {SIDE_MAX} pixels, found a height of {height} and a width of {width}"


def has_mask(annotation: Annotation) -> bool:
    """Whether the annotation says which pixels it covers: polygons, an RLE or an ellipse."""
    return isinstance(annotation.shape, Polygons | Mask | Ellipse)


def rle_of(annotation: Annotation, image_hw: tuple[int, int]) -> Rles:
    """One mask of `image_hw`: of the shape, or of the filled box where there is no shape; empty for lines and points.

    Raises `ValueError` for an RLE of another size, and for coordinates that are not finite.
    """
    return rles_of([annotation], image_hw)


def rles_of(annotations: Sequence[Annotation], image_hw: tuple[int, int]) -> Rles:
    """`rle_of` of each, as N masks: all polygons of an image are filled in one call. Raises as `rle_of`."""
    if image_hw[0] * image_hw[1] > PIXELS_MAX:
        raise ValueError(f"an image of {image_hw[0]} x {image_hw[1]} pixels is too large for masks")
    shapes = [annotation.shape for annotation in annotations]
    if all(isinstance(shape, Mask) for shape in shapes):
        return Rles.from_strings([_checked(shape, image_hw) for shape in shapes if isinstance(shape, Mask)], image_hw)
    parts = [
        () if isinstance(annotation.shape, Mask | Ellipse) else polygons_of(annotation, image_hw).parts
        for annotation in annotations
    ]
    filled = kernels.from_polygons(parts, image_hw)
    if not any(isinstance(shape, Mask | Ellipse) for shape in shapes):
        return filled
    strings = filled.strings()
    for i, shape in enumerate(shapes):
        if isinstance(shape, Mask):
            strings[i] = _checked(shape, image_hw)
        elif isinstance(shape, Ellipse):
            strings[i] = _ellipse_rle(shape, image_hw).strings()[0]
    return Rles.from_strings(strings, image_hw)


def box_of(annotation: Annotation) -> Box | None:
    """The box that came, else the tight one (x1, y1, x2, y2) of the shape; None where that is empty.

    Of polygons, lines and points it is the extent of their points, of an RLE that of its pixels.
    """
    shape = annotation.shape
    if annotation.box_xyxy is not None or shape is None:
        return annotation.box_xyxy
    if isinstance(shape, Mask):
        x, y, width, height = Rles.from_strings([shape.counts], shape.image_hw).boxes_xywh()[0].tolist()
        return (x, y, x + width, y + height) if width else None
    if isinstance(shape, Ellipse):
        half_width, half_height = _half_sides(shape)
        x, y = shape.centre_xy
        return x - half_width, y - half_height, x + half_width, y + half_height
    points = shape.points if isinstance(shape, Polyline | Points) else _outlines(shape)
    if not len(points):
        return None
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def polygons_of(annotation: Annotation, image_hw: tuple[int, int]) -> Polygons:
    """Polygons as they are; an RLE's outlines exactly along its pixels' edges; an ellipse as 72 points around an equal
    area; a box alone as its rectangle; no parts for lines, points and empty masks.

    Raises `ValueError` for an RLE of another size.
    """
    shape = annotation.shape
    if isinstance(shape, Polygons):
        return shape
    if isinstance(shape, Mask):
        parts = kernels.to_polygons(Rles.from_strings([_checked(shape, image_hw)], image_hw))[0]
        return Polygons(tuple(tuple(ring.astype(np.float64) for ring in part) for part in parts))
    if isinstance(shape, Ellipse):
        return Polygons(((_ellipse_ring(shape),),))
    if shape is None and annotation.box_xyxy is not None:
        x1, y1, x2, y2 = annotation.box_xyxy
        return Polygons(((np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64),),))
    return Polygons(())


def rings_to_polygons(rings: Iterable[Sequence[float] | np.ndarray]) -> Polygons:
    """Rings, each (K, 2) or flat (2 K,), each as a part of its own; a first point repeated at the end is left out.

    Raises `ValueError` for an odd number of coordinates, `TypeError` or `ValueError` for what is no number.
    """
    parts = []
    for ring in rings:
        points = np.array(ring, np.float64).reshape(-1, 2)
        if len(points) > 3 and np.array_equal(points[0], points[-1]):
            points = points[:-1].copy()
        parts.append((points,))
    return Polygons(tuple(parts))


def bridged(part: Sequence[np.ndarray]) -> np.ndarray:
    """A part's outline and holes as one ring (K, 2): each hole is joined by a bridge that runs there and back.

    It covers the same pixels by the even-odd rule, wherever the bridges lie; holes are turned against the outline, so
    that by the non-zero rule it does as well. The nearest hole is joined first, at the nearest pair of points.
    """
    ring = np.asarray(part[0], np.float64)
    if len(part) == 1:
        return ring
    turn = _signed_area(ring)
    holes = [
        hole[::-1] if _signed_area(hole) * turn > 0 else hole
        for hole in (np.asarray(hole, np.float64) for hole in part[1:])
        if len(hole)
    ]
    while holes:
        joints = [_nearest(ring, hole) for hole in holes]
        k = min(range(len(holes)), key=lambda k: joints[k][0])
        _, i, j = joints[k]
        hole = np.roll(holes.pop(k), -j, axis=0)
        ring = np.concatenate([ring[: i + 1], hole, hole[:1], ring[i:]]) if len(ring) else hole
    return ring


def iou(first: Rles, second: Rles) -> float:
    """Intersection over union of two single masks of one image; 1.0 where both are empty."""
    value = float(kernels.mask_ious(first, second)[0, 0])
    if value == 0.0 and not first.areas()[0] and not second.areas()[0]:
        return 1.0
    return value


def _polygons_fault(polygons: Polygons) -> tuple[str, str] | None:
    rings = [ring for part in polygons.parts for ring in part]
    if not rings or not all(polygons.parts):
        return "polygon", "expected at least one ring, found none"
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
            return "polygon", f"expected a ring of at least 3 points (x, y), found {ring.size / 2:g}"
        if not (np.abs(ring) <= COORDINATE_MAX).all():
            return "polygon", "expected finite coordinates, found one that is not"
    return None


def _mask_fault(mask: Mask, image_hw: tuple[int, int] | None) -> tuple[str, str] | None:
    if image_hw is not None and tuple(mask.image_hw) != tuple(image_hw):
        found = f"{mask.image_hw[0]} x {mask.image_hw[1]}"
        return "mask", f"expected an RLE of {image_hw[0]} x {image_hw[1]} pixels as its image has, found {found}"
    reason = hw_fault(mask.image_hw) or kernels.check_rle(mask.counts, mask.image_hw).reason
    return (
        ("mask", f"expected an RLE of {mask.image_hw[0]} x {mask.image_hw[1]} pixels, its {reason}") if reason else None
    )


def _points_fault(shape: Polyline | Points) -> tuple[str, str] | None:
    least = 2 if isinstance(shape, Polyline) else 1
    if shape.points.ndim != 2 or shape.points.shape[1] != 2 or len(shape.points) < least:
        return "points", f"expected at least {least} points (x, y), found {shape.points.size / 2:g}"
    if not (np.abs(shape.points) <= COORDINATE_MAX).all():
        return "points", "expected finite coordinates, found one that is not"
    return None


def _checked(mask: Mask, image_hw: tuple[int, int]) -> bytes:
    if tuple(mask.image_hw) != tuple(image_hw):
        found, expected = mask.image_hw, image_hw
        raise ValueError(f"an RLE of {found[0]} x {found[1]} pixels in an image of {expected[0]} x {expected[1]}")
    return mask.counts


def _outlines(polygons: Polygons) -> np.ndarray:
    """The points of all outlines, (K, 2)."""
    return np.concatenate([np.empty((0, 2)), *(part[0] for part in polygons.parts if len(part))])


def _signed_area(ring: np.ndarray) -> float:
    if not len(ring):
        return 0.0
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _nearest(ring: np.ndarray, hole: np.ndarray) -> tuple[float, int, int]:
    """Squared distance and places (in `ring`, in `hole`) of the nearest pair of points."""
    if not len(ring):
        return 0.0, 0, 0
    tried = hole if len(ring) * len(hole) <= _BRIDGE_PAIRS_MAX else hole[:1]
    squares = ((ring[:, None, :] - tried[None, :, :]) ** 2).sum(axis=2)
    i, j = divmod(int(squares.argmin()), len(tried))
    return float(squares[i, j]), i, j


# ---- ellipses


def _half_sides(ellipse: Ellipse) -> tuple[float, float]:
    """Half the width and height of the upright rectangle around an ellipse."""
    (rx, ry), angle = ellipse.radii_xy, math.radians(ellipse.angle)
    return (
        math.hypot(rx * math.cos(angle), ry * math.sin(angle)),
        math.hypot(rx * math.sin(angle), ry * math.cos(angle)),
    )


def _ellipse_ring(ellipse: Ellipse) -> np.ndarray:
    """(72, 2): points a little outside the ellipse, so that the polygon's area is the ellipse's."""
    step = 2 * math.pi / _ELLIPSE_POINTS
    grown = math.sqrt(step / math.sin(step))
    turns = np.arange(_ELLIPSE_POINTS) * step
    u, v = ellipse.radii_xy[0] * grown * np.cos(turns), ellipse.radii_xy[1] * grown * np.sin(turns)
    cos, sin = math.cos(math.radians(ellipse.angle)), math.sin(math.radians(ellipse.angle))
    return np.stack([u * cos - v * sin, u * sin + v * cos], axis=1) + np.asarray(ellipse.centre_xy)


def _ellipse_rle(ellipse: Ellipse, image_hw: tuple[int, int]) -> Rles:
    """The pixels whose centres lie in the ellipse or on it; none where a radius is 0."""
    height, width = image_hw
    values = (*ellipse.centre_xy, *ellipse.radii_xy, ellipse.angle)
    if not all(abs(value) <= COORDINATE_MAX for value in values):
        raise ValueError(f"an ellipse must be numbers within {COORDINATE_MAX:g}, found {values}")
    if min(ellipse.radii_xy) < _RADIUS_MIN:
        return kernels.from_polygons([()], image_hw)
    half_width, _ = _half_sides(ellipse)
    x = ellipse.centre_xy[0]
    first = math.ceil(min(max(x - half_width, 0.0), width + 1.0) - 0.5)
    last = math.ceil(min(max(x + half_width, 0.0), width + 1.0) + 0.5)
    columns = np.arange(max(first - 1, 0), min(last + 1, width))
    begins, ends = _ellipse_rows(ellipse, columns, height)
    there = begins < ends
    edges = np.stack([columns * height + begins, columns * height + ends], axis=1)[there].reshape(-1)
    return _from_edges(edges, image_hw)


def _ellipse_rows(ellipse: Ellipse, columns: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For each column the first row inside, and the first one after."""
    (x, y), (rx, ry), angle = ellipse.centre_xy, ellipse.radii_xy, math.radians(ellipse.angle)
    cos, sin, dx = math.cos(angle), math.sin(angle), columns + 0.5 - x

    def inside(rows: np.ndarray) -> np.ndarray:
        dy = rows + 0.5 - y
        return ((dx * cos + dy * sin) / rx) ** 2 + ((dy * cos - dx * sin) / ry) ** 2 <= 1

    a = (sin / rx) ** 2 + (cos / ry) ** 2  # a dy^2 + b dy + c = 0 where a column crosses the ellipse
    b = 2 * dx * cos * sin * (rx**-2 - ry**-2)
    c = (dx * cos / rx) ** 2 + (dx * sin / ry) ** 2 - 1
    middle, half = y - b / (2 * a), np.sqrt(np.maximum(b * b - 4 * a * c, 0)) / (2 * a)
    begins = np.ceil(np.clip(middle - half, -2, height + 2) - 0.5).astype(np.int64)
    ends = np.floor(np.clip(middle + half, -2, height + 2) - 0.5).astype(np.int64) + 1
    begins = np.where(inside(begins - 1), begins - 1, np.where(inside(begins), begins, begins + 1))  # roots are rounded
    ends = np.where(inside(ends), ends + 1, np.where(inside(ends - 1), ends, ends - 1))
    return np.clip(begins, 0, height), np.clip(ends, 0, height)


def _from_edges(edges: np.ndarray, image_hw: tuple[int, int]) -> Rles:
    """The mask that changes at the flat indices `edges`, ascending; two equal ones cancel."""
    size = image_hw[0] * image_hw[1]
    same = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([same, same + 1]))
    runs = np.diff(np.concatenate([[0], edges, [size]]))
    if len(runs) > 1 and runs[-1] == 0:
        runs = runs[:-1]
    return Rles.from_runs(runs, np.array([0, len(runs)]), image_hw)
