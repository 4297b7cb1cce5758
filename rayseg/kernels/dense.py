"""Dense masks to RLE."""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel
from rayseg.kernels.rles import Rles


def encode(masks: np.ndarray) -> Rles:
    """RLEs of masks (N, H, W) bool or uint8, any non-zero pixel being inside. pycocotools' encode, bit for bit.

    Raises ValueError for another shape, TypeError for another dtype.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, H, W), found {masks.shape}")
    if masks.dtype not in (np.bool_, np.uint8):
        raise TypeError(f"masks must be bool or uint8, found {masks.dtype}")
    image_hw = masks.shape[1], masks.shape[2]
    columns = np.ascontiguousarray(masks.view(np.uint8).transpose(0, 2, 1)).reshape(len(masks), image_hw[0] * image_hw[1])
    runs, offsets = _column_runs(columns)
    return Rles.from_runs(runs, offsets, image_hw)


@kernel
def _column_runs(masks):
    n, size = masks.shape
    runs = np.empty(1024, np.int64)
    offsets = np.zeros(n + 1, np.int64)
    count = 0
    for i in range(n):
        inside = False
        start = 0
        for p in range(size):
            if (masks[i, p] != 0) != inside:
                if count + 2 > len(runs):
                    grown = np.empty(2 * len(runs), np.int64)
                    grown[:count] = runs[:count]
                    runs = grown
                runs[count] = p - start
                count += 1
                start = p
                inside = not inside
        if count + 2 > len(runs):
            grown = np.empty(2 * len(runs), np.int64)
            grown[:count] = runs[:count]
            runs = grown
        runs[count] = size - start
        count += 1
        offsets[i + 1] = count
    return runs[:count].copy(), offsets
