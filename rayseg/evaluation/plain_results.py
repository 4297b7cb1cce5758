"""COCO results that are all as they should be, taken in whole columns: what most files hold, at a tenth of the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rayseg.evaluation.columns import Columns
from rayseg.evaluation.truth import Truth

_NUMBERS = {int, float}


def plain_columns(results: Sequence[Any], ranks: Sequence[int], truth: Truth, items: Sequence[int]) -> Columns | None:
    """N results of images `ranks`, or None where any is not plain and must be looked at by itself.

    Plain: a known class by its id, a finite score, and the same of a box and a compressed RLE of the image's size as all
    others have.
    """
    if not results or truth.classes.by_id is None:
        return None
    try:
        return _columns(results, ranks, truth, items, truth.classes.by_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _columns(
    results: Sequence[Any], ranks: Sequence[int], truth: Truth, items: Sequence[int], by_id: dict[int, int]
) -> Columns | None:
    first = results[0]
    if any("category" in one or "category_name" in one for one in results):
        return None
    classes = [by_id[one["category_id"]] for one in results]
    scores = [one["score"] for one in results]
    images = np.array(ranks, np.int64)
    lengths, counts = np.zeros(len(results), np.int64), np.empty(0, np.uint8)
    boxes = np.full((len(results), 4), np.nan)
    if first.get("segmentation"):
        masks = [one["segmentation"] for one in results]
        sizes = np.array([mask["size"] for mask in masks])
        strings = [mask["counts"].encode("ascii") for mask in masks]
        if sizes.dtype != np.int64 or not np.array_equal(sizes, truth.image_hws[images]) or not all(strings):
            return None
        lengths, counts = np.array([len(one) for one in strings], np.int64), np.frombuffer(b"".join(strings), np.uint8)
    elif any(one.get("segmentation") for one in results):
        return None
    if first.get("bbox"):
        given = [one["bbox"] for one in results]
        boxes = np.array(given, np.float64)
        if boxes.shape != (len(results), 4) or {type(side) for box in given for side in box} - _NUMBERS:
            return None
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
            return None
    elif any(one.get("bbox") for one in results) or not len(counts):
        return None
    if set(map(type, scores)) - _NUMBERS or not np.isfinite(np.array(scores, np.float64)).all():
        return None
    return Columns(
        images=images,
        classes=np.array(classes, np.int32),
        boxes_xywh=boxes,
        lengths=lengths,
        counts=counts,
        areas=np.full(len(results), np.nan),
        scores=np.array(scores, np.float64),
        flags=np.zeros(len(results), np.uint8),
        items=np.array(items, np.int64),
    )
