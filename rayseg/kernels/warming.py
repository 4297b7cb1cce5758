"""Compile or load everything before the first image comes."""

from __future__ import annotations

import numpy as np

from rayseg.kernels.dense import encode, encode_id_map
from rayseg.kernels.grids import paste_rle
from rayseg.kernels.mask_suppression import mask_ious, mask_nms
from rayseg.kernels.polygons import from_polygons, to_polygons
from rayseg.kernels.refinement import drop_islands, smooth
from rayseg.kernels.rles import Rles, check_rle
from rayseg.kernels.roi_crops import roi_align
from rayseg.kernels.soft_suppression import fast_nms, matrix_nms, soft_nms
from rayseg.kernels.suppression import batched_nms, nms


def warm_up(everything: bool = True) -> None:
    """Call each kernel once on next to nothing: fills the cache while an image is built, or a worker before it serves.

    With `everything=False` only what labelling needs: suppression, crops, pasting and the RLE record.
    """
    boxes, scores = np.array([[0, 0, 4, 4], [1, 1, 3, 3]], np.float32), np.array([0.9, 0.8], np.float32)
    classes, grids = np.array([0, 1]), np.ones((2, 4, 4), np.float32)
    nms(boxes, scores, 0.5)
    batched_nms(boxes, scores, classes, 0.5)
    rles = paste_rle(grids, boxes, (8, 8))
    rles.areas()
    rles.boxes_xywh()
    rles.decode(0)
    check_rle(rles.strings()[0], (8, 8))
    roi_align(np.ones((1, 4, 4, 1), np.float32), boxes, np.array([0, 0]), 1.0, 2)
    if everything:
        _warm_up_the_rest(boxes, scores, classes, rles)


def _warm_up_the_rest(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, rles: Rles) -> None:
    """Formats, evaluation and clean-up."""
    masks = np.ones((1, 4, 5), np.uint8)
    encode(masks)
    encode(masks.transpose(0, 2, 1))
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        encode_id_map(masks[0].astype(dtype))
    mask_ious(rles, rles)
    mask_nms(rles, scores, 0.5)
    soft_nms(boxes, scores)
    fast_nms(boxes, scores, classes, 0.5)
    matrix_nms(np.eye(2), scores)
    from_polygons(to_polygons(rles, 1.0), (8, 8))
    drop_islands(rles, 2)
    smooth(rles, 1)
