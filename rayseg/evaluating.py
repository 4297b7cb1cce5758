"""`rayseg eval`: label where a model is given, evaluate, write what came of it.

    OUT/report.html            to look at, one file
    OUT/classes.csv            a row per class
    OUT/plots/*.png            each plot of the report
    OUT/detections.parquet     what became of every detection, and
    OUT/truths.parquet         of every truth: for queries, and for `--compare`
    OUT/labels/                with a model: the label run
    OUT/metrics.json           every number and the spec; written last

This is the one place that knows of labelling, evaluation and the report.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rayseg import __version__, storage
from rayseg.annotations import Dataset
from rayseg.errors import UsageError
from rayseg.evaluation.comparison import Comparison, compare
from rayseg.evaluation.match_files import DETECTIONS, TRUTHS, match_tables
from rayseg.evaluation.metrics import Metrics
from rayseg.evaluation.run import evaluate
from rayseg.evaluation.spec import EvalSpec
from rayseg.formats.registry import read
from rayseg.views.chart_files import chart_pngs
from rayseg.views.evaluation_report import evaluation_report

REPORT, METRICS, CLASSES = "report.html", "metrics.json", "classes.csv"
_MEASURES = {"segm": "mask", "boundary": "boundary", "bbox": "box"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found, and where it was written."""

    out: str
    metrics: Metrics

    def as_json(self) -> dict[str, Any]:
        """The numbers without the curves, for a script."""
        values = self.metrics.to_json()
        dropped = ("curves", "confusion", "classes")
        return {"event": "done", "out": self.out, **{key: one for key, one in values.items() if key not in dropped}}

    def text(self) -> str:
        """The numbers as a table for the terminal."""
        metrics = self.metrics
        names = list(metrics.bbox)
        lines = [f"{'':9}" + "".join(f"{name:>7}" for name in names)]
        for measure, label in _MEASURES.items():
            values = metrics.measures.get(measure)  # type: ignore[call-overload]
            if values:
                lines.append(f"{label:9}" + "".join(f"{_number(values[name]):>7}" for name in names))
        for measure, rows in metrics.intervals.items():
            if rows.get("AP"):
                low, high = rows["AP"]  # type: ignore[misc]
                confidence = 100 * metrics.settings["confidence"]
                lines.append(f"{_MEASURES[measure]} AP: {low:.3f} to {high:.3f} ({confidence:g} % interval)")
        lines += [f"! {one}" for one in metrics.problems]
        lines.append(f"report: {storage.join(self.out, REPORT)}")
        return "\n".join(lines)


def run(spec: EvalSpec, say: Say = lambda _: None) -> Evaluation:
    """Evaluate what `spec` asks for and write it below `spec.out`; `say` is told of each stage.

    Raises `UsageError` where nothing can be compared, and what `evaluate` and labelling raise.
    """
    spec = _absolute(spec)
    say("reading the ground truth")
    dataset = read(spec.data, spec.data_format, spec.images, spec.on_error)
    predictions = spec.predictions or _labelled(spec, dataset, say)
    say("matching")
    metrics = evaluate(dataset, predictions, **_settings(spec))
    say("writing the report")
    write(spec, metrics, predictions)
    return Evaluation(spec.out, metrics)


def run_comparison(
    a: str, b: str, spec: EvalSpec | None, *, out: str | None, say: Say = lambda _: None, **settings: Any
) -> Comparison:
    """Compare two outputs of `rayseg eval`; with a `spec`, whose data is the ground truth, two sets of predictions.

    `settings` are `draws`, `confidence` and `seed`. With `out`, `OUT/comparison.json` is written.
    """
    if spec is None:
        found = compare(a, b, **settings)
    else:
        spec = _absolute(spec)
        pair = []
        for name in (a, b):
            say(f"evaluating {name}")
            dataset = read(spec.data, spec.data_format, spec.images, spec.on_error)
            pair.append(evaluate(dataset, name, **{**_settings(spec), "draws": 0, "examples_each": 0}))
        found = compare(pair[0], pair[1], names=(a, b), **settings)
    if out is not None:
        storage.write(storage.join(out, "comparison.json"), _json(found.to_json()))
    return found


def write(spec: EvalSpec, metrics: Metrics, predictions: str) -> None:
    """Everything below `spec.out`."""
    values = metrics.to_json()
    sources = {"Ground truth": spec.data, "Model": spec.model, "Predictions": predictions, "rayseg": __version__}
    title = f"Evaluation of {(spec.model or predictions).rstrip('/').rpartition('/')[2]}"
    files = {REPORT: evaluation_report(title, values, metrics.examples, sources), CLASSES: _csv(metrics)}
    files |= {f"plots/{name}.png": data for name, data in chart_pngs(values).items()}
    files |= match_tables(metrics)
    for name, data in files.items():
        storage.write(storage.join(spec.out, *name.split("/")), data)
    record = {"rayseg": __version__, "spec": spec.model_dump(mode="json"), **values}
    storage.write(storage.join(spec.out, METRICS), _json(record))


def _settings(spec: EvalSpec) -> dict[str, Any]:
    """The fields of the spec that `evaluate` takes."""
    names = ("split", "max_dets", "sizes", "boundary", "panoptic_score", "score_threshold", "draws", "confidence", "seed",
             "on_error", "threads")  # fmt: skip
    return {**{name: getattr(spec, name) for name in names}, "examples_each": spec.examples}


def _labelled(spec: EvalSpec, dataset: Dataset, say: Say) -> str:
    """Label the images of the ground truth, as `rayseg label` would; the output."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rayseg.label.run import run as label
    from rayseg.label.spec import LabelSpec
    from rayseg.specs import validate

    images = [image for image in dataset.images if spec.split is None or image.split == spec.split]
    nameless = [image.name for image in images if image.uri is None]
    if nameless:
        raise UsageError(
            f"images: {len(nameless):,} of {len(images):,} images of the ground truth cannot be found, the first is "
            f"{nameless[0]!r}: give their folder with --images"
        )
    listing = io.BytesIO()
    pq.write_table(pa.table({"uri": pa.array([image.uri for image in images], pa.string())}), listing)
    where, out = storage.join(spec.out, "images.parquet"), storage.join(spec.out, "labels")
    storage.write(where, listing.getvalue())
    values = {"images": where, "column": "uri", "model": spec.model, "out": out, "address": spec.address}
    say(f"labelling {len(images):,} images")
    label(validate(LabelSpec, {**values, "score_threshold": spec.model_score_threshold}))
    return out


def _absolute(spec: EvalSpec) -> EvalSpec:
    """Local paths made absolute, so that images are named alike wherever they are read from."""
    changes = {
        name: os.path.abspath(value)
        for name in ("data", "images", "predictions", "model", "out")
        if (value := getattr(spec, name)) and "://" not in value and (name != "model" or os.path.exists(value))
    }
    return spec.model_copy(update=changes)


def _csv(metrics: Metrics) -> bytes:
    header, rows = metrics.class_rows()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["n/a" if cell is None else cell for cell in row] for row in rows])
    return text.getvalue().encode()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


__all__ = ["CLASSES", "DETECTIONS", "METRICS", "REPORT", "TRUTHS", "Evaluation", "run", "run_comparison", "write"]
