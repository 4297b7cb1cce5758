"""COCO's evaluation in numbers: thresholds, size ranges, recalls, the names of the twelve metrics.

Lin et al., "Microsoft COCO", 2014; the values are the COCO API's `Params`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Measure = str  # how overlap is measured: "segm" of masks, "bbox" of boxes, "boundary" of masks' boundaries
MEASURES: tuple[Measure, ...] = ("segm", "bbox", "boundary")

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # (T,)
RECALLS = np.linspace(0.0, 1.0, 101)  # (R,)
SIZES = ("all", "small", "medium", "large")
SIZE_RANGES = np.array([[0, 1e10], [0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])  # (A, 2) pixels of area
MAX_DETS = (1, 10, 100)  # detections kept of each image and class, for the three ARs; the last also for all else

AT_50, AT_75 = 0, 5  # places in IOU_THRESHOLDS
BACKGROUND_IOU = 0.1  # below it a detection lies on nothing, for TIDE's kinds of error
BOUNDARY_RATIO = 0.02  # of the image's diagonal, the width of a boundary (Cheng et al., 2021)


def metric_names(max_dets: Sequence[int] = MAX_DETS) -> tuple[str, ...]:
    """The twelve names; ARs say how many detections they keep."""
    first, second, last = max_dets
    sizes = ("APs", "APm", "APl", f"AR{first}", f"AR{second}", f"AR{last}", "ARs", "ARm", "ARl")
    return ("AP", "AP50", "AP75", *sizes)


def boundary_distance(image_hw: Sequence[int]) -> int:
    """How far from its outline a mask's boundary reaches in an image (H, W), in pixels."""
    return max(1, round(BOUNDARY_RATIO * float(np.hypot(image_hw[0], image_hw[1]))))
