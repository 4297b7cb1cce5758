"""Instances drawn as SVG over a picture, with what the page's filters need to know of each.

All coordinates are pixels of the picture as it is shown, unless a name says otherwise. Text is escaped here.
"""

from __future__ import annotations

from html import escape

from PIL import Image

from rayseg.views.colours import class_hex
from rayseg.views.page import data_uri


def figure(picture: Image.Image, drawing: str, alt: str) -> str:
    """The picture with SVG elements over it."""
    width, height = picture.size
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">'
        f'<image href="{data_uri(picture)}" width="{width}" height="{height}"/>\n{drawing}</svg>'
    )


def filter_data(class_id: int, score: float) -> str:
    """The attributes by which an element is shown or hidden."""
    return f'data-class="{class_id}" data-score="{score:.4f}"'


def instance(elements: str, class_id: int, score: float, title: str) -> str:
    """One instance: its outlines as SVG elements, coloured by its class, with a title to point at."""
    return (
        f'<g class="mask" {filter_data(class_id, score)} style="--class:{class_hex(class_id)}">'
        f"<title>{escape(title)}</title>{elements}</g>"
    )


def mask_path(data: str) -> str:
    """A filled path with holes; `data` as `outlines.path_data` gives it."""
    return f'<path fill-rule="evenodd" d="{data}"/>'


def caption(
    text: str,
    box_xyxy: tuple[float, float, float, float],
    image_hw: tuple[int, int],
    shown_hw: tuple[int, int],
    class_id: int,
    score: float,
) -> str:
    """Text at the upper edge of the box, running inwards from whichever side is farther from the image's border.

    `box_xyxy` is in pixels of the image itself, of size `image_hw`.
    """
    font_px = max(max(shown_hw) / 24, 6)
    left, top, right, _ = box_xyxy
    x, y, anchor = left, max(top * shown_hw[0] / image_hw[0] + font_px, font_px), "start"
    if (left + right) / 2 > image_hw[1] / 2:
        x, anchor = right, "end"
    return (
        f'<text {filter_data(class_id, score)} x="{x * shown_hw[1] / image_hw[1]:.1f}" y="{y:.1f}" '
        f'text-anchor="{anchor}" font-size="{font_px:.1f}">{escape(text)}</text>'
    )
