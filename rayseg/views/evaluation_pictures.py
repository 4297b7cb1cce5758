"""Cut-outs of images with a truth and a prediction drawn over them, for the report of an evaluation.

A cut-out is the object concerned with room around it, so that small things can be seen in large images. The truth is dashed
and blue, the prediction a full line and orange, whatever else is there thin. An image that cannot be read has its outlines on
grey, and says why.

Shapes: H W pixels of the image, h w of the cut-out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from rayseg import images, storage
from rayseg.errors import RaysegError
from rayseg.kernels import Rles
from rayseg.views.outlines import path_data, trace

if TYPE_CHECKING:
    from rayseg.evaluation.examples import Example, Shape

SHOWN_PX = 420  # the longer side of a cut-out as it is embedded
_ROOM = 0.75  # of the object's longer side, on every side of it
_LEAST_PX = 64
_JPEG_QUALITY = 82
_MOST_PIXELS = 1 << 28  # of an image whose masks are drawn; of larger ones the boxes are


class Window(NamedTuple):
    """A part of an image in whole pixels."""

    x: int
    y: int
    width: int
    height: int


def picture_card(example: Example, class_names: Sequence[str]) -> str:
    """One example as a `<figure>`."""
    window = window_around(example)
    scale = SHOWN_PX / max(window.width, window.height)
    picture, reason = _pixels(example, window, scale)
    shown_hw = max(1, round(window.height * scale)), max(1, round(window.width * scale))
    ground = (
        f'<image href="{picture}" width="{shown_hw[1]}" height="{shown_hw[0]}"/>'
        if picture
        else f'<rect class="nothing" width="{shown_hw[1]}" height="{shown_hw[0]}"/>'
    )
    caption = _caption(example, class_names)
    note = f'<div class="note">{escape(reason)}</div>' if reason else ""
    return (
        f'<figure><svg viewBox="0 0 {shown_hw[1]} {shown_hw[0]}" role="img" aria-label="{escape(_alt(example, caption))}">'
        f"{ground}{_outlines(example, window, shown_hw)}</svg>"
        f'<figcaption><strong>{caption}</strong><span class="name" title="{escape(example.uri or example.name)}">'
        f"{escape(example.name)}</span>{note}</figcaption></figure>"
    )


def window_around(example: Example) -> Window:
    """The object concerned, and its truth if it has one, with room around."""
    boxes = [example.focus.box_xywh, *([example.partner.box_xywh] if example.partner else [])]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    room = max(_ROOM * max(right - left, bottom - top), (_LEAST_PX - max(right - left, bottom - top)) / 2)
    height, width = example.image_hw if all(example.image_hw) else (int(bottom + room) + 1, int(right + room) + 1)
    x1, y1 = (min(max(int(low - room), 0), side - 1) for low, side in ((left, width), (top, height)))
    x2, y2 = (min(max(int(high + room) + 1, 1), side) for high, side in ((right, width), (bottom, height)))
    return Window(x1, y1, max(x2 - x1, 1), max(y2 - y1, 1))


def _pixels(example: Example, window: Window, scale: float) -> tuple[str | None, str | None]:
    """The cut-out as a data URI, or why there is none."""
    if example.uri is None:
        return None, "the pixels were not given; say where they are with --images"
    try:
        pixels = images.decode(storage.read(example.uri))
    except RaysegError as error:
        return None, f"the image cannot be read: {error}"
    if pixels.shape[:2] != tuple(example.image_hw) and all(example.image_hw):
        found, expected = pixels.shape[:2], example.image_hw
        return None, f"the image is {found[1]} x {found[0]}, its annotations are of {expected[1]} x {expected[0]}"
    part = Image.fromarray(pixels[window.y : window.y + window.height, window.x : window.x + window.width])
    size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    buffer = io.BytesIO()
    part.resize(size, smooth).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), None


def _outlines(example: Example, window: Window, shown_hw: tuple[int, int]) -> str:
    """Everything that lies in the window, the object concerned on top."""
    layers = [("truth other", one) for one in example.truths] + [("found other", one) for one in example.detections]
    layers += [("truth", example.partner)] if example.partner else []
    layers += [("truth" if example.kind == "missed" else "found", example.focus)]
    paths = ((kind, _path(one, example.image_hw, window, shown_hw)) for kind, one in layers)
    return "".join(f'<path class="{kind}" fill-rule="evenodd" d="{path}"/>' for kind, path in paths if path)


def _path(shape: Shape, image_hw: tuple[int, int], window: Window, shown_hw: tuple[int, int]) -> str:
    """The outline of a mask, or the box where there is none, in the cut-out's pixels; "" for what lies outside."""
    if shape.rle and 0 < image_hw[0] * image_hw[1] <= _MOST_PIXELS:
        mask = Rles.from_strings([shape.rle], image_hw).decode(0)
        part = mask[window.y : window.y + window.height, window.x : window.x + window.width]
        return path_data(trace(_resized(part, shown_hw))) if part.any() else ""
    x, y, width, height = shape.box_xywh
    scale = shown_hw[1] / window.width
    left, right = ((side - window.x) * scale for side in (x, x + width))
    top, bottom = ((side - window.y) * scale for side in (y, y + height))
    if right <= 0 or bottom <= 0 or left >= shown_hw[1] or top >= shown_hw[0]:
        return ""
    return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}z"


def _resized(mask: np.ndarray, shown_hw: tuple[int, int]) -> np.ndarray:
    """The mask (h, w) at `shown_hw`, from the pixel under each new pixel's centre."""
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(shown_hw, mask.shape, strict=True))
    return mask[rows][:, columns]


def _caption(example: Example, class_names: Sequence[str]) -> str:
    name = escape(class_names[example.focus.class_id])
    if example.kind == "missed":
        width, height = example.focus.box_xywh[2:]
        return f"{name}, {width:.0f} x {height:.0f} px"
    if example.kind == "poor":
        return f"{name} {example.focus.score:.2f}, IoU {example.iou:.2f}"
    meant = example.partner.class_id if example.partner else example.focus.class_id
    really = f", it is {escape(class_names[meant])}" if meant != example.focus.class_id else ""
    return f"{name} {example.focus.score:.2f}: {escape(example.what)}{really}"


def _alt(example: Example, caption: str) -> str:
    kinds = {"false": "false detection", "missed": "missed object", "poor": "poor match"}
    return f"{kinds[example.kind]} in {example.name}: {caption}"
