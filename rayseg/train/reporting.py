"""`OUT/report.html` of a training that has come to its end."""

from __future__ import annotations

from typing import Any

from rayseg import storage
from rayseg.datasets.image_checks import upright_pixels
from rayseg.models.predictor import Predictor
from rayseg.train import metrics_log
from rayseg.train.records import Records
from rayseg.train.spec import TrainSpec
from rayseg.train.validation import labelled
from rayseg.views.training_report import Sample, training_report

NAME = "report.html"
SAMPLES = 6
LEAST_SCORE = 0.5  # of what is shown


def write_report(
    spec: TrainSpec, predictor: Predictor, data: Records, val: Records | None, facts: dict[str, Any]
) -> None:
    """Write it below `spec.out`: samples are of the validation images, or of those learnt from where there are none."""
    shown = val or data
    step = max(1, len(shown) // SAMPLES)
    ranks = range(0, len(shown), step)[:SAMPLES]
    truths = {image.name: image for image in map(shown.image, ranks)}
    samples = [
        Sample(upright_pixels(truths[one.name]), truths[one.name], one)
        for one in labelled(predictor, shown, ranks, LEAST_SCORE)
    ]
    counts = {
        "images": f"{len(data):,}" + (f", {len(val):,} to measure on" if val else ", none to measure on"),
        "objects": f"{sum(data.instances.values()):,} of {len(data.class_names):,} classes",
    }
    title = f"Training of {spec.out.rstrip('/').rpartition('/')[2]}"
    asked = {name: value for name, value in spec.model_dump(mode="json").items() if value is not None}
    html = training_report(title, metrics_log.read(spec.out), samples, data.class_names, counts | facts, asked)
    storage.write(storage.join(spec.out, NAME), html)
