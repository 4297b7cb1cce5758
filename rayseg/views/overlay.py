"""Instances drawn over their image: translucent masks, outlines, class names and scores.

N instances, H W image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rayseg.errors import UsageError
from rayseg.records import Instances
from rayseg.views.colours import class_rgb

FILL = 0.45


def draw(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    min_score: float = 0.0,
    captions: bool = True,
) -> np.ndarray:
    """A copy of `image` (H, W, 3) uint8 with the instances of at least `min_score` on it, the best on top.

    Raises `UsageError` when the instances are of an image of another size.
    """
    if image.shape[:2] != tuple(instances.image_hw):
        raise UsageError(f"the image is {image.shape[:2]} (H, W), its instances are of one of {instances.image_hw}")
    shown = np.flatnonzero(instances.scores >= min_score)[::-1]
    canvas = image.copy()
    for i in shown:
        paint_mask(canvas, instances.rles.decode(int(i)).astype(bool), class_rgb(int(instances.classes[i])))
    return _with_captions(canvas, instances, class_names, shown) if captions else canvas


def paint_mask(canvas: np.ndarray, mask: np.ndarray, rgb: tuple[int, int, int]) -> None:
    """Tint the pixels of `mask` (H, W) bool in `canvas` (H, W, 3) uint8, and paint the mask's rim in the full colour."""
    rim = mask & ~_shrunk(mask)
    tint = np.array(rgb, np.float32)
    canvas[mask] = (canvas[mask] * (1 - FILL) + tint * FILL).astype(np.uint8)
    canvas[rim] = rgb


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """The pixels whose four neighbours are in the mask too; what lies beyond the image counts as outside."""
    framed = np.pad(mask, 1)
    return framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]


def _with_captions(
    canvas: np.ndarray, instances: Instances, class_names: Sequence[str], shown: np.ndarray
) -> np.ndarray:
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(10, min(canvas.shape[:2]) // 30))
    for i in shown:
        text = f"{class_names[int(instances.classes[i])]} {instances.scores[i]:.2f}"
        _caption(pen, text, instances.boxes_xyxy[i], canvas.shape[:2], font)
    return np.asarray(picture)


def _caption(
    pen: ImageDraw.ImageDraw,
    text: str,
    box_xyxy: np.ndarray,
    image_hw: tuple[int, ...],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """White on black above the box, moved inside the image where it would stick out."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0.0, min(float(box_xyxy[0]), image_hw[1] - width))
    y = max(0.0, min(float(box_xyxy[1]) - height, image_hw[0] - height))
    pen.rectangle((x, y, x + width, y + height), fill=(0, 0, 0))
    pen.text((x + 2 - left, y + 2 - top), text, font=font, fill=(255, 255, 255))
