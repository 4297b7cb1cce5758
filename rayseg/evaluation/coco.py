"""COCO's box and mask metrics of detections against ground truth: twelve numbers each.

Computed by hotcoco, which matches pycocotools. Category ids are the data set's own; `results_of` maps a model's classes
to them. Lin et al., "Microsoft COCO", 2014; the matching and the 101-point precision are the COCO API's `COCOeval`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hotcoco import COCO, COCOeval

from rayseg.errors import UsageError
from rayseg.kernels import Rles
from rayseg.records import Instances

METRIC_NAMES: tuple[str, ...] = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

IouType = Literal["segm", "bbox"]
GroundTruth = Mapping[str, Any] | str | Path
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metrics:
    """`segm` and `bbox`: the values of `METRIC_NAMES` in [0, 1], -1 where there was nothing to measure it on.

    `class_ap` is the mask AP of each category by name.
    """

    segm: dict[str, float]
    bbox: dict[str, float]
    class_ap: dict[str, float]

    def to_json(self) -> dict[str, dict[str, float]]:
        """Plain dicts, as `model.json` and reports store them."""
        return {"segm": dict(self.segm), "bbox": dict(self.bbox), "class_ap": dict(self.class_ap)}


def mask_ap(ground_truth: GroundTruth, results: Sequence[Result]) -> Metrics:
    """Mask and box metrics of COCO result dicts (`image_id`, `category_id`, `score`, `segmentation`, `bbox`).

    `ground_truth` is a COCO dict or the path of its JSON. Boxes missing from the results are those of their masks.
    Raises `UsageError` for a result that names an image or a category the ground truth does not have, or has no mask.
    """
    truth = _read(ground_truth)
    _check(truth, results, "segmentation")
    segm, class_ap = evaluate(truth, results, "segm")
    bbox, _ = evaluate(truth, results, "bbox")
    return Metrics(segm, bbox, class_ap)


def box_ap(ground_truth: GroundTruth, results: Sequence[Result]) -> dict[str, float]:
    """The twelve box metrics alone, for results without masks. Raises `UsageError` like `mask_ap`."""
    truth = _read(ground_truth)
    _check(truth, results, "bbox")
    return evaluate(truth, results, "bbox")[0]


def results_of(instances: Instances, image_id: int, category_ids: Sequence[int]) -> list[Result]:
    """COCO result dicts of one image; class c becomes the data set's `category_ids[c]`."""
    return [row | {"category_id": category_ids[row["category_id"]]} for row in instances.to_coco(image_id)]


def evaluate(
    truth: Mapping[str, Any], results: Sequence[Result], iou_type: IouType
) -> tuple[dict[str, float], dict[str, float]]:
    """The twelve metrics by name, and AP by category name, for masks ("segm") or boxes ("bbox").

    An object's size class is that of its annotated `area`, a detection's that of its own mask or box.
    """
    coco_truth = COCO(dict(truth))
    coco_results = coco_truth.load_res([_only(result, iou_type) for result in results])
    evaluation = COCOeval(coco_truth, coco_results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its table
        evaluation.summarize()
    metrics: dict[str, float] = dict(zip(METRIC_NAMES, (float(value) for value in evaluation.stats), strict=True))
    return metrics, _class_ap(evaluation, {category["id"]: category["name"] for category in truth["categories"]})


def _class_ap(evaluation: COCOeval, names: Mapping[int, str]) -> dict[str, float]:
    """AP of each category over all sizes, -1 for one without objects."""
    assert evaluation.eval is not None, "accumulate() was called"
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU thresholds, recalls, categories)
    means = np.where((precision > -1).all(axis=(0, 1)), precision.mean(axis=(0, 1)), -1.0)
    return {names[key]: float(value) for key, value in zip(evaluation.params.cat_ids, means, strict=True)}


def _read(ground_truth: GroundTruth) -> Mapping[str, Any]:
    if isinstance(ground_truth, Mapping):
        content, name = ground_truth, "ground truth"
    else:
        name = str(ground_truth)
        try:
            content = json.loads(Path(ground_truth).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"ground truth {name}: cannot be read as COCO JSON: {error}") from None
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise UsageError(f"{name}: expected COCO's images, annotations and categories, found no {', '.join(missing)}")
    return content


def _check(truth: Mapping[str, Any], results: Sequence[Result], needed: str) -> None:
    """Raise `UsageError` at the first result that could never match, or that lacks the `needed` field."""
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for i, result in enumerate(results):
        for key, known in (("image_id", images), ("category_id", categories)):
            if result.get(key) not in known:
                raise UsageError(f"result {i}: {key} {result.get(key)!r} is not in the ground truth")
        if needed not in result:
            raise UsageError(f"result {i} (image {result['image_id']}): expected {needed}, found {', '.join(result)}")
        if needed == "segmentation" and not isinstance(result[needed], Mapping):
            raise UsageError(f"result {i} (image {result['image_id']}): expected its segmentation as RLE")


def _only(result: Result, iou_type: IouType) -> Result:
    """What `iou_type` measures: a box beside a mask would decide the mask's size class, and the other way round."""
    if iou_type == "bbox" and "bbox" not in result:
        box_xywh = Rles.from_coco([result["segmentation"]]).boxes_xywh()[0]
        result = {**result, "bbox": box_xywh.tolist()}
    other = "bbox" if iou_type == "segm" else "segmentation"
    return {key: value for key, value in result.items() if key not in (other, "area")}
