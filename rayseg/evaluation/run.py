"""`evaluate`: a data set and predictions in, `Metrics` out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayseg.annotations import Dataset
from rayseg.evaluation import bootstrap, examples, reliability
from rayseg.evaluation.error_kinds import error_kinds
from rayseg.evaluation.measured import Sizes
from rayseg.evaluation.metrics import (
    ClassMetrics,
    Confusion,
    Interval,
    Metrics,
    Panoptic,
    Values,
)
from rayseg.evaluation.numbers import MAX_DETS, Measure
from rayseg.evaluation.official import Official, twelve
from rayseg.evaluation.panoptic import SCORE, PanopticSums, panoptic_quality
from rayseg.evaluation.pipeline import Matching, Outcome, Shards, match_all
from rayseg.evaluation.predictions import Counts, Source, check_any_matched, read_predictions
from rayseg.evaluation.problems import problems_of
from rayseg.evaluation.ranked import Ranked, all_precision_recall, ranked
from rayseg.evaluation.records import Records
from rayseg.evaluation.truth import Truth, read_truth
from rayseg.formats.faults import Faults, OnError
from rayseg.formats.registry import read

NO_THRESHOLD = 0.0
FEWEST_IMAGES = 5  # a class in fewer has no interval: drawing the same image again says nothing of others


def evaluate(
    dataset: Dataset | str,
    predictions: Source,
    *,
    data_format: str | None = None,
    images: str | None = None,
    split: str | None = None,
    max_dets: tuple[int, int, int] = MAX_DETS,
    sizes: Sizes = "own",
    boundary: bool = True,
    panoptic_score: float = SCORE,
    score_threshold: float | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    on_error: OnError = "raise",
    examples_each: int = 8,
    threads: int | None = None,
) -> Metrics:
    """Measure `predictions` against `dataset`, a data set or the URI of one in any format.

    `predictions` are the URI of COCO results (.json) or of a label run's output, a list of COCO result dicts, or a data set
    whose annotations have scores. The settings are those of `EvalSpec`, which says what each means.

    Raises `UsageError` where nothing can be compared, `BadAnnotation` for a broken truth or prediction unless `on_error` is
    "skip", `JobError` for an unfinished label run, `StorageError` for what cannot be read.
    """
    faults, notes = Faults(on_error), Faults("skip")
    if isinstance(dataset, str):
        dataset = read(dataset, data_format, images, on_error)
    truth = read_truth(dataset, faults, split=split, threads=threads)
    source = read_predictions(predictions, truth, faults, notes)
    settings = Matching(tuple(max_dets), sizes, boundary, panoptic_score, threads)
    shards = Shards(truth, source, faults, settings)
    outcome = match_all(truth, shards, settings)
    check_any_matched(source, truth)
    told = {"max_dets": list(max_dets), "sizes": sizes, "draws": draws, "confidence": confidence, "seed": seed}
    summary = _Summary(truth, source.counts, outcome, settings, told, score_threshold)
    return summary.metrics(
        problems_of(truth, source.counts, dataset.faults, faults, notes),
        lambda threshold: examples.choose(
            outcome.records,
            shards.shard,
            truth.images.names,
            truth.images.uris,
            each=examples_each,
            threshold=threshold if threshold is not None else NO_THRESHOLD,
        ),
    )


class _Summary:
    """From records to numbers."""

    def __init__(
        self,
        truth: Truth,
        counts: Counts,
        outcome: Outcome,
        matching: Matching,
        settings: dict[str, Any],
        score_threshold: float | None,
    ) -> None:
        self.truth, self.counts, self.outcome, self.matching = truth, counts, outcome, matching
        self.settings, self.score_threshold = settings, score_threshold
        self.records: Records = outcome.records
        self.images, self.classes = len(truth.images), len(truth.classes.names)
        self.order = np.empty(self.images, np.int64)
        self.order[truth.images.in_order()] = np.arange(self.images)
        self.ranks: dict[Measure, Ranked] = {
            name: ranked(self.records, name, self.classes, self.order) for name in self.records.found
        }
        self.results = dict(outcome.official)
        if "boundary" in self.ranks:
            pair = all_precision_recall(self.ranks["boundary"], self.images, tuple(matching.max_dets))
            self.results["boundary"] = Official(twelve(*pair, matching.max_dets), *pair)

    def metrics(self, problems: tuple[str, ...], choose: Any) -> Metrics:
        intervals, class_intervals = self._intervals()
        threshold = reliability.best_threshold(self.records)
        shown = self.score_threshold if self.score_threshold is not None else threshold
        curves = {name: _curves(one) for name, one in self.results.items()}
        return Metrics(
            classes=self._classes(class_intervals),
            measures={name: one.metrics for name, one in self.results.items()},
            intervals=intervals,
            primary=self.records.primary,
            mean_iou={name: _mean(one.ious_of_hits) for name, one in self.records.found.items()},
            curves=curves,
            error_kinds=error_kinds(self.records, self.classes, self.order),
            confusion=Confusion(reliability.confusion(self.records, self.classes, shown or NO_THRESHOLD), shown),
            calibration=reliability.calibration(self.records),
            best_threshold=threshold,
            panoptic=self._panoptic(),
            counts={**self.truth.counts, **self.counts.to_json()},
            problems=problems,
            settings={**self.settings, "boundary": self.matching.boundary},
            examples=choose(shown),
            records=self.records,
            order=self.order,
            image_names=self.truth.images.names,
        )

    def _intervals(self) -> tuple[dict[Measure, dict[str, Interval | None]], list[Interval | None]]:
        """By measure and metric, and AP of each class by the primary measure."""
        if not self.settings["draws"]:
            return {}, [None] * self.classes
        names = list(self.ranks)
        found = bootstrap.draws(
            list(self.ranks.values()), self.images, self.settings["draws"], self.settings["seed"], self.matching.threads
        )
        confidence = self.settings["confidence"]
        by_measure = {
            name: {
                metric: bootstrap.interval(drawn.metrics[:, k], self.results[name].metrics[metric], confidence)
                for k, metric in enumerate(bootstrap.DRAWN)
            }
            for name, drawn in zip(names, found, strict=True)
        }
        primary = self.records.primary
        drawn = found[names.index(primary)].classes
        whole = [_of_class(self.results[primary], k, self.matching)["AP"] for k in range(self.classes)]
        spread = self._images_with(self.ranks[primary])
        return by_measure, [
            bootstrap.interval(drawn[:, k], whole[k], confidence) if spread[k] >= FEWEST_IMAGES else None
            for k in range(self.classes)
        ]

    def _images_with(self, ranks: Ranked) -> np.ndarray:
        """How many images have truths of each class that count, (K,) int64."""
        counted = ~ranks.hidden[:, 0]
        pairs = np.unique(np.stack([ranks.truth_classes[counted], ranks.truth_images[counted]]), axis=1)
        return np.bincount(pairs[0], minlength=self.classes)

    def _classes(self, intervals: list[Interval | None]) -> tuple[ClassMetrics, ...]:
        records, primary = self.records, self.records.primary
        best = reliability.best_thresholds(self.ranks[primary], records.detections.scores)
        ious, labels = records.found[primary].ious_of_hits, records.detections.classes
        truths = np.bincount(records.truths.classes[~records.truths.crowd], minlength=self.classes)
        predictions = np.bincount(labels, minlength=self.classes)
        panoptic = self._panoptic_by_class()
        by_measure = {
            name: [_of_class(one, k, self.matching) for k in range(self.classes)] for name, one in self.results.items()
        }
        return tuple(
            ClassMetrics(
                name=name,
                truths=int(truths[k]),
                predictions=int(predictions[k]),
                measures={measure: rows[k] for measure, rows in by_measure.items()},
                interval=intervals[k],
                threshold=_known(best[k, 0]),
                f1=_known(best[k, 1]),
                precision=_known(best[k, 2]),
                recall=_known(best[k, 3]),
                mean_iou=_mean(ious[labels == k]),
                panoptic=None if panoptic is None else {name: _known(one[k]) for name, one in panoptic.items()},
            )
            for k, name in enumerate(self.truth.classes.names)
        )

    def _panoptic_by_class(self) -> dict[str, np.ndarray] | None:
        sums = self.outcome.panoptic
        return None if sums is None or _no_panoptic(sums, self.truth) else panoptic_quality(sums)

    def _panoptic(self) -> Panoptic:
        sums, score = self.outcome.panoptic, self.matching.panoptic_score
        if sums is None:
            return Panoptic(None, None, None, score, None, "there are no masks")
        reason = _no_panoptic(sums, self.truth)
        if reason is not None:
            return Panoptic(None, None, None, score, None, reason)
        means = {name: _mean(one) for name, one in panoptic_quality(sums).items()}
        labelled = sums.labelled / sums.pixels if sums.pixels else None
        return Panoptic(means["pq"], means["sq"], means["rq"], score, labelled, None)


def _no_panoptic(sums: PanopticSums, truth: Truth) -> str | None:
    if sums.overlapping < 0:
        return None
    return f"the truths of {truth.images.names[sums.overlapping]} overlap, or one has no mask"


def _curves(result: Official) -> np.ndarray:
    """(T, R, K) precision over all sizes with the most detections, NaN for a class without truths."""
    precision = result.precision[:, :, :, 0, -1]
    return np.where(precision < 0, np.nan, precision)


def _of_class(result: Official, class_id: int, matching: Matching) -> Values:
    return twelve(
        result.precision[:, :, class_id : class_id + 1], result.recall[:, class_id : class_id + 1], matching.max_dets
    )


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
