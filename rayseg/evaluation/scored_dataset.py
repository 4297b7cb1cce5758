"""Predictions that are a data set themselves: annotations with scores, in whatever format they were read from."""

from __future__ import annotations

from rayseg.annotations import AnnotatedImage, Dataset
from rayseg.evaluation.detection_rows import Bad, DetectionRows
from rayseg.evaluation.predictions import Predictions, Spooled
from rayseg.evaluation.spool import SHARD_IMAGES
from rayseg.evaluation.truth import Truth, checked_mask
from rayseg.formats.faults import Faults


def read_dataset(dataset: Dataset, truth: Truth, faults: Faults, notes: Faults) -> Predictions:
    """All annotations of `dataset`; each must have a score. Classes and images are matched by name."""
    predictions = Spooled("predictions")
    counts = predictions.counts
    counts.class_names = dataset.class_names
    classes = [truth.classes.find(name) for name in dataset.class_names]
    rows, seen = DetectionRows("predictions", truth, faults), set()
    for number, image in enumerate(dataset.images):
        rank = _rank_of(image, truth)
        counts.predictions += len(image.annotations)
        if rank < 0:
            counts.other_images += len(image.annotations)
            notes.add("predictions", "image", image.name, "is not in the ground truth")
        elif rank in seen:
            faults.add("predictions", "image", image.name, "has predictions already: each image must come once")
        else:
            seen.add(rank)
            _add_image(predictions, rows, image, rank, classes, dataset.class_names, truth)
        if number % SHARD_IMAGES == SHARD_IMAGES - 1:
            predictions.spool.add(rows.rows.columns())
            rows = DetectionRows("predictions", truth, faults)
    predictions.spool.add(rows.rows.columns())
    return predictions


def _rank_of(image: AnnotatedImage, truth: Truth) -> int:
    rank = truth.images.of_path(image.name)
    return truth.images.of_path(image.uri) if rank < 0 and image.uri else rank


def _add_image(
    predictions: Spooled,
    rows: DetectionRows,
    image: AnnotatedImage,
    rank: int,
    classes: list[int],
    names: tuple[str, ...],
    truth: Truth,
) -> None:
    height, width = truth.image_hws[rank].tolist()
    hw = (height, width) if height else image.image_hw
    for number, one in enumerate(image.annotations):
        class_id = classes[one.category]
        if class_id < 0:
            predictions.counts.miss_class(names[one.category])
            continue
        predictions.counts.taken += 1
        segmentation = None
        if one.shape is not None:
            try:
                segmentation = {"size": list(hw or ()), "counts": checked_mask(one, hw)}
            except ValueError as error:
                rows.fault(rank, number, Bad("mask", str(error)))
                continue
        box = None
        if one.box_xyxy is not None:
            x1, y1, x2, y2 = one.box_xyxy
            box = (x1, y1, x2 - x1, y2 - y1)
        rows.add(rank, class_id, one.score, box, segmentation, number)
