"""A small synthetic data set with everything that annotations can have, and hypothesis strategies for such records."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from rayseg import kernels
from rayseg.annotations import (
    AnnotatedImage,
    Annotation,
    Category,
    Dataset,
    Ellipse,
    Mask,
    Points,
    Polygons,
    Polyline,
)

HW = (60, 80)
CATEGORIES = (
    Category("car", 26, "vehicle", (0, 0, 142)),
    Category("person", 24, "human", (220, 20, 60)),
    Category("traffic light", 19),
)


def ring(x: float, y: float, radius: float, points: int = 9, turn: float = 0.3) -> np.ndarray:
    """A regular polygon with coordinates of two decimals."""
    turns = np.arange(points) * 2 * math.pi / points + turn
    return np.round(np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1), 2)


def mask_of(dense: np.ndarray) -> Mask:
    """The RLE of (H, W) zeros and ones."""
    return Mask(kernels.encode(np.ascontiguousarray(dense, np.uint8)[None]).strings()[0], dense.shape)


def blob(seed: int, hw: tuple[int, int] = HW, *, x: int = 0, width: int = 30) -> np.ndarray:
    """(H, W) uint8: an area with ragged edges, holes and islands."""
    noise = np.random.default_rng(seed).random(hw)
    smooth = sum(np.roll(noise, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)) / 25
    dense = (smooth > 0.5).astype(np.uint8)
    dense[:, :x] = 0
    dense[:, x + width :] = 0
    return dense


def sample_annotations() -> list[tuple[Annotation, ...]]:
    """The annotations of seven images; only in the last do masks overlap."""
    plain = Annotation(0, shape=Polygons(((ring(15, 20, 11),),)), attributes={"occluded": True})
    parts = Annotation(
        1, shape=Polygons(((ring(45, 12, 8),), (ring(62, 40, 9, 5),))), attributes={"colour": "red"}, group=3
    )
    hole = Annotation(
        0, (20.5, 20.25, 70.0, 58.5), Polygons(((ring(45, 38, 18), ring(42, 36, 5), ring(51, 41, 4, 6)),)),
        attributes={"truncated": True, "difficult": True},
    )  # fmt: skip
    crowd = Annotation(1, shape=mask_of(blob(1, x=50, width=25)), crowd=True)
    noisy = Annotation(2, shape=mask_of(blob(2, x=2, width=40)), attributes={"occluded": False, "lanes": 2})
    ellipse = Annotation(1, shape=Ellipse((40.0, 30.0), (22.0, 9.5), 30.0), group=7)
    line = Annotation(0, shape=Polyline(np.array([(3.0, 5), (20.5, 9), (30, 4.25)])))
    points = Annotation(2, shape=Points(np.array([(5.0, 5), (70.5, 50.25)])))
    box = Annotation(2, (10.0, 12.0, 31.5, 40.25), attributes={"difficult": True})
    foreign = Annotation(0, shape=Polygons(((ring(60, 45, 9),),)), extras={"elsewhere": {"track": 4}})
    scored = Annotation(1, (4.0, 4.0, 30.0, 30.0), Polygons(((ring(17, 17, 12),),)), score=0.75)
    behind = Annotation(0, shape=Polygons(((ring(30, 30, 16),),)))
    before = Annotation(1, shape=Polygons(((ring(44, 34, 13, 7),),)))
    apart = [(plain, parts), (hole,), (noisy, crowd), (ellipse, line, points), (), (box, foreign, scored)]
    return [*apart, (behind, before)]


def encoded_image(seed: int, hw: tuple[int, int] = HW) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sample_dataset(folder: Path) -> Dataset:
    """The synthetic data set; its images are written to `folder`."""
    images = []
    for number, annotations in enumerate(sample_annotations()):
        name = f"street_{number:06d}.png"
        (folder / name).write_bytes(encoded_image(number))
        split = "val" if number % 3 == 2 else "train"
        images.append(AnnotatedImage(name, str(folder / name), HW, annotations, split))
    return Dataset(CATEGORIES, images)


# ---- strategies

coordinates = st.floats(-20, 100, allow_nan=False) | st.integers(-20, 100).map(float)


def rings(least: int) -> st.SearchStrategy[np.ndarray]:
    """(K, 2) float64 that do not repeat their first point."""
    points = st.lists(st.tuples(coordinates, coordinates), min_size=least, max_size=7)
    return points.filter(lambda found: found[0] != found[-1]).map(lambda found: np.array(found, np.float64))


polygons = st.lists(st.lists(rings(3), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(
    lambda parts: Polygons(tuple(parts))
)
radii = st.floats(0.01, 50)
ellipses = st.builds(Ellipse, st.tuples(coordinates, coordinates), st.tuples(radii, radii), st.floats(-360, 360))
lines = rings(2).map(Polyline) | rings(2).map(Points)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda box: (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
attributes = st.dictionaries(st.sampled_from(["difficult", "occluded", "truncated"]), st.booleans(), max_size=2) | (
    st.dictionaries(texts, json_values, max_size=2)
)
foreign_extras = st.dictionaries(
    st.sampled_from(["elsewhere", "cvat"]), st.dictionaries(texts, json_values, min_size=1, max_size=2), max_size=1
)


def masks(hw: tuple[int, int]) -> st.SearchStrategy[Mask]:
    """RLEs of one size."""
    return st.integers(0, 2**32 - 1).map(lambda seed: mask_of(np.random.default_rng(seed).random(hw) < 0.4))


def annotations(hw: tuple[int, int], classes: int) -> st.SearchStrategy[Annotation]:
    """Annotations of all kinds that a reader would take; those with a shape also have a box."""
    shapes = st.none() | polygons | masks(hw) | ellipses | lines
    return st.builds(
        Annotation,
        category=st.integers(0, classes - 1),
        box_xyxy=boxes,
        shape=shapes,
        crowd=st.booleans(),
        score=st.none() | st.floats(0, 1),
        group=st.none() | st.integers(-5, 2**40),
        attributes=attributes,
        extras=foreign_extras,
    )
