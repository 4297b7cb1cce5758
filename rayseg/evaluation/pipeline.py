"""Shard after shard: read, measured, matched in threads; records and sums are what is gathered.

Each shard is matched twice. hotcoco computes the numbers that are published. What a detection found, which everything else
is computed from, it hands out as Python objects only (9 s for 5,000 images), so our own kernels find that again (0.6 s) and
keep it as columns. Tests hold the two to the same numbers, to the last bit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rayseg.evaluation import records as recording
from rayseg.evaluation.columns import Columns
from rayseg.evaluation.measured import Sizes, count_copies, measure
from rayseg.evaluation.numbers import Measure
from rayseg.evaluation.official import Official, OfficialEval
from rayseg.evaluation.panoptic import PanopticSums, panoptic_sums
from rayseg.evaluation.predictions import Predictions
from rayseg.evaluation.records import Records
from rayseg.evaluation.shards import Shard, match_shard, truths_of
from rayseg.evaluation.spool import SHARD_IMAGES
from rayseg.evaluation.truth import Truth
from rayseg.formats.faults import Faults


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that matching gives."""

    records: Records
    official: dict[Measure, Official]
    panoptic: PanopticSums | None


@dataclass(frozen=True, slots=True)
class Matching:
    """How to match."""

    max_dets: Sequence[int]
    sizes: Sizes
    boundary: bool
    panoptic_score: float
    threads: int | None = None


class Shards:
    """The shards of an evaluation, each ready to be matched; may be asked for one again."""

    def __init__(self, truth: Truth, predictions: Predictions, faults: Faults, settings: Matching) -> None:
        self._truth, self._predictions, self._faults, self._settings = truth, predictions, faults, settings
        self._told: set[int] = set()
        self._probed: tuple[int, Columns] | None = None  # the shard that was looked into, to be read once only
        self.with_masks = (truth.has_masks or not truth.counts["truths"]) and self._has_masks()

    def shard(self, number: int) -> Shard:
        """Shard `number`, from 0."""
        again = number in self._told
        self._told.add(number)
        faults = Faults("skip") if again else self._faults
        if self._probed is not None and self._probed[0] == number:
            columns, self._probed = self._probed[1], None
        else:
            columns = self._predictions.columns(number)
        most, sizes = self._settings.max_dets[-1], self._settings.sizes
        detections = measure(columns, self._truth, self._predictions, faults, most=most, sizes=sizes)
        if not again:
            self._predictions.counts.copies += count_copies(detections)
        first = number * SHARD_IMAGES
        hws = self._truth.image_hws[first : first + SHARD_IMAGES]
        truths = truths_of(self._truth.spool.columns(number), hws, first, with_masks=self.with_masks)
        return Shard(first, hws, truths, detections)

    def __iter__(self) -> Iterator[Shard]:
        return map(self.shard, range(self._truth.shards))

    def _has_masks(self) -> bool:
        """Whether the first detections there are have masks; none at all count as if they had."""
        for number in range(self._truth.shards):
            columns = self._predictions.columns(number)
            if len(columns):
                self._probed = number, columns
                return bool(columns.lengths.any())
        return True


def match_all(truth: Truth, shards: Shards, settings: Matching) -> Outcome:
    """Match every shard."""
    measures: list[Measure] = ["segm", "bbox"] if shards.with_masks else ["bbox"]
    order = np.empty(len(truth.images), np.int64)
    order[truth.images.in_order()] = np.arange(len(order))
    official = {
        name: OfficialEval(name, truth.classes.names, order, settings.max_dets, settings.sizes)  # type: ignore[arg-type]
        for name in measures
    }
    if shards.with_masks and settings.boundary:
        measures.append("boundary")
    pieces: list[Records] = []
    sums = PanopticSums.none(len(truth.classes.names)) if shards.with_masks else None
    threads = settings.threads or os.cpu_count() or 1
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="rayseg-eval") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="rayseg-hotcoco") as in_turn,
    ):
        waiting: deque[Future[tuple[Records, PanopticSums | None]]] = deque()
        fed: deque[Future[None]] = deque()
        for shard in shards:
            waiting.append(pool.submit(_match, shard, measures, sums, settings))
            fed.append(in_turn.submit(_feed, list(official.values()), shard))
            if len(fed) > 2:
                fed.popleft().result()
            while len(waiting) > threads:
                sums = _gather(waiting, pieces, sums)
        while waiting:
            sums = _gather(waiting, pieces, sums)
        for one in fed:
            one.result()
    return Outcome(recording.joined(pieces), {name: one.result() for name, one in official.items()}, sums)


def _match(
    shard: Shard, measures: Sequence[Measure], sums: PanopticSums | None, settings: Matching
) -> tuple[Records, PanopticSums | None]:
    found = None
    if sums is not None and sums.overlapping < 0:
        found = panoptic_sums(shard, len(sums.ious), settings.panoptic_score)
    return match_shard(shard, measures), found


def _feed(official: Sequence[OfficialEval], shard: Shard) -> None:
    for one in official:
        one.add(shard)


def _gather(
    waiting: deque[Future[tuple[Records, PanopticSums | None]]], pieces: list[Records], sums: PanopticSums | None
) -> PanopticSums | None:
    records, found = waiting.popleft().result()
    pieces.append(records)
    return sums if sums is None or found is None else sums + found
