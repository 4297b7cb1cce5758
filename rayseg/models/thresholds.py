"""Which detections stay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """score: a detection stays above it; iou: of two of one class that overlap more, the better stays;
    max_detections: at most so many per image, the best; mask: a pixel is inside where its probability is >= this."""

    score: float = 0.05
    iou: float = 0.5
    max_detections: int = 100
    mask: float = 0.5
