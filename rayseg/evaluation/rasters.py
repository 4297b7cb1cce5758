"""Truths' masks, for a shard at once, outside the interpreter's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rayseg.evaluation.columns import Columns, Rows
from rayseg.kernels.coco_polygons import coco_polygon_counts
from rayseg.kernels.overlaps import inspect_masks

_DECIMALS = 6


def rings_to_rles(masks: Sequence[Sequence[np.ndarray]], image_hws: Sequence[tuple[int, int]]) -> list[bytes]:
    """The compressed RLEs of N masks given as rings (K, 2), each in an image of its own size, by the COCO API's rule."""
    if not masks:
        return []
    rings = [ring for mask in masks for ring in mask]
    sizes = np.array(image_hws, np.int64).reshape(-1, 2)
    counts, offsets = coco_polygon_counts(
        np.concatenate(rings).astype(np.float64),
        _offsets([len(ring) for ring in rings]),
        _offsets([len(mask) for mask in masks]),
        sizes[:, 0].copy(),
        sizes[:, 1].copy(),
    )
    data, places = counts.tobytes(), offsets.tolist()
    return [data[places[i] : places[i + 1]] for i in range(len(masks))]


def with_masks(
    rows: Rows, rings: Mapping[int, Sequence[np.ndarray]], image_hws: Sequence[tuple[int, int]], first: int
) -> Columns:
    """The rows as columns, those in `rings` with the masks that these are; areas that are not given are measured.

    The rows' boxes are corners, those of the columns x, y, width, height. `image_hws` are the sizes of images `first` on.
    """
    columns = rows.columns()
    columns.boxes_xywh[:, 2:] = _sides(columns.boxes_xywh[:, :2], columns.boxes_xywh[:, 2:])
    images = (columns.images - first).tolist()
    if rings:
        made = rings_to_rles(list(rings.values()), [image_hws[images[row]] for row in rings])
        columns = _replaced(columns, dict(zip(rings, made, strict=True)))
    missing = np.isnan(columns.areas)
    if missing.any():
        sizes = np.array([image_hws[image] for image in images], np.int64).reshape(-1, 2)
        _, areas, _ = inspect_masks(columns.counts, columns.offsets, sizes[:, 0].copy(), sizes[:, 1].copy())
        boxes = columns.boxes_xywh[:, 2] * columns.boxes_xywh[:, 3]
        columns.areas[missing] = np.where(columns.lengths > 0, areas, boxes)[missing]
    return columns


def _sides(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`high` - `low`; where COCO's file gave the side in decimals, exactly what it gave.

    The record holds low + side, whose last bit is lost in the difference; a difference rounded to 6 decimals is the number
    in the file, if adding it gives `high` again.
    """
    side = high - low
    decimal = np.round(side, _DECIMALS)
    return np.where(low + decimal == high, decimal, side)


def _replaced(columns: Columns, rles: Mapping[int, bytes]) -> Columns:
    strings = columns.strings(range(len(columns)))
    for row, rle in rles.items():
        strings[row] = rle
    changes = {
        "lengths": np.array([len(one) for one in strings], np.int64),
        "counts": np.frombuffer(b"".join(strings), np.uint8).copy(),
    }
    return Columns(**{name: changes.get(name, getattr(columns, name)) for name in Columns.__dataclass_fields__})


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
