"""What goes wrong, from its published definitions, in loops over dense masks: no shortcut of the package's own is shared.

Error kinds and their cost: Bolya et al., "TIDE", 2020, sections 2.2 and 2.3. Calibration: Guo et al., 2017, section 2.
Matching: the COCO API's rules. All is small, so that it can be slow.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import evaluation_scenes as scenes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.evaluation import evaluate

SEEDS = st.integers(0, 10**9)


@dataclass(eq=False)
class Truth:
    image: int
    label: int
    mask: np.ndarray
    crowd: bool
    found: bool = False  # by a detection of its class
    claims: list = field(default_factory=list)  # detections that would hit it with another class or place


@dataclass(eq=False)
class Found:
    image: int
    label: int
    mask: np.ndarray
    score: float
    hit: Truth | None = None
    kind: str = ""
    target: Truth | None = None


def evaluated(folder, seed, *, images=6, crowds=True, **kwargs):
    """A random scene: what `evaluate` finds, and its truths and detections as they are here."""
    truth, results = scenes.scene(seed, images=images)
    results = scenes.untied(scenes.only(results, "segmentation"), seed)
    if not crowds:
        truth["annotations"] = [one for one in truth["annotations"] if not one["iscrowd"]]
    (folder / "truth.json").write_text(json.dumps(truth))
    kwargs = {"draws": 0, "examples_each": 0, "boundary": False, **kwargs}
    metrics = evaluate(str(folder / "truth.json"), results, data_format="coco", **kwargs)
    sizes = {one["id"]: (one["height"], one["width"]) for one in truth["images"]}
    labels = {one["id"]: metrics.class_names.index(one["name"]) for one in truth["categories"]}

    def dense(one):
        return scenes.coco_mask.decode(scenes.as_rle(one["segmentation"], *sizes[one["image_id"]])).astype(bool)

    truths = [
        Truth(one["image_id"], labels[one["category_id"]], dense(one), bool(one["iscrowd"]))
        for one in truth["annotations"]
    ]
    found = [Found(one["image_id"], labels[one["category_id"]], dense(one), one["score"]) for one in results]
    found.sort(key=lambda one: -one.score)
    return metrics, truths, found


def iou(found: Found, truth: Truth) -> float:
    shared = (found.mask & truth.mask).sum()
    whole = found.mask.sum() if truth.crowd else (found.mask | truth.mask).sum()
    return float(shared / whole) if shared else 0.0


def match(truths: list[Truth], found: list[Found]) -> None:
    """COCO's: best first, each takes the free truth of its class that it overlaps most, from .50 on; else a crowd."""
    for one in found:
        near = [truth for truth in truths if truth.image == one.image and truth.label == one.label]
        free = [truth for truth in near if not truth.crowd and not truth.found and iou(one, truth) >= 0.5]
        if free:
            one.hit = max(free, key=lambda truth: iou(one, truth))
            one.hit.found = True
            one.kind = "right"
        elif any(truth.crowd and iou(one, truth) >= 0.5 for truth in near):
            one.kind = "ignored"


def tell_kinds(truths: list[Truth], found: list[Found]) -> None:
    """TIDE's kind of each false detection, t_f = .50 and t_b = .10."""
    for one in found:
        if one.kind:
            continue
        near = [truth for truth in truths if truth.image == one.image and not truth.crowd]
        own = max((truth for truth in near if truth.label == one.label), key=lambda t: iou(one, t), default=None)
        other = max((truth for truth in near if truth.label != one.label), key=lambda t: iou(one, t), default=None)
        if own and 0.1 <= iou(one, own) <= 0.5:
            one.kind, one.target = "localisation", own
        elif other and iou(one, other) >= 0.5:
            one.kind, one.target = "class", other
        elif own and iou(one, own) >= 0.5:
            one.kind = "duplicate"
        elif max((iou(one, truth) for truth in near), default=0) <= 0.1:
            one.kind = "background"
        else:
            one.kind = "both"
        if one.target:
            one.target.claims.append(one)


def average_precision(scored: list[tuple[float, bool]], truths: int) -> float:
    """Over 101 recalls: of all places in the ranking that reach a recall, the best precision."""
    points, hits = [], 0
    for rank, (_, hit) in enumerate(sorted(scored, key=lambda one: -one[0]), start=1):
        hits += hit
        points.append((hits / truths, hits / rank))
    recalls = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in points if r >= recall), default=0.0) for recall in recalls]))


def mean_ap(truths: list[Truth], ranking: list[tuple[int, float, bool]]) -> float | None:
    """The mean of classes that have truths; `ranking` is class, score, hit."""
    labels = {truth.label for truth in truths}
    values = [
        average_precision(
            [(score, hit) for of, score, hit in ranking if of == label], sum(one.label == label for one in truths)
        )
        for label in labels
    ]
    return float(np.mean(values)) if values else None


def put_right(truths: list[Truth], found: list[Found], kind: str) -> float | None:
    """AP if only errors of `kind` were put right."""
    counted = [truth for truth in truths if not truth.crowd]
    if kind == "missed":
        counted = [truth for truth in counted if truth.found or truth.claims]
    ranking = []
    for one in found:
        if one.kind == "ignored":
            continue
        if one.kind != kind:
            ranking.append((one.label, one.score, one.hit is not None))
        elif one.target and not one.target.found and max(one.target.claims, key=lambda c: c.score) is one:
            ranking.append((one.target.label, one.score, True))
    return mean_ap(counted, ranking)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_error_kinds_and_what_they_cost(tmp_path_factory, seed):
    metrics, truths, found = evaluated(tmp_path_factory.mktemp("kinds"), seed)
    match(truths, found)
    tell_kinds(truths, found)
    base = put_right(truths, found, "none")
    for kind, values in metrics.error_kinds.items():
        if kind == "missed":
            count = sum(not (truth.crowd or truth.found or truth.claims) for truth in truths)
        else:
            count = sum(one.kind == kind for one in found)
        assert values["count"] == count, kind
        fixed = put_right(truths, found, kind)
        if base is None or fixed is None:
            assert values["ap_cost"] is None, kind
        else:
            assert values["ap_cost"] == pytest.approx(fixed - base, abs=1e-9), kind
    assert metrics.segm["AP50"] == (None if base is None else pytest.approx(base, abs=1e-9))


@given(SEEDS, st.sampled_from([0.0, 0.3, 0.7]))
@settings(max_examples=40, deadline=None)
def test_confusion(tmp_path_factory, seed, threshold):
    """Best first, each takes the free truth that it overlaps most, whatever the class; crowds and what they hold: nowhere."""
    metrics, truths, found = evaluated(tmp_path_factory.mktemp("confusion"), seed, score_threshold=threshold)
    nothing = len(metrics.classes)
    expected = np.zeros((nothing + 1, nothing + 1), int)
    for one in (one for one in found if one.score >= threshold):
        near = [truth for truth in truths if truth.image == one.image and iou(one, truth) >= 0.5]
        free = [truth for truth in near if not truth.crowd and not truth.found]
        if free:
            best = max(free, key=lambda truth: iou(one, truth))
            best.found = True
            expected[best.label, one.label] += 1
        elif not any(truth.crowd for truth in near):
            expected[nothing, one.label] += 1
    for truth in truths:
        if not truth.found and not truth.crowd:
            expected[truth.label, nothing] += 1
    assert metrics.confusion.matrix.tolist() == expected.tolist()


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_calibration(tmp_path_factory, seed):
    metrics, truths, found = evaluated(tmp_path_factory.mktemp("calibration"), seed)
    match(truths, found)
    counted = [one for one in found if one.kind != "ignored"]
    gaps, share = [], 0.0
    for number, told in enumerate(metrics.calibration.bins):
        inside = [one for one in counted if number <= one.score * 10 < number + 1 + (number == 9)]
        assert told["count"] == len(inside)
        if inside:
            score, right = np.mean([one.score for one in inside]), np.mean([one.hit is not None for one in inside])
            assert (told["score"], told["precision"]) == (pytest.approx(score), pytest.approx(right))
            gaps.append(abs(score - right))
            share += len(inside) / len(counted) * gaps[-1]
    if counted:
        assert metrics.calibration.ece == pytest.approx(share) and metrics.calibration.mce == pytest.approx(max(gaps))
    else:
        assert metrics.calibration.ece is metrics.calibration.mce is None


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_mean_overlap_of_matches(tmp_path_factory, seed):
    metrics, truths, found = evaluated(tmp_path_factory.mktemp("overlap"), seed)
    match(truths, found)
    for k, one in enumerate(metrics.classes):
        overlaps = [iou(hit, hit.hit) for hit in found if hit.hit and hit.label == k]
        assert one.mean_iou == (pytest.approx(np.mean(overlaps)) if overlaps else None)
    overlaps = [iou(hit, hit.hit) for hit in found if hit.hit]
    assert metrics.mean_iou["segm"] == (pytest.approx(np.mean(overlaps)) if overlaps else None)
