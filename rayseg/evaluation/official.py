"""The published numbers: AP and AR as hotcoco computes them, fed shard by shard.

hotcoco matches each shard as it comes and keeps match records only. Images carry their place in the order of the COCO API,
which decides between equal scores; classes and truths carry numbers of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hotcoco import Params, StreamingEval

from rayseg.evaluation.columns import CROWD, UNMEASURED, Columns
from rayseg.evaluation.measured import Sizes
from rayseg.evaluation.numbers import AT_50, AT_75, metric_names
from rayseg.evaluation.shards import Shard


@dataclass(frozen=True, slots=True)
class Official:
    """The twelve numbers by name, None where there is nothing to measure; and what they are means of.

    precision  (T, R, K, A, M) float64, recall (T, K, A, M): IoU thresholds, recalls, classes, sizes, most detections;
               -1 where there is nothing to measure
    """

    metrics: dict[str, float | None]
    precision: np.ndarray
    recall: np.ndarray


class OfficialEval:
    """hotcoco's evaluation by one measure, "segm" or "bbox"."""

    def __init__(
        self,
        measure: Literal["segm", "bbox"],
        class_names: Sequence[str],
        order: np.ndarray,
        max_dets: Sequence[int],
        sizes: Sizes,
    ) -> None:
        """`order` (I,) int64 is each image's place in the COCO API's order."""
        self._measure, self._order, self._sizes, self._max_dets = measure, order, sizes, tuple(max_dets)
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
        params = Params(measure)
        params.max_dets = list(max_dets)
        self._stream = StreamingEval(categories, measure, params=params)
        self._truths = 0

    def add(self, shard: Shard) -> None:
        """Match one shard."""
        ids = self._order[shard.first : shard.first + len(shard.image_hws)] + 1
        images = [
            {"id": number, "height": height, "width": width}
            for number, (height, width) in zip(ids.tolist(), shard.image_hws.tolist(), strict=True)
        ]
        detections, masks = self._detections(shard)
        self._stream.update(images, self._truth_dicts(shard), detections, segmentation=masks)

    def _truth_dicts(self, shard: Shard) -> list[dict[str, Any]]:
        columns = shard.truths
        passed_over = CROWD if self._measure == "bbox" else CROWD | UNMEASURED
        rows: list[dict[str, Any]] = [
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
            for number, image, label, box, area, crowd in zip(
                range(self._truths + 1, self._truths + 1 + len(columns)),
                (self._order[columns.images] + 1).tolist(),
                (columns.classes + 1).tolist(),
                columns.boxes_xywh.tolist(),
                columns.areas.tolist(),
                ((columns.flags & passed_over) != 0).astype(int).tolist(),
                strict=True,
            )
        ]
        self._truths += len(columns)
        if self._measure == "segm":
            for row, mask in zip(rows, _masks(columns, shard), strict=True):
                row["segmentation"] = mask
        return rows

    def _detections(self, shard: Shard) -> tuple[Any, list[Any] | None]:
        """Detections (D, 7) as hotcoco takes them, and their masks where masks are measured.

        hotcoco sizes a detection by its box. Masks are given one of their area, since nothing else is made of it.
        """
        columns = shard.detections.columns
        images, labels = self._order[columns.images] + 1, columns.classes + 1
        if self._measure == "segm":
            areas = shard.detections.mask_areas
            boxes = np.column_stack([np.zeros((len(areas), 2)), areas, np.ones(len(areas))])
            return np.column_stack([images, boxes, columns.scores, labels]), _masks(columns, shard)
        if self._sizes == "own" or shard.detections.given_boxes.all():
            return np.column_stack([images, columns.boxes_xywh, columns.scores, labels]), None
        rows: list[dict[str, Any]] = [
            {
                "image_id": image,
                "category_id": label,
                "score": score,
                **({"bbox": box} if given else {"segmentation": mask}),
            }
            for image, label, score, box, mask, given in zip(
                images.tolist(),
                labels.tolist(),
                columns.scores.tolist(),
                columns.boxes_xywh.tolist(),
                _masks(columns, shard),
                shard.detections.given_boxes.tolist(),
                strict=True,
            )
        ]
        return rows, None

    def result(self) -> Official:
        """The numbers over all shards; nothing can be added after."""
        evaluation = self._stream.finalize()
        evaluation.accumulate()
        assert evaluation.eval is not None, "accumulate() was called"
        precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
        return Official(twelve(precision, recall, self._max_dets), precision, recall)


def twelve(precision: np.ndarray, recall: np.ndarray, max_dets: Sequence[int]) -> dict[str, float | None]:
    """The COCO API's twelve summaries of `precision` (T, R, K, A, M) and `recall` (T, K, A, M)."""
    values = [
        _mean(precision[:, :, :, 0, -1]),
        _mean(precision[AT_50, :, :, 0, -1]),
        _mean(precision[AT_75, :, :, 0, -1]),
        *(_mean(precision[:, :, :, size, -1]) for size in (1, 2, 3)),
        *(_mean(recall[:, :, 0, most]) for most in range(len(max_dets))),
        *(_mean(recall[:, :, size, -1]) for size in (1, 2, 3)),
    ]
    return dict(zip(metric_names(max_dets), values, strict=True))


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _masks(columns: Columns, shard: Shard) -> list[dict[str, Any]]:
    sizes = shard.image_hws[columns.images - shard.first].tolist()
    strings = columns.strings(range(len(columns)))
    return [{"size": size, "counts": counts or _empty(size)} for size, counts in zip(sizes, strings, strict=True)]


def _empty(size: list[int]) -> list[int]:
    return [size[0] * size[1]]
