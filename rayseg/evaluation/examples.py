"""The images to look at: the surest false detections, the largest missed objects, the poorest masks.

Chosen from the records, one of each image and kind; their masks are then taken from the shards they lie in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rayseg.evaluation.records import Records
from rayseg.evaluation.shards import Shard
from rayseg.evaluation.spool import SHARD_IMAGES
from rayseg.kernels.matching import BACKGROUND, BOTH, CLASS, DUPLICATE, IGNORED, PLACE, TRUE

Kind = Literal["false", "missed", "poor"]
KINDS: tuple[Kind, ...] = ("false", "missed", "poor")

_WORDS = {
    CLASS: "wrong class",
    PLACE: "wrong place",
    BOTH: "wrong class and place",
    DUPLICATE: "duplicate",
    BACKGROUND: "background",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One truth or detection of an image: class, score (None of a truth), box, compressed RLE (b"" for none).

    `crowd` marks a truth that is a region to be passed over.
    """

    class_id: int
    score: float | None
    box_xywh: tuple[float, float, float, float]
    rle: bytes
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One image with what is wrong in it.

    kind        "false": a detection that hits nothing; "missed": a truth that nothing hits; "poor": a match of little overlap
    focus       the detection or truth concerned; `partner` is the truth of a poor match, or the one a false detection missed
    what        the kind of a false detection in words
    iou         of a poor match
    truths, detections  all others of the image, of detections those of at least the threshold of the report
    """

    kind: Kind
    image: int
    name: str
    uri: str | None
    image_hw: tuple[int, int]
    focus: Shape
    partner: Shape | None
    what: str
    iou: float | None
    truths: tuple[Shape, ...]
    detections: tuple[Shape, ...]


def choose(
    records: Records, shard_of: Callable[[int], Shard], names: list[str], uris: list[str | None], *, each: int,
    threshold: float,
) -> tuple[Example, ...]:  # fmt: skip
    """Up to `each` examples of every kind. `shard_of` gives a shard by number; `threshold` is the least score shown."""
    wanted: list[tuple[Kind, int]] = [(kind, row) for kind in KINDS for row in _worst(records, kind, each)]
    images = [_image_of(records, kind, row) for kind, row in wanted]
    shards: dict[int, Shard] = {}
    examples = []
    for (kind, row), image in sorted(zip(wanted, images, strict=True), key=lambda one: one[1]):
        number = image // SHARD_IMAGES
        if number not in shards:
            shards = {number: shard_of(number)}  # one at a time is held
        examples.append((kind, row, _example(records, shards[number], kind, row, image, names, uris, threshold)))
    rank = {one: i for i, one in enumerate(wanted)}
    return tuple(example for kind, row, example in sorted(examples, key=lambda one: rank[one[0], one[1]]))


def _worst(records: Records, kind: Kind, each: int) -> list[int]:
    """Rows of detections, or of truths for "missed", the worst first, one per image."""
    detections, truths, found = records.detections, records.truths, records.found[records.primary]
    if kind == "missed":
        hit = np.zeros(len(truths), bool)
        hit[found.truths[found.truths >= 0]] = True
        rows = np.flatnonzero(~hit & ~found.hidden[:, 0])
        return _one_per_image(rows[np.argsort(-truths.areas[rows], kind="stable")], truths.images, each)
    if kind == "false":
        rows = np.flatnonzero((detections.kinds != TRUE) & (detections.kinds != IGNORED))
        return _one_per_image(rows[np.argsort(-detections.scores[rows], kind="stable")], detections.images, each)
    rows = np.flatnonzero((detections.kinds == TRUE) & ~np.isnan(found.ious))
    return _one_per_image(rows[np.argsort(found.ious[rows], kind="stable")], detections.images, each)


def _one_per_image(rows: np.ndarray, images: np.ndarray, each: int) -> list[int]:
    _, first = np.unique(images[rows], return_index=True)
    return rows[np.sort(first)][:each].tolist()


def _image_of(records: Records, kind: Kind, row: int) -> int:
    return int((records.truths if kind == "missed" else records.detections).images[row])


def _example(
    records: Records,
    shard: Shard,
    kind: Kind,
    row: int,
    image: int,
    names: list[str],
    uris: list[str | None],
    threshold: float,
) -> Example:
    place = image - shard.first
    dets = range(int(shard.det_starts[place]), int(shard.det_starts[place + 1]))
    gts = range(int(shard.gt_starts[place]), int(shard.gt_starts[place + 1]))
    first_det = int(np.searchsorted(records.detections.images, image))
    first_gt = int(np.searchsorted(records.truths.images, image))
    found = records.found[records.primary]
    focus_det = focus_gt = partner = -1
    if kind == "missed":
        focus_gt = gts.start + row - first_gt
    else:
        focus_det = dets.start + row - first_det
        target = int((found.truths if kind == "poor" else records.detections.targets)[row])
        partner = gts.start + target - first_gt if target >= 0 else -1
    shown = [d for d in dets if d != focus_det and shard.detections.columns.scores[d] >= threshold]
    height, width = shard.image_hws[place].tolist()
    return Example(
        kind,
        image,
        names[image],
        uris[image],
        (height, width),
        _truth(shard, focus_gt) if kind == "missed" else _detection(shard, focus_det),
        _truth(shard, partner) if partner >= 0 else None,
        _WORDS.get(int(records.detections.kinds[row]), "") if kind == "false" else "",
        float(found.ious[row]) if kind == "poor" else None,
        tuple(_truth(shard, g) for g in gts if g not in (focus_gt, partner)),
        tuple(_detection(shard, d) for d in shown),
    )


def _truth(shard: Shard, row: int) -> Shape:
    columns = shard.truths
    rle = columns.strings([row])[0]
    box = columns.boxes_xywh[row].tolist()
    return Shape(int(columns.classes[row]), None, tuple(box), rle, bool(columns.flags[row]))


def _detection(shard: Shard, row: int) -> Shape:
    columns = shard.detections.columns
    rle = columns.strings([row])[0]
    return Shape(int(columns.classes[row]), float(columns.scores[row]), tuple(columns.boxes_xywh[row].tolist()), rle)
