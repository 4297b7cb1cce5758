"""Annotations of the common record as SVG: polygons, ellipses, lines and points as they are, an RLE as its outline.

H W image pixels; the picture may be shown smaller than the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rayseg import kernels
from rayseg.annotations import AnnotatedImage, Annotation, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets.measures import area_px
from rayseg.formats.shapes import box_of
from rayseg.kernels import Rles
from rayseg.views.outlines import path_data, resized, trace
from rayseg.views.printable import printable
from rayseg.views.svg import caption, instance, mask_path

_POINT_SHARE = 0.008  # radius of a point, of the picture's longer side


def drawing(
    image: AnnotatedImage, image_hw: tuple[int, int], shown_hw: tuple[int, int], class_names: Sequence[str]
) -> Iterator[str]:
    """SVG elements for all annotations, the largest first, so that small ones can be pointed at; then their captions.

    What cannot be drawn (an RLE that does not decode, numbers that are not finite) is left out.
    """
    drawn = [(one, elements(one, image_hw, shown_hw)) for one in image.annotations]
    drawn = [(one, parts) for one, parts in drawn if parts]
    drawn.sort(key=lambda pair: -(area_px(pair[0]) or 0.0))
    for one, parts in drawn:
        yield instance(parts, one.category, score_of(one), words(one, class_names))
    for one, _ in drawn:
        box = box_of(one)
        if box is not None:
            yield caption(words(one, class_names), box, image_hw, shown_hw, one.category, score_of(one))


def elements(one: Annotation, image_hw: tuple[int, int], shown_hw: tuple[int, int]) -> str:
    """The annotation's shape, or its box where it has none, as SVG elements; "" for what cannot be drawn."""
    scale = np.array([shown_hw[1] / image_hw[1], shown_hw[0] / image_hw[0]])
    shape = one.shape
    if isinstance(shape, Mask):
        return _mask(shape, image_hw, shown_hw)
    if isinstance(shape, Polygons):
        rings = [ring * scale for part in shape.parts for ring in part if len(ring)]
        return mask_path("".join(map(_ring_path, rings))) if rings and _finite(*rings) else ""
    if isinstance(shape, Ellipse):
        return _ellipse(shape, scale)
    if isinstance(shape, Polyline | Points):
        return _thin(shape, scale, max(shown_hw)) if _finite(shape.points) else ""
    if one.box_xyxy is None or not _finite(np.array(one.box_xyxy)):
        return ""
    x1, y1, x2, y2 = (np.array(one.box_xyxy).reshape(2, 2) * scale).reshape(-1).tolist()
    return f'<path class="box" d="M{x1:.6g} {y1:.6g}H{x2:.6g}V{y2:.6g}H{x1:.6g}z"/>'


def words(one: Annotation, class_names: Sequence[str]) -> str:
    """The class, with what is special: its score, a crowd."""
    name = printable(class_names[one.category])
    return name + ("" if one.score is None else f" {one.score:.2f}") + (" (crowd)" if one.crowd else "")


def score_of(one: Annotation) -> float:
    """The score that the page's filter goes by: 1 for ground truth."""
    return 1.0 if one.score is None else one.score


def _mask(mask: Mask, image_hw: tuple[int, int], shown_hw: tuple[int, int]) -> str:
    if tuple(mask.image_hw) != tuple(image_hw) or kernels.check_rle(mask.counts, mask.image_hw).reason is not None:
        return ""
    pixels = Rles.from_strings([mask.counts], mask.image_hw).decode(0)
    return mask_path(path_data(trace(resized(pixels, shown_hw))))


def _ellipse(ellipse: Ellipse, scale: np.ndarray) -> str:
    (x, y), (rx, ry), angle = ellipse.centre_xy, ellipse.radii_xy, ellipse.angle
    if not _finite(np.array([x, y, rx, ry, angle])) or min(rx, ry) <= 0:
        return ""
    turn = f"scale({scale[0]:.6g} {scale[1]:.6g}) rotate({angle:.6g} {x:.6g} {y:.6g})"
    return f'<ellipse cx="{x:.6g}" cy="{y:.6g}" rx="{rx:.6g}" ry="{ry:.6g}" transform="{turn}"/>'


def _thin(shape: Polyline | Points, scale: np.ndarray, side_px: int) -> str:
    points = shape.points * scale
    if isinstance(shape, Polyline):
        return f'<path class="line" d="{_line_path(points)}"/>'
    radius = max(side_px * _POINT_SHARE, 1.5)
    return "".join(f'<circle cx="{x:.6g}" cy="{y:.6g}" r="{radius:.6g}"/>' for x, y in points.tolist())


def _ring_path(points: np.ndarray) -> str:
    return _line_path(points) + "z"


def _line_path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.6g} {y:.6g}" for x, y in points.tolist())


def _finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
