"""One entry of labelme's `shapes`, to and from what the record holds of it.

As labelme has them (its `LabelFile` and `Shape`): `polygon`, `rectangle` (two corners), `oriented_rectangle` (four),
`circle` (centre and a point on it), `line`, `linestrip`, `point`, `points`, and `mask`: a PNG in base64 whose rectangle is
`points`, its first and last pixel. Coordinates are continuous pixels of the image as labelme shows it.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rayseg.annotations import Annotation, Box, Ellipse, Mask, Points, Polygons, Polyline, Shape
from rayseg.errors import ImageError
from rayseg.formats import json_values, shapes
from rayseg.formats.crops import crop_of, mask_of
from rayseg.images.headers import header

Geometry = tuple[Box | None, Shape | None]

FOUR_CORNERS = ("oriented_rectangle", "rotation")  # the second is what X-AnyLabeling calls it
_PNG_BYTES_MAX = 64 << 20
_PNG_PIXELS_MAX = 100_000_000


def geometry(entry: dict[str, Any], image_hw: tuple[int, int] | None) -> Geometry:
    """Box and shape of one entry; a `mask` needs the size of its raster. Raises `ValueError`."""
    kind = entry.get("shape_type") or "polygon"
    points = json_values.points(entry.get("points"), "points")
    if kind == "polygon" or (kind in FOUR_CORNERS and len(points) == 4):
        return None, shapes.rings_to_polygons([points])
    if kind == "rectangle":
        (x1, y1), (x2, y2) = _exactly(2, points, "a rectangle")
        return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), None
    if kind == "circle":
        (x, y), (on_x, on_y) = _exactly(2, points, "a circle")
        radius = math.hypot(on_x - x, on_y - y)
        return None, Ellipse((x, y), (radius, radius))
    if kind in ("line", "linestrip"):
        return None, Polyline(points)
    if kind in ("point", "points"):
        return None, Points(points)
    if kind == "mask":
        return None, _mask(entry.get("mask"), _exactly(2, points, "a mask"), image_hw)
    raise ValueError(f"expected a shape_type that labelme has, found {json_values.shown(kind)}")


def entries(annotation: Annotation) -> Iterator[dict[str, Any]]:
    """`shape_type`, `points` and for a mask `mask`, one dict per part; nothing for an annotation without box and shape.

    Polygons must have no holes, an ellipse must be a circle.
    """
    shape = annotation.shape
    if shape is None:
        if annotation.box_xyxy is not None:
            x1, y1, x2, y2 = annotation.box_xyxy
            yield {"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
    elif isinstance(shape, Polygons):
        for part in shape.parts:
            yield {"shape_type": "polygon", "points": json_values.text_of(part[0])}
    elif isinstance(shape, Ellipse):
        (x, y), (radius, _) = shape.centre_xy, shape.radii_xy
        yield {"shape_type": "circle", "points": [[x, y], _point_on(x, y, radius)]}
    elif isinstance(shape, Polyline):
        kind = "line" if len(shape.points) == 2 else "linestrip"
        yield {"shape_type": kind, "points": json_values.text_of(shape.points)}
    elif isinstance(shape, Points):
        kind = "point" if len(shape.points) == 1 else "points"
        yield {"shape_type": kind, "points": json_values.text_of(shape.points)}
    else:
        yield _mask_entry(shape)


def is_circle(shape: Shape | None) -> bool:
    """Whether an ellipse is one that labelme can hold."""
    return isinstance(shape, Ellipse) and shape.radii_xy[0] == shape.radii_xy[1]


def _exactly(count: int, points: np.ndarray, what: str) -> list[list[float]]:
    if len(points) != count:
        raise ValueError(f"expected {count} points of {what}, found {len(points)}")
    return points.tolist()


def _point_on(x: float, y: float, radius: float) -> list[float]:
    """A point whose distance from the centre, as it is computed on reading, is `radius` to the bit where there is one."""
    for sign in (1.0, -1.0):
        for away in (
            x + sign * radius,
            math.nextafter(x + sign * radius, x),
            math.nextafter(x + sign * radius, math.inf),
        ):
            if math.hypot(away - x, 0.0) == radius:
                return [away, y]
    for away in (y + radius, y - radius):
        if math.hypot(0.0, away - y) == radius:
            return [x, away]
    return [x + radius, y]


def _mask_entry(mask: Mask) -> dict[str, Any]:
    from PIL import Image

    left, top, pixels = crop_of(mask)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    corners = [[float(left), float(top)], [float(left + pixels.shape[1] - 1), float(top + pixels.shape[0] - 1)]]
    return {"shape_type": "mask", "points": corners, "mask": base64.b64encode(file.getvalue()).decode("ascii")}


def _mask(encoded: Any, corners: list[list[float]], image_hw: tuple[int, int] | None) -> Mask:
    """The PNG lies at the first corner; some versions wrote the second one a pixel farther."""
    if image_hw is None:
        raise ValueError("expected the size of the image, which a mask needs, found neither it nor the image")
    (x1, y1), (x2, y2) = corners
    left, top = round(min(x1, x2)), round(min(y1, y2))
    width, height = round(abs(x2 - x1)), round(abs(y2 - y1))
    pixels = _png_pixels(encoded, (height + 1, width + 1))
    found_height, found_width = pixels.shape
    outside = left < 0 or top < 0 or top + found_height > image_hw[0] or left + found_width > image_hw[1]
    if outside and pixels.any():
        raise ValueError(
            f"expected a mask inside the image of {image_hw[1]}x{image_hw[0]} pixels, "
            f"found one of {found_width}x{found_height} at ({left}, {top})"
        )
    return mask_of(left, top, pixels, image_hw)


def _png_pixels(encoded: Any, expected_hw: tuple[int, int]) -> np.ndarray:
    """The (h, w) pixels that are not zero. The size is checked before anything is decoded."""
    from PIL import PngImagePlugin

    if not isinstance(encoded, str):
        raise ValueError(f"expected a mask as a PNG in base64, found {json_values.shown(encoded)}")
    try:
        data = base64.b64decode(encoded, validate=True)
        found = header(data)
    except (binascii.Error, ValueError, ImageError) as error:
        raise ValueError(f"expected a mask as a PNG in base64, found other bytes: {error}") from None
    allowed = (found.height - expected_hw[0], found.width - expected_hw[1])
    too_much = len(data) > _PNG_BYTES_MAX or found.width * found.height > _PNG_PIXELS_MAX
    if found.format != "png" or too_much or not all(off in (-1, 0) for off in allowed):
        raise ValueError(
            f"expected a mask as a PNG of {expected_hw[1]}x{expected_hw[0]} pixels as its points say, "
            f"found {found.format} of {found.width}x{found.height}"
        )
    try:
        image = np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(data)))
    except Exception as error:  # whatever a decoder raises of broken bytes
        raise ValueError(f"expected a mask as a PNG, found one that does not decode: {error}") from None
    return np.asarray(image.any(axis=2) if image.ndim == 3 else image != 0)
