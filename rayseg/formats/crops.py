"""A mask as the pixels of its tight rectangle, and back: what tools store that keep a mask beside its corner.

Neither way makes the mask of the whole image. Shapes: H W image pixels, h w pixels of the crop.
"""

from __future__ import annotations

import numpy as np

from rayseg.annotations import Mask
from rayseg.kernels import Rles


def crop_of(mask: Mask) -> tuple[int, int, np.ndarray]:
    """Left, top and the (h, w) bool pixels of the tight rectangle; (0, 0, one pixel of False) for an empty mask.

    The RLE must be valid: see `rayseg.kernels.check_rle`.
    """
    rles = Rles.from_strings([mask.counts], mask.image_hw)
    left, top, width, height = (int(side) for side in rles.boxes_xywh()[0])
    if not width or not height:
        return 0, 0, np.zeros((1, 1), np.bool_)
    rows = mask.image_hw[0]
    edges = np.cumsum(rles.runs()[0]).clip(left * rows, (left + width) * rows) - left * rows
    changes = np.zeros(width * rows + 1, np.int8)
    np.add.at(changes, edges, np.where(np.arange(len(edges)) % 2 == 0, 1, -1).astype(np.int8))
    inside = np.cumsum(changes[:-1], dtype=np.int8) > 0
    return left, top, np.ascontiguousarray(inside.reshape(width, rows)[:, top : top + height].T)


def mask_of(left: int, top: int, pixels: np.ndarray, image_hw: tuple[int, int]) -> Mask:
    """The mask of an image (H, W) whose (h, w) `pixels` that are not zero lie at `left`, `top`; what lies outside is cut."""
    rows, columns = image_hw
    pixels = pixels[max(-top, 0) : max(rows - top, 0), max(-left, 0) : max(columns - left, 0)] != 0
    left, top = max(left, 0), max(top, 0)
    padded = np.zeros((pixels.shape[1], pixels.shape[0] + 2), np.int8)  # column by column, an empty row at either end
    padded[:, 1:-1] = pixels.T
    column, row = np.nonzero(np.diff(padded, axis=1))
    edges = (left + column) * rows + top + row
    same = np.flatnonzero(edges[1:] == edges[:-1])  # a run that goes on at the top of the next column
    edges = np.delete(edges, np.concatenate([same, same + 1]))
    runs = np.diff(np.concatenate([[0], edges, [rows * columns]]))
    if len(runs) > 1 and runs[-1] == 0:
        runs = runs[:-1]
    return Mask(Rles.from_runs(runs, np.array([0, len(runs)]), image_hw).strings()[0], (rows, columns))
