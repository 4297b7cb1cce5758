"""Drawn objects on textured backgrounds: an instance segmentation data set from a seed, with no download.

An image depends on (seed, index, size) alone, so it is the same whichever images are drawn before it or beside it.
Classes differ by form only: colours, fills, sizes and rotations are drawn alike for all of them, so the form has to be
seen. Later objects hide earlier ones; a mask is what stays visible of its object, which may be several parts or have
holes. Sheared outlines, unlabelled strokes, shadows, blur and noise keep the edges from being trivial.

N instances, H W image pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rayseg import kernels

CLASS_NAMES = ("disc", "ring", "star", "split")

_SUPERSAMPLING = 4
_MIN_AREA_PX = 40  # what stays visible of an object and is smaller than this is no longer labelled
_MIN_VISIBLE = 0.3  # and so is an object of which less than this share stays visible
_MAX_HIDDEN = 0.3  # of an earlier object, by one later one, where one of `_PLACES_TRIED` places allows it
_PLACES_TRIED = 4
_MIN_CONTRAST = 75.0  # least mean RGB distance between an object and what lies under it

Outline = np.ndarray  # (P, 2) float64 corners, x then y, within the unit disc


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its instances.

    image (H, W, 3) uint8 RGB; masks (N, H, W) bool, disjoint, none empty; classes (N,) int64, indices of `CLASS_NAMES`.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: np.ndarray

    def boxes_xyxy(self) -> np.ndarray:
        """(N, 4) float32 tight boxes: a mask of the single pixel (x, y) gives x, y, x + 1, y + 1."""
        boxes = np.zeros((len(self.masks), 4), np.float32)
        for i, mask in enumerate(self.masks):
            ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes[i] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
        return boxes


def generate(count: int, seed: int, size_px: int = 128, max_objects: int = 3, start: int = 0) -> Iterator[Sample]:
    """Samples `start` to `start + count - 1` of the stream `seed`: square images, 1 to `max_objects` instances each."""
    for index in range(start, start + count):
        yield draw(seed, index, size_px, max_objects)


def draw(seed: int, index: int, size_px: int = 128, max_objects: int = 3) -> Sample:
    """Sample `index` of the stream `seed`."""
    if size_px < 32 or max_objects < 1:
        raise ValueError(f"expected size_px >= 32 and max_objects >= 1, found {size_px} and {max_objects}")
    rng = np.random.default_rng([seed, index])
    canvas = _background(rng, size_px)  # (H, W, 3) float32
    masks: list[np.ndarray] = []
    classes: list[int] = []
    for _ in range(rng.integers(min(2, max_objects), max_objects + 1)):
        kind = int(rng.integers(len(CLASS_NAMES)))
        stencil, mask = _place_beside(rng, CLASS_NAMES[kind], size_px, masks)
        _paint(rng, canvas, stencil)
        masks.append(mask)
        classes.append(kind)
    visible, kept = _visible(np.stack(masks))
    if not kept.any():  # everything fell on the border or under its neighbours: the next try is as good
        return draw(seed, index + (1 << 32), size_px, max_objects)
    return Sample(_photograph(rng, canvas), visible[kept], np.array(classes, np.int64)[kept])


def write_coco(
    folder: Path | str, samples: Iterable[Sample], class_names: tuple[str, ...] = CLASS_NAMES, jpeg_quality: int = 92
) -> dict[str, Any]:
    """Write `images/000000.jpg` ... and `instances.json` below `folder`; the returned dict is the JSON's content.

    Image ids count from 0 like the names, category ids from 1 (class + 1), masks are compressed RLE.
    """
    images_folder = Path(folder) / "images"
    images_folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for image_id, sample in enumerate(samples):
        name = f"{image_id:06d}.jpg"
        Image.fromarray(sample.image).save(images_folder / name, quality=jpeg_quality, subsampling=0)
        height, width = sample.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        annotations += _annotations(sample, image_id, first_id=len(annotations) + 1)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (Path(folder) / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def _annotations(sample: Sample, image_id: int, first_id: int) -> list[dict[str, Any]]:
    rles = kernels.encode(sample.masks)
    columns = zip(sample.classes, rles.to_coco(), rles.areas(), rles.boxes_xywh(), strict=True)
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": int(kind) + 1,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "area": int(area),
            "bbox": box_xywh.tolist(),
            "iscrowd": 0,
        }
        for i, (kind, rle, area, box_xywh) in enumerate(columns)
    ]


def _visible(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W) what later objects leave of each mask, and (N,) which of them are still worth a label."""
    visible = np.zeros_like(masks)
    hidden = np.zeros(masks.shape[1:], bool)
    for i in reversed(range(len(masks))):
        visible[i] = masks[i] & ~hidden
        hidden |= masks[i]
    areas = visible.sum(axis=(1, 2))
    kept = (areas >= _MIN_AREA_PX) & (areas >= _MIN_VISIBLE * masks.sum(axis=(1, 2)))
    return visible, kept


# The forms: each returns the outlines to fill and the outlines to cut out again, within the unit disc.


def _ellipse(rng: np.random.Generator, radius: float = 1.0, flattening: float = 0.75) -> Outline:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles) * rng.uniform(flattening, 1)], axis=1) * radius


def _disc(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    return [_ellipse(rng, flattening=0.55)], []


def _ring(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    outer = _ellipse(rng)
    return [outer], [outer * rng.uniform(0.35, 0.5)]


def _star(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    points = 5
    angles = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, rng.uniform(0.5, 0.6))
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]], []


def _split(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    gap = rng.uniform(0.2, 0.28)
    knife = np.array([[-1.1, -gap], [1.1, -gap], [1.1, gap], [-1.1, gap]])
    return [_ellipse(rng, flattening=0.85)], [knife]


_FORMS: dict[str, Callable[[np.random.Generator], tuple[list[Outline], list[Outline]]]] = {
    "disc": _disc,
    "ring": _ring,
    "star": _star,
    "split": _split,
}


@dataclass(frozen=True, slots=True)
class _Stencil:
    """Where one object lies: `alpha` (h, w) float32 coverage, over `window`, a pair of slices of the image."""

    alpha: np.ndarray
    window: tuple[slice, slice]

    def mask(self, size_px: int) -> np.ndarray:
        """(H, W) bool: the pixels that are more than half covered."""
        mask = np.zeros((size_px, size_px), bool)
        mask[self.window] = self.alpha >= 0.5
        return mask


def _place_beside(
    rng: np.random.Generator, name: str, size_px: int, masks: list[np.ndarray]
) -> tuple[_Stencil, np.ndarray]:
    """One object and its mask (H, W) bool, placed anew a few times while it hides most of an earlier one."""
    for _ in range(_PLACES_TRIED):
        stencil = _place(rng, name, size_px)
        mask = stencil.mask(size_px)
        if all((mask & earlier).sum() <= _MAX_HIDDEN * earlier.sum() for earlier in masks):
            break
    return stencil, mask


def _place(rng: np.random.Generator, name: str, size_px: int) -> _Stencil:
    """One object of random radius, place, rotation and shear; some reach over the border."""
    radius = size_px * float(np.exp(rng.uniform(np.log(0.18), np.log(0.32))))
    centre = rng.uniform(0.3 * radius, size_px - 0.3 * radius, 2)
    turn, shear = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    frame = rotation @ np.array([[1, shear], [0, 1]]) * radius
    filled, cut = _FORMS[name](rng)
    low = np.floor(np.maximum(centre - 1.25 * radius, 0)).astype(int)
    high = np.ceil(np.minimum(centre + 1.25 * radius, size_px)).astype(int)
    width, height = (int(v) for v in high - low)
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for outlines, value in ((filled, 255), (cut, 0)):
        for outline in outlines:
            corners = (outline @ frame.T + centre - low) * _SUPERSAMPLING
            pen.polygon([(float(x), float(y)) for x, y in corners], fill=value)
    alpha = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255
    return _Stencil(alpha, (slice(low[1], high[1]), slice(low[0], high[0])))


# The looks: every colour and fill is open to every class.


def _paint(rng: np.random.Generator, canvas: np.ndarray, stencil: _Stencil) -> None:
    """Lay one object over the canvas (H, W, 3) in place: shadow, then a filled, shaded surface."""
    under = canvas[stencil.window]  # (h, w, 3), a view
    alpha = stencil.alpha[..., None]
    if rng.random() < 0.3:
        down, right = rng.integers(1, 4, 2)
        under[down:, right:] *= 1 - 0.45 * alpha[:-down, :-right]
    beneath = (under * alpha).sum(axis=(0, 1)) / max(float(alpha.sum()), 1e-6)
    fill = _pattern(rng, alpha.shape[:2], _far_colour(rng, beneath))
    height, width = alpha.shape[:2]
    slope_y, slope_x = rng.uniform(-0.25, 0.25, 2)
    light = 1 + slope_y * np.linspace(-1, 1, height)[:, None] + slope_x * np.linspace(-1, 1, width)
    under += alpha * (fill * light[..., None].astype(np.float32) - under)


def _far_colour(rng: np.random.Generator, beneath: np.ndarray) -> np.ndarray:
    """A random RGB colour, at least `_MIN_CONTRAST` away from what lies beneath."""
    while True:
        colour = rng.uniform(15, 240, 3)
        if np.abs(colour - beneath).mean() > _MIN_CONTRAST:
            return colour


def _pattern(rng: np.random.Generator, hw: tuple[int, int], colour: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32 surface around `colour`: plain, striped, checked or mottled."""
    kind = rng.choice(4, p=(0.55, 0.15, 0.1, 0.2))
    other = np.clip(colour + rng.uniform(-45, 45, 3), 0, 255)
    if kind == 0:
        weight = np.zeros(hw, np.float32)
    elif kind == 3:
        weight = _clouds(rng, hw)
    else:
        weight = _stripes(rng, hw, crossed=kind == 2)
    return colour.astype(np.float32) + weight[..., None] * (other - colour).astype(np.float32)


def _stripes(rng: np.random.Generator, hw: tuple[int, int], crossed: bool) -> np.ndarray:
    """(h, w) float32, 0 or 1: stripes of random direction and width, or a chequerboard of them."""
    angle, frequency = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(4, 10)
    ys, xs = np.arange(hw[0])[:, None] * frequency, np.arange(hw[1]) * frequency
    weight = np.sin(xs * np.cos(angle) + ys * np.sin(angle)) > 0
    if crossed:
        weight = weight ^ (np.sin(ys * np.cos(angle) - xs * np.sin(angle)) > 0)
    return weight.astype(np.float32)


def _clouds(rng: np.random.Generator, hw: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 in [0, 1]: value noise, three octaves of smoothed random grids."""
    total = np.zeros(hw, np.float32)
    for cells in rng.integers(3, 7) * np.array([1, 3, 8]):
        grid = Image.fromarray(rng.random((int(cells), int(cells)), np.float32))
        total += np.asarray(grid.resize((hw[1], hw[0]), Image.Resampling.BICUBIC)) / np.sqrt(cells)
    return (total - total.min()) / np.ptp(total)


def _background(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """(H, W, 3) float32: clouds between two colours, sometimes over stripes, and a few strokes that are no objects."""
    low, high = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    surface = _pattern(rng, (size_px, size_px), low)
    surface += (0.6 * _clouds(rng, (size_px, size_px)))[..., None] * (high.astype(np.float32) - surface)
    ground = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(ground)
    for _ in range(rng.integers(0, 5)):
        ends = [float(v) for v in rng.uniform(0, size_px, 4)]
        pen.line(ends, fill=tuple(int(v) for v in rng.integers(0, 256, 3)), width=int(rng.integers(1, 4)))
    return np.asarray(ground, np.float32).copy()


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the canvas with exposure, a little blur and sensor noise."""
    exposed = Image.fromarray(np.clip(canvas * rng.uniform(0.75, 1.2), 0, 255).astype(np.uint8))
    blurred = exposed.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.9))))
    noise = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(0, 6)
    return np.clip(np.asarray(blurred, np.float32) + noise, 0, 255).astype(np.uint8)
