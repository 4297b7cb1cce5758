"""Detections of a shard as they are matched: masks that decode, tight boxes where none came, areas, best first.

Which size class a detection has is its own: that of its mask for masks, of its box for boxes, as Detectron2 and
MMDetection have it. The COCO API's `loadRes` gives one to both, the box's where results bring one; `sizes="loadres"` does
as it does.

Shapes: D detections, I images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rayseg.evaluation.columns import Columns
from rayseg.evaluation.detection_rows import Bad, canonical
from rayseg.evaluation.predictions import Predictions
from rayseg.evaluation.truth import Truth
from rayseg.formats.faults import Faults
from rayseg.kernels import Rles
from rayseg.kernels.overlaps import inspect_masks
from rayseg.kernels.rle_codec import REASONS

Sizes = Literal["own", "loadres"]
_EMPTY_RUN = next(code for code, reason in enumerate(REASONS) if "length 0" in reason)


@dataclass(frozen=True, slots=True)
class Measured:
    """Detections by image, by class, best first, of equal scores the earlier first.

    mask_areas, box_areas  (D,) float64 pixels, what decides their size class
    ranks                  (D,) int64, each one's place within its image and class, from 0
    given_boxes            (D,) bool, whether its box came with it
    """

    columns: Columns
    mask_areas: np.ndarray
    box_areas: np.ndarray
    ranks: np.ndarray
    given_boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)


def measure(
    columns: Columns, truth: Truth, predictions: Predictions, faults: Faults, *, most: int, sizes: Sizes
) -> Measured:
    """The `most` best detections of each image and class of `columns`. An RLE that does not decode goes to `faults`."""
    columns, areas, boxes = _decodable(columns, truth, predictions, faults)
    given = ~np.isnan(columns.boxes_xywh[:, 0])
    boxes_xywh = np.where(given[:, None], columns.boxes_xywh, boxes)
    order, ranks = _ranking(columns)
    order, ranks = order[ranks < most], ranks[ranks < most]
    box_areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]
    mask_areas = areas.astype(np.float64)
    if sizes == "loadres":
        mask_areas = box_areas = np.where(given, box_areas, mask_areas)
    best = Columns(**{**_as_dict(columns), "boxes_xywh": boxes_xywh}).take(order)
    return Measured(best, mask_areas[order], box_areas[order], ranks, given[order])


def _decodable(
    columns: Columns, truth: Truth, predictions: Predictions, faults: Faults
) -> tuple[Columns, np.ndarray, np.ndarray]:
    """The rows whose masks decode, their masks' areas (D,) and tight boxes (D, 4)."""
    heights, widths = truth.image_hws[columns.images].T.copy()
    codes, areas, boxes = inspect_masks(columns.counts, columns.offsets, heights, widths)
    codes[columns.lengths == 0] = 0
    if not codes.any():
        return columns, areas, boxes.astype(np.float64)
    strings, kept = columns.strings(range(len(columns))), np.ones(len(columns), bool)
    for row in np.flatnonzero(codes).tolist():
        hw = (int(heights[row]), int(widths[row]))
        try:
            if codes[row] != _EMPTY_RUN:
                raise Bad("mask", f"its RLE {REASONS[codes[row]]}")
            strings[row] = canonical(Rles.from_strings([strings[row]], hw).runs()[0].tolist(), hw)
        except Bad as error:
            name, item = truth.images.names[columns.images[row]], columns.items[row]
            faults.add(predictions.source, error.kind, f"prediction {item} (image {name})", str(error))
            kept[row] = False
    mended = Columns(
        **{
            **_as_dict(columns),
            "lengths": np.array([len(one) for one in strings], np.int64),
            "counts": np.frombuffer(b"".join(strings), np.uint8),
        }
    ).take(np.flatnonzero(kept))
    heights, widths = heights[kept], widths[kept]
    _, areas, boxes = inspect_masks(mended.counts, mended.offsets, heights, widths)
    return mended, areas, boxes.astype(np.float64)


def _ranking(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Rows by image, class and falling score, and each one's place within its image and class."""
    order = np.lexsort((-columns.scores, columns.classes, columns.images))
    images, classes = columns.images[order], columns.classes[order]
    new = np.ones(len(order), bool)
    new[1:] = (images[1:] != images[:-1]) | (classes[1:] != classes[:-1])
    firsts = np.flatnonzero(new)
    return order, np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))


def count_copies(measured: Measured) -> int:
    """Detections that are another one again: the same image, class, score, box and mask."""
    columns = measured.columns
    same = (columns.images[1:] == columns.images[:-1]) & (columns.classes[1:] == columns.classes[:-1])
    tied = np.flatnonzero(same & (columns.scores[1:] == columns.scores[:-1]))
    if not len(tied):
        return 0
    rows = np.unique(np.concatenate([tied, tied + 1]))
    keys = [columns.images[rows], columns.classes[rows], columns.scores[rows], *columns.boxes_xywh[rows].T]
    seen = set(zip(*(key.tolist() for key in keys), columns.strings(rows.tolist()), strict=True))
    return len(rows) - len(seen)


def _as_dict(columns: Columns) -> dict[str, np.ndarray]:
    return {name: getattr(columns, name) for name in Columns.__dataclass_fields__}
