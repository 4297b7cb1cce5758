"""AP of a network in training: every worker labels its share of the images, the lead measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from rayseg.annotations import AnnotatedImage, Annotation, Dataset, Mask
from rayseg.datasets.image_checks import upright_pixels
from rayseg.evaluation import evaluate
from rayseg.models.predictor import Predictor
from rayseg.records import Instances
from rayseg.train.records import Records
from rayseg.train.stand_ins import FAULTS

BATCH = 4
LEAST_SCORE = 0.01  # the tail of the precision-recall curve counts too


@dataclass(frozen=True, slots=True)
class Scores:
    """The twelve metrics of masks and boxes, and AP of each class; None where there is nothing to measure."""

    segm: dict[str, float | None]
    bbox: dict[str, float | None]
    class_ap: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's card has them."""
        return {"segm": self.segm, "bbox": self.bbox, "class_ap": self.class_ap}

    def of(self, measure: str) -> float | None:
        """AP by `measure`, "segm" or "bbox"; None is undefined."""
        return (self.segm if measure == "segm" else self.bbox).get("AP")


def validate(
    predictor: Predictor,
    truth: Records,
    stop_wanted: Callable[[], bool] = lambda: False,
    left_out: Callable[[str], None] = lambda why: None,
) -> Scores | None:
    """What `predictor` reaches on `truth`; all workers must ask, and all get the same answer.

    `stop_wanted` is asked at every image: None where any of the workers is to stop.
    Images that cannot be read count for nothing where `truth` skips them; `left_out` is told why.
    """
    workers = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if workers > 1 else 0
    mine: list[AnnotatedImage] | None = []
    for image in labelled(predictor, truth, range(rank, len(truth), workers), left_out=left_out):
        if stop_wanted():
            mine = None
            break
        mine.append(image)
    if workers == 1:
        return None if mine is None else _measured(mine, truth, predictor.class_names)
    gathered: list[Any] | None = [None] * workers if rank == 0 else None
    dist.gather_object(mine, gathered)
    answer: list[Any] = [None]
    if gathered is not None and None not in gathered:
        answer = [_measured([image for part in gathered for image in part], truth, predictor.class_names)]
    dist.broadcast_object_list(answer, 0)
    return answer[0]


def labelled(
    predictor: Predictor,
    truth: Records,
    ranks: Sequence[int],
    least_score: float = LEAST_SCORE,
    left_out: Callable[[str], None] = lambda why: None,
) -> Iterator[AnnotatedImage]:
    """What `predictor` finds on the images of `ranks`, in their order, without those that are broken and to be skipped."""
    predictor.score_threshold = least_score
    for start in range(0, len(ranks), BATCH):
        images = [truth.image(rank) for rank in ranks[start : start + BATCH]]
        read = [(image, pixels) for image in images if (pixels := _pixels(image, truth.skip, left_out)) is not None]
        found = predictor.predict([pixels for _, pixels in read])
        for (image, _), instances in zip(read, found, strict=True):
            yield AnnotatedImage(image.name, None, instances.image_hw, tuple(_annotations(instances)))


def _pixels(image: AnnotatedImage, skip: bool, left_out: Callable[[str], None]) -> np.ndarray | None:
    try:
        return upright_pixels(image)
    except FAULTS as fault:
        if not skip:
            raise
        left_out(f"{image.name}: {fault}")
        return None


def _annotations(found: Instances) -> Iterator[Annotation]:
    for i, rle in enumerate(found.rles.strings()):
        x1, y1, x2, y2 = (float(v) for v in found.boxes_xyxy[i])
        shape = Mask(rle, found.image_hw)
        yield Annotation(int(found.classes[i]), (x1, y1, x2, y2), shape, score=float(found.scores[i]))


def _measured(found: list[AnnotatedImage], truth: Records, class_names: tuple[str, ...]) -> Scores:
    from rayseg.annotations import Category

    predictions = Dataset(tuple(Category(name) for name in class_names), found)
    threads = torch.get_num_threads()
    names = {image.name for image in found}
    seen = Dataset(truth.categories, [image for image in truth.dataset().images if image.name in names])
    metrics = evaluate(seen, predictions, boundary=False, draws=0, examples_each=0, on_error="skip", threads=threads)
    return Scores(dict(metrics.segm or {}), dict(metrics.bbox), dict(metrics.class_ap))
