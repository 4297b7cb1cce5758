"""What a tool's form cannot hold, noted beside what it can, and taken back while that is unchanged.

A polygon with holes drawn as one ring, an ellipse drawn as a mask, a box beside a mask: the tool shows and edits the drawn
one, the note has the exact one. A reader takes the note only where drawing it again gives what it found; whoever redrew the
object in the tool has made the note wrong, and then it is left alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rayseg.annotations import Annotation, Ellipse, Mask, Polygons, Shape
from rayseg.formats import shapes
from rayseg.formats.shape_json import decode_shape

_TOLERANCE = 1e-6  # pixels


def as_mask(annotation: Annotation, image_hw: tuple[int, int]) -> Annotation:
    """The annotation with its pixels in an image (H, W) as its shape."""
    (counts,) = shapes.rle_of(annotation, image_hw).strings()
    return dataclasses.replace(annotation, shape=Mask(counts, image_hw))


def as_rings(shape: Shape) -> Polygons:
    """A shape with an area as polygons without holes that cover the same pixels (an ellipse: nearly), one per part."""
    image_hw = shape.image_hw if isinstance(shape, Mask) else (0, 0)
    parts = shapes.polygons_of(Annotation(0, None, shape), image_hw).parts
    return Polygons(tuple((shapes.bridged(part),) for part in parts if part and len(part[0])))


def repeats_points(shape: Shape | None) -> bool:
    """Whether some ring ends with the point it begins with, which readers leave out."""
    rings = [ring for part in shape.parts for ring in part] if isinstance(shape, Polygons) else []
    return any(len(ring) > 3 and np.array_equal(ring[0], ring[-1]) for ring in rings)


def with_shape(annotation: Annotation, noted: Any) -> Annotation:
    """The annotation with the shape that `shape_json.encode_shape` noted, if it still is what the annotation shows.

    The annotation must show a mask, an ellipse, or polygons as `as_rings` makes them; what is no note is passed over.
    """
    try:
        exact = decode_shape(noted)
        if shapes.fault(Annotation(0, None, exact), None) is None and _shows(annotation.shape, exact):
            return dataclasses.replace(annotation, shape=exact)
    except ValueError:
        pass
    return annotation


def box_note(annotation: Annotation) -> list[float] | None:
    """The box of an annotation that has a shape besides, and the tight box of that shape: 8 numbers, or 4 for an empty one.

    None where there is nothing to note.
    """
    if annotation.box_xyxy is None or annotation.shape is None:
        return None
    tight = shapes.box_of(dataclasses.replace(annotation, box_xyxy=None)) or ()
    return [float(side) for side in (*annotation.box_xyxy, *tight)]


def with_box(annotation: Annotation, noted: Any) -> Annotation:
    """The annotation with the box that `box_note` noted, if its shape still has the tight box it had then."""
    if not isinstance(noted, list) or len(noted) not in (4, 8) or not all(map(_is_number, noted)):
        return annotation
    tight = shapes.box_of(annotation) or ()
    same = len(tight) == len(noted) - 4 and _is_near(tight, noted[4:])
    box = (float(noted[0]), float(noted[1]), float(noted[2]), float(noted[3]))
    return (
        dataclasses.replace(annotation, box_xyxy=box) if same and box[0] <= box[2] and box[1] <= box[3] else annotation
    )


def _shows(shown: Shape | None, exact: Shape) -> bool:
    if isinstance(shown, Mask):
        return shapes.rle_of(Annotation(0, None, exact), shown.image_hw).strings()[0] == shown.counts
    if isinstance(shown, Ellipse) and isinstance(exact, Ellipse):
        return _is_near(_numbers(shown), _numbers(exact))
    if not isinstance(shown, Polygons):
        return False
    rings, others = (_opened(shape).parts for shape in (as_rings(exact), shown))
    return len(rings) == len(others) and all(
        ring.shape == other.shape and _is_near(ring, other) for (ring,), (other,) in zip(rings, others, strict=True)
    )


def _opened(polygons: Polygons) -> Polygons:
    """Rings that do not repeat their first point, as readers take them."""
    return shapes.rings_to_polygons(ring for part in polygons.parts for ring in part)


def _numbers(ellipse: Ellipse) -> tuple[float, ...]:
    return (*ellipse.centre_xy, *ellipse.radii_xy, ellipse.angle)


def _is_near(some: Any, others: Any) -> bool:
    return bool(np.allclose(some, others, rtol=0, atol=_TOLERANCE))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= shapes.COORDINATE_MAX
