"""Fixed-size crops of a feature map, bilinear: RoIAlign with channels last, where a sample is one run over memory.

K boxes, B images, H W sides of the feature map, C channels, S side of a crop. He et al., "Mask R-CNN", 2017, section 3; the
corner cases and the order of additions are those of torchvision's `roi_align` with `aligned=False`, so that the results are
equal to the last bit.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel


def roi_align(
    features: np.ndarray,
    boxes_xyxy: np.ndarray,
    owners: np.ndarray,
    scale: float,
    side: int,
    sampling_ratio: int = 2,
    *,
    out: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Crops (K, S, S, C) float32 of `features` (B, H, W, C) float32, channels contiguous.

    `boxes_xyxy` (K, 4) float32 are in pixels of the images, `owners` (K,) say whose box each is, and `scale` is the size of
    a feature map over that of its image. A bin is the mean of `sampling_ratio` squared samples; 0 takes about one per
    feature. With `out`, crop k goes to `out[rows[k]]`. Raises ValueError for shapes that do not fit.
    """
    count, channels = len(boxes_xyxy), features.shape[-1]
    if features.ndim != 4 or boxes_xyxy.shape != (count, 4) or owners.shape != (count,):
        raise ValueError(
            f"expected features (B, H, W, C), boxes (K, 4) and owners (K,), "
            f"found {features.shape}, {boxes_xyxy.shape} and {owners.shape}"
        )
    if count and not 0 <= int(owners.min()) <= int(owners.max()) < len(features):
        raise ValueError(f"owners must be within 0..{len(features) - 1}, found {owners.min()} to {owners.max()}")
    if out is None:
        out = np.empty((count, side, side, channels), np.float32)
    if rows is None:
        rows = np.arange(count)
    if out.shape[1:] != (side, side, channels) or (count and not 0 <= int(rows.min()) <= int(rows.max()) < len(out)):
        raise ValueError(f"out must be (>= {int(rows.max(initial=-1)) + 1}, {side}, {side}, {channels}): {out.shape}")
    boxes = np.ascontiguousarray(boxes_xyxy, np.float32)
    _crops(np.ascontiguousarray(features, np.float32), boxes, owners, rows, np.float32(scale), sampling_ratio, out)
    return out


@kernel
def _crops(features, boxes, owners, rows, scale, sampling_ratio, out):
    """Fill `out[rows[k]]` for every box."""
    height, width, side = features.shape[1], features.shape[2], out.shape[1]
    for k in range(len(boxes)):
        top, bin_height, grid_y = _bins(boxes[k, 1], boxes[k, 3], scale, side, sampling_ratio)
        left, bin_width, grid_x = _bins(boxes[k, 0], boxes[k, 2], scale, side, sampling_ratio)
        y_low, y_high, y_weight = _samples(top, bin_height, grid_y, side, height)
        x_low, x_high, x_weight = _samples(left, bin_width, grid_x, side, width)
        count = np.float32(max(grid_y * grid_x, 1))
        image, crop = features[owners[k]], out[rows[k]]
        for i in range(side):
            for j in range(side):
                target = crop[i, j]
                target[:] = np.float32(0)
                for y in range(i * grid_y, (i + 1) * grid_y):
                    for x in range(j * grid_x, (j + 1) * grid_x):
                        if y_low[y] >= 0 and x_low[x] >= 0:
                            upper, lower = image[y_low[y]], image[y_high[y]]
                            _add(target, upper[x_low[x]], upper[x_high[x]], lower[x_low[x]], lower[x_high[x]],
                                 y_weight[y], x_weight[x])  # fmt: skip
                for c in range(len(target)):
                    target[c] /= count


@kernel
def _add(target, a, b, c, d, y, x):
    """Add the bilinear sample between four neighbours (C,) to `target` (C,)."""
    one = np.float32(1)
    w_a, w_b, w_c, w_d = (one - y) * (one - x), (one - y) * x, y * (one - x), y * x
    for k in range(len(target)):
        target[k] += w_a * a[k] + w_b * b[k] + w_c * c[k] + w_d * d[k]


@kernel
def _bins(low, high, scale, side, sampling_ratio):
    """Where a box begins on the feature map, how long a bin is, and how many samples it has along this axis."""
    begin = low * scale
    length = max(high * scale - begin, np.float32(1))
    bin_length = length / np.float32(side)
    samples = sampling_ratio if sampling_ratio > 0 else np.int64(np.ceil(bin_length))
    return begin, bin_length, samples


@kernel
def _samples(begin, bin_length, samples, side, size):
    """Of each sample along an axis the feature before it (-1: outside), the one after, and the weight of the latter."""
    low, high = np.empty(side * samples, np.int64), np.empty(side * samples, np.int64)
    weight = np.empty(side * samples, np.float32)
    half, one = np.float32(0.5), np.float32(1)
    for k in range(len(low)):
        offset = (np.float32(k % samples) + half) * bin_length / np.float32(samples)
        at = begin + np.float32(k // samples) * bin_length + offset
        low[k], high[k], weight[k] = -1, -1, 0
        if -one <= at <= np.float32(size):
            at = max(at, np.float32(0))
            first = min(np.int64(at), size - 1)
            low[k], high[k] = first, min(first + 1, size - 1)
            weight[k] = at - np.float32(first) if first < size - 1 else np.float32(0)
    return low, high, weight
