"""The records everything speaks.

Shapes: N instances, M grid side, H W image pixels. Coordinates are continuous pixels, x right, y down,
pixel centres at .5; boxes are (x1, y1, x2, y2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from rayseg.kernels.rles import Rles


@dataclass(frozen=True, slots=True)
class RawDetections:
    """What a model says about one image before thresholds, suppression and mask encoding.

    boxes_xyxy  (N, 4) float32, in pixels of the original image, clipped to it
    scores      (N,) float32 in [0, 1]
    classes     (N,) int64, contiguous from 0, background excluded
    grids       (N, M, M) float32, mask probabilities (or logits, with a matching `mask_threshold`)
    image_hw    (H, W) of the original image
    placement   "paste": each grid fills its box as torchvision's Mask R-CNN pastes it;
                "resize": each grid covers the whole image, bilinear, align_corners=False
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    grids: np.ndarray
    image_hw: tuple[int, int]
    placement: Literal["paste", "resize"] = "paste"

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Instances:
    """The instances of one image, best first.

    boxes_xyxy (N, 4) float32 pixels; scores (N,) float32 in [0, 1]; classes (N,) int64 from 0;
    rles one record of N COCO RLEs of the image's size; image_hw (H, W) after EXIF rotation.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    rles: Rles
    image_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO result dicts: `image_id`, `category_id` (= class), `bbox` xywh, `score`, `segmentation`, `area`.

        `segmentation["counts"]` is a str, so the list goes through `json.dumps` and pycocotools' `loadRes`.
        """
        areas = self.rles.areas()
        rows = []
        for i, rle in enumerate(self.rles.to_coco()):
            x1, y1, x2, y2 = (float(v) for v in self.boxes_xyxy[i])
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": int(self.classes[i]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(self.scores[i]),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "area": int(areas[i]),
                }
            )
        return rows
