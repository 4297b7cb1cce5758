"""Predictions from wherever they are, as columns by shard: COCO results, a label run's output, or a data set with scores.

What is broken (a NaN score, an RLE of another size or that does not decode, an image twice in a label run) goes to
`faults`, which raises or passes over; what merely does not match (an image or a class that the ground truth lacks) is
left out and counted in `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rayseg import storage
from rayseg.annotations import Dataset
from rayseg.errors import UsageError
from rayseg.evaluation.columns import Columns
from rayseg.evaluation.spool import Spool
from rayseg.evaluation.truth import Truth
from rayseg.formats.faults import Faults

Result = Mapping[str, Any]
Source = str | Sequence[Result] | Dataset


@dataclass(slots=True)
class Counts:
    """What became of the predictions that were read."""

    predictions: int = 0  # all that the source holds
    taken: int = 0  # those of an image and a class of the ground truth
    other_images: int = 0
    other_classes: int = 0
    copies: int = 0  # the same detection again
    failed_images: int = 0  # images that a label run could not label
    images_without_row: int = 0  # images of the ground truth that a label run does not have
    class_names: tuple[str, ...] | None = None  # what the model can say, where the source tells
    unknown_classes: dict[str, int] = field(default_factory=dict)

    def miss_class(self, name: str, count: int = 1) -> None:
        """`count` predictions are of a class that the ground truth lacks."""
        self.other_classes += count
        self.unknown_classes[name] = self.unknown_classes.get(name, 0) + count

    def to_json(self) -> dict[str, Any]:
        return {
            "predictions": self.predictions,
            "matched_to_an_image_and_class": self.taken,
            "of_images_not_in_the_ground_truth": self.other_images,
            "of_classes_not_in_the_ground_truth": self.other_classes,
            "exact_copies": self.copies,
            "images_that_failed": self.failed_images,
            "images_without_a_row": self.images_without_row,
        }


class Predictions(Protocol):
    """What a source is read into."""

    source: str
    counts: Counts

    def columns(self, shard: int) -> Columns:
        """The detections of a shard, image by image, within an image in the order of the source."""
        ...


class Spooled:
    """Predictions that are read once, in their own order."""

    def __init__(self, source: str) -> None:
        self.source, self.counts, self.spool = source, Counts(), Spool()

    def columns(self, shard: int) -> Columns:
        """See `Predictions`."""
        return self.spool.columns(shard)


def read_predictions(source: Source, truth: Truth, faults: Faults, notes: Faults) -> Predictions:
    """Take in `source`: the URI of COCO results (.json) or of a label run's output, a list of results, or a data set.

    Raises `UsageError` where it is none of these.
    """
    if isinstance(source, Dataset):
        from rayseg.evaluation.scored_dataset import read_dataset

        return read_dataset(source, truth, faults, notes)
    if not isinstance(source, str):
        from rayseg.evaluation.coco_results import read_results

        return read_results(source, truth, faults, notes)
    if source.endswith(".json"):
        from rayseg.evaluation.coco_results import open_results

        return open_results(source, truth, faults, notes)
    if storage.exists(storage.join(source, "job.json")) or storage.exists(storage.join(source, "manifest.json")):
        from rayseg.evaluation.label_output import read_label_output

        return read_label_output(source, truth, faults, notes)
    raise UsageError(f"predictions {source}: expected COCO results (.json) or the output folder of rayseg label")


def check_any_matched(predictions: Predictions, truth: Truth) -> None:
    """Raise `UsageError` where, once all shards were read, no prediction was of an image and a class of the ground truth."""
    if predictions.counts.predictions and not predictions.counts.taken:
        raise UsageError(_nothing_matches(predictions.source, predictions.counts, truth))


def _nothing_matches(source: str, counts: Counts, truth: Truth) -> str:
    what = "predictions" if source == "predictions" else f"predictions {source}"
    if counts.other_images >= counts.other_classes:
        example = truth.images.names[0]
        return (
            f"{what}: none of its {counts.predictions:,} predictions is of an image of the ground truth, whose first "
            f"image is {example!r}: are these the predictions of another data set?"
        )
    found = ", ".join(repr(name) for name in list(counts.unknown_classes)[:10])
    known = ", ".join(repr(name) for name in truth.classes.names[:10])
    return f"{what}: none of its classes ({found}) is one of the ground truth ({known}): names are what is compared"
