"""A model without weights: known rectangles, for tests and for dry runs of everything around a model.

Each quadrant of an image gets one rectangle, an eighth of the image's sides away from the quadrant's edges. Its class
is the strongest channel of the quadrant's mean colour, its score grows with that mean. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayseg.models.cards import ModelInfo
from rayseg.models.preprocess import Prepared, Preprocess, as_prepared
from rayseg.models.thresholds import Thresholds
from rayseg.records import RawDetections

ARCHITECTURE = "rectangles"
GRID_SIDE = 28
INFO = ModelInfo(
    uri=ARCHITECTURE,
    architecture=ARCHITECTURE,
    class_names=("red", "green", "blue"),
    fingerprint="0" * 63 + "1",  # the last digit is this file's version
    preprocess=Preprocess(),
    thresholds=Thresholds(),
)


class RectanglesDetector:
    """Finds `boxes_of(image_hw)` in every image."""

    device = "cpu"

    def detect(self, images: Sequence[np.ndarray | Prepared], thresholds: Thresholds) -> list[RawDetections]:
        """One record per image, best first; grids are all ones. Raises `UsageError` for what is not an image."""
        return [_detect(as_prepared(image), thresholds) for image in images]


def boxes_of(image_hw: tuple[int, int]) -> np.ndarray:
    """The rectangles (4, 4) float32 xyxy of an image of (H, W): top left, top right, bottom left, bottom right."""
    height, width = image_hw
    left_top = [(x * width / 2, y * height / 2) for y in (0, 1) for x in (0, 1)]
    return np.array(
        [(x + width / 8, y + height / 8, x + width * 3 / 8, y + height * 3 / 8) for x, y in left_top], np.float32
    )


def _detect(image: Prepared, thresholds: Thresholds) -> RawDetections:
    means = np.array([_mean_colour(quadrant) for quadrant in _quadrants(image.pixels)])  # (4, 3)
    classes = means.argmax(axis=1)
    scores = (0.5 + means.max(axis=1) / 512).astype(np.float32)
    best = np.argsort(-scores, kind="stable")
    kept = best[scores[best] > thresholds.score][: thresholds.max_detections]
    grids = np.ones((len(kept), GRID_SIDE, GRID_SIDE), np.float32)
    return RawDetections(boxes_of(image.image_hw)[kept], scores[kept], classes[kept], grids, image.image_hw)


def _quadrants(pixels: np.ndarray) -> list[np.ndarray]:
    """The four quarters in the order of `boxes_of`, each of at least one pixel."""
    height, width = pixels.shape[:2]
    rows = (slice(0, -(-height // 2)), slice(height // 2, height))
    columns = (slice(0, -(-width // 2)), slice(width // 2, width))
    return [pixels[row, column] for row in rows for column in columns]


def _mean_colour(pixels: np.ndarray) -> np.ndarray:
    """Mean of each channel (3,) float64, the same whatever the machine: a sum of integers, divided once."""
    rows = pixels.sum(axis=0, dtype=np.uint32)  # first down the columns: whole rows are added at a time
    return rows.sum(axis=0, dtype=np.int64) / (pixels.size // 3)
