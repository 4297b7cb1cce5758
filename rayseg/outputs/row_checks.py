"""What every row of a label output must satisfy by itself, checked by column over a table of rows.

Where a mask may lie follows from how Mask R-CNN's is made: a grid of M x M probabilities is padded by one cell all
round and pasted into the box expanded to match, rounded outwards to whole pixels (torchvision's
`paste_masks_in_image`). So a mask stays within its box enlarged by 1 / M of its size and one pixel on each side; it
need not reach the box's edges, and may be empty. Models that place masks on the whole image promise no such thing.

Shapes: R rows, N instances of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayseg.formats.parts import ERROR_TYPE, INSTANCE_TYPE
from rayseg.kernels import rle_codec

GRID_SIDE = 28
BOX_TOLERANCE = 0.01  # pixels; x + w in float32 is off by that much at the far end of a large image


@dataclass(frozen=True, slots=True)
class Finding:
    """Rows with the same fault: `rows` (K,) into the table, and what is wrong with the k-th of them."""

    rows: np.ndarray
    what: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class _Flat:
    """All instances of all rows that can be looked at: `row` and `index` (N,) say which of which row each is."""

    values: pa.StructArray
    row: np.ndarray
    index: np.ndarray

    def keep(self, mask: np.ndarray) -> _Flat:
        if mask.all():
            return self
        return _Flat(self.values.filter(pa.array(mask)), self.row[mask], self.index[mask])

    def find(self, mask: np.ndarray, what: Callable[[int], str]) -> Iterator[Finding]:
        """Instances where `mask` (N,) holds; `what` takes the instance's position in this record."""
        found = np.flatnonzero(mask)
        if len(found):
            yield Finding(self.row[found], lambda k: f"instance {self.index[found[k]]}: {what(found[k])}")


def check_rows(table: pa.Table, class_names: Sequence[str] | None, *, is_pasted: bool = True) -> Iterator[Finding]:
    """Faults of a table of `DATA_SCHEMA`. `class_names` None leaves categories unchecked.

    `is_pasted` asks that masks stay near their boxes, see above.
    """
    height = table["height"].fill_null(0).to_numpy().astype(np.int64)
    width = table["width"].fill_null(0).to_numpy().astype(np.int64)
    instances = table["instances"].combine_chunks()
    lengths = np.diff(instances.offsets)
    yield from _check_null_columns(table)
    yield from _check_outcome(table, lengths, (height > 0) & (width > 0))
    row = np.repeat(np.arange(len(table)), lengths)
    index = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat = _Flat(instances.flatten(), row, index)
    for name in INSTANCE_TYPE.names:
        yield from flat.find(_is_null(flat.values, name), lambda _, name=name: f"{name} is null")
    flat = flat.keep(~np.any([_is_null(flat.values, name) for name in INSTANCE_TYPE.names], axis=0))
    yield from _check_scores(flat)
    yield from _check_categories(flat, class_names)
    flat = flat.keep(((height > 0) & (width > 0))[flat.row])
    yield from _check_shapes(flat, height[flat.row], width[flat.row], is_pasted)


def _check_null_columns(table: pa.Table) -> Iterator[Finding]:
    for name in ("ordinal", "uri", "instances"):
        yield from _find(table[name].is_null().to_numpy(), f"{name} is null")


def _check_outcome(table: pa.Table, lengths: np.ndarray, has_size: np.ndarray) -> Iterator[Finding]:
    error = table["error"].combine_chunks()
    failed = error.is_valid().to_numpy(zero_copy_only=False)
    yield from _find(~failed & ~has_size, "has neither an error nor a height and width of at least 1")
    yield from _find(failed & (lengths > 0), "has an error and instances too")
    rows = np.flatnonzero(failed)
    errors = error.take(pa.array(rows))
    for name in ERROR_TYPE.names:
        unsaid = np.array([not text for text in errors.field(name).to_pylist()], bool)
        yield from _find(unsaid, f"has an error without a {name}", rows)


def _check_scores(flat: _Flat) -> Iterator[Finding]:
    score = flat.values.field("score").to_numpy()
    yield from flat.find(~((score >= 0) & (score <= 1)), lambda i: f"score is {score[i]}, expected 0 to 1")


def _check_categories(flat: _Flat, class_names: Sequence[str] | None) -> Iterator[Finding]:
    if class_names is None:
        return
    ids = flat.values.field("category_id").to_numpy()
    known = (ids >= 0) & (ids < len(class_names))
    yield from flat.find(~known, lambda i: f"category_id is {ids[i]}, expected 0 to {len(class_names) - 1}")
    flat, ids = flat.keep(known), ids[known]
    names = flat.values.field("category").dictionary_encode()
    unequal = np.array([[a != b for b in class_names] for a in names.dictionary.to_pylist()], bool)
    wrong = unequal.reshape(-1, len(class_names))[names.indices.to_numpy(), ids] if len(ids) else np.empty(0, bool)
    category = flat.values.field("category")
    yield from flat.find(wrong, lambda i: f"category is {category[i].as_py()!r}, expected {class_names[ids[i]]!r}")


def _check_shapes(flat: _Flat, height: np.ndarray, width: np.ndarray, is_pasted: bool) -> Iterator[Finding]:
    """Boxes, masks and areas. `height`, `width` (N,) are the instances' images'."""
    bbox = flat.values.field("bbox").flatten().to_numpy(zero_copy_only=False).reshape(-1, 4).astype(np.float64)
    x, y, w, h = bbox.T
    finite = np.isfinite(bbox).all(axis=1) & (w >= 0) & (h >= 0)
    yield from flat.find(~finite, lambda i: f"bbox is {bbox[i].tolist()}, expected finite x, y, w, h with w, h >= 0")
    low, high = -BOX_TOLERANCE, BOX_TOLERANCE
    inside = (x >= low) & (y >= low) & (x + w <= width + high) & (y + h <= height + high)
    yield from flat.find(
        finite & ~inside, lambda i: f"bbox {bbox[i].tolist()} leaves the image of {width[i]} x {height[i]} pixels"
    )
    codes, areas, boxes = _inspect(flat.values.field("rle"), height, width)
    yield from flat.find(
        codes != 0, lambda i: f"rle {rle_codec.REASONS[codes[i]]} (image of {width[i]} x {height[i]} pixels)"
    )
    area = flat.values.field("area").to_numpy()
    yield from flat.find((codes == 0) & (area != areas), lambda i: f"area is {area[i]}, its mask has {areas[i]} pixels")
    if is_pasted:
        strays = finite & (areas > 0) & ~_near(boxes, bbox)
        yield from flat.find(
            strays, lambda i: f"mask lies in {boxes[i].tolist()}, away from its bbox {bbox[i].tolist()}"
        )


def _inspect(rle: pa.StringArray, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (N,), areas (N,) and tight boxes xywh (N, 4) of N RLEs, runs of images of one size at a time."""
    _, offsets_buffer, data_buffer = rle.buffers()
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    offsets = np.zeros(len(rle) + 1, np.int64)
    if len(rle):
        offsets[:] = np.frombuffer(offsets_buffer, np.int32)[rle.offset : rle.offset + len(rle) + 1]
    cuts = np.flatnonzero((np.diff(height) != 0) | (np.diff(width) != 0)) + 1
    found = [
        rle_codec.inspect_counts(data, offsets[a : b + 1], int(height[a]), int(width[a]))
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rle)], strict=True)
        if a < b
    ]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4), np.int64)
    codes, areas, boxes = zip(*found, strict=True)
    return np.concatenate(codes), np.concatenate(areas), np.concatenate(boxes)


def _near(mask_xywh: np.ndarray, bbox_xywh: np.ndarray) -> np.ndarray:
    """(N,) bool: the mask's tight box lies where a grid pasted into the bbox may reach."""
    margin = bbox_xywh[:, 2:] / GRID_SIDE + 1 + BOX_TOLERANCE
    low = bbox_xywh[:, :2] - margin
    high = bbox_xywh[:, :2] + bbox_xywh[:, 2:] + margin
    return np.all((mask_xywh[:, :2] >= low) & (mask_xywh[:, :2] + mask_xywh[:, 2:] <= high), axis=1)


def _is_null(values: pa.StructArray, name: str) -> np.ndarray:
    field = values.field(name).is_null().to_numpy(zero_copy_only=False)
    return field | values.is_null().to_numpy(zero_copy_only=False)


def _find(mask: np.ndarray, what: str, rows: np.ndarray | None = None) -> Iterator[Finding]:
    """Rows where `mask` holds; `rows` where it is not over all of them."""
    found = np.flatnonzero(mask) if rows is None else rows[mask]
    if len(found):
        yield Finding(found, lambda _: what)
