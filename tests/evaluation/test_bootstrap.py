"""Intervals from draws of images: what a draw is, that it repeats, that pairs are compared in pairs."""

from __future__ import annotations

import copy
import json

import evaluation_scenes as scenes
import numpy as np
import pytest

from rayseg.errors import UsageError
from rayseg.evaluation import bootstrap, compare, evaluate
from rayseg.evaluation.match_files import match_tables, matches_of, read_matches
from rayseg.evaluation.ranked import ranked, weighted_averages
from rayseg.formats.registry import read


def run(tmp_path, truth, results, **kwargs):
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    kwargs = {"draws": 0, "examples_each": 0, **kwargs}
    return evaluate(read(str(tmp_path / "truth.json"), "coco"), results, **kwargs)


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_data_set_with_images_repeated(tmp_path, seed):
    """Weights give what pycocotools gives on a data set in which each image stands as often as it was drawn."""
    truth, results = scenes.scene(seed, images=8)
    results = scenes.only(results, "segmentation")
    rng = np.random.default_rng(seed)
    for one, place in zip(results, rng.permutation(len(results)), strict=True):
        one["score"] = float(place + 1) / len(results)
    metrics = run(tmp_path, truth, results)
    times = rng.integers(0, 4, 8)
    repeated, found = {**truth, "images": [], "annotations": []}, []
    for rank, image in enumerate(truth["images"]):
        for copy_number in range(times[rank]):
            key = image["id"] * 10 + copy_number
            repeated["images"].append({**image, "id": key})
            repeated["annotations"] += [
                {**one, "image_id": key, "id": len(repeated["annotations"]) + i + 1}
                for i, one in enumerate([a for a in truth["annotations"] if a["image_id"] == image["id"]])
            ]
            found += [{**one, "image_id": key} for one in results if one["image_id"] == image["id"]]
    ranks = ranked(metrics.records, "segm", len(metrics.classes), metrics.order)
    averages = weighted_averages(ranks, times.astype(float))
    expected = scenes.reference(repeated, found, "segm")
    known = averages[:, ~np.isnan(averages[0])]
    assert known.mean() == pytest.approx(expected[0], abs=1e-12) and known[0].mean() == pytest.approx(
        expected[1], abs=1e-12
    )


def test_intervals_repeat_with_the_seed_and_hold_the_estimate(tmp_path):
    truth, results = scenes.scene(2, images=40)
    first, again, other = (run(tmp_path, truth, results, draws=100, seed=seed) for seed in (5, 5, 6))
    assert first.intervals == again.intervals != other.intervals
    assert [one.interval for one in first.classes] == [one.interval for one in again.classes]
    assert first.intervals == run(tmp_path, truth, results, draws=100, seed=5, threads=1).intervals
    for measure, rows in first.intervals.items():
        for metric, (low, high) in rows.items():
            assert 0 <= low < first.measures[measure][metric] < high <= 1
    assert first.classes[2].interval is None or first.classes[2].truths > 0


def test_more_images_narrow_the_interval(tmp_path):
    widths = []
    for images in (15, 150):
        truth, results = scenes.scene(7, images=images)
        low, high = run(tmp_path, truth, results, draws=100).intervals["segm"]["AP50"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.8


def test_no_draws_no_intervals(tmp_path):
    truth, results = scenes.scene(2)
    metrics = run(tmp_path, truth, results)
    assert metrics.intervals == {} and all(one.interval is None for one in metrics.classes)


def test_bias_is_taken_out_of_an_interval():
    draws = np.random.default_rng(0).normal(0.52, 0.01, 4000)
    low, high = bootstrap.interval(draws, 0.51, 0.95)
    assert high < 0.53 and low < 0.49  # the estimate lies below most draws: the interval moves down with it
    assert bootstrap.interval(np.full(10, 0.3), 0.3, 0.95) == (0.3, 0.3)
    assert bootstrap.interval(np.array([np.nan, np.nan, 0.3]), 0.3, 0.95) is None


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A model, one that is a little worse at every fifth image, and one like the first but for noise."""
    folder = tmp_path_factory.mktemp("pair")
    truth, results = scenes.scene(11, images=120)
    rng = np.random.default_rng(0)
    worse = [one for one in results if one["image_id"] % 5 or rng.random() < 0.6]
    noisy = copy.deepcopy(results)
    for one in noisy:
        one["score"] += float(rng.normal(0, 1e-6))
    return [run(folder, truth, found) for found in (results, worse, noisy)], (folder, truth, results)


def test_a_small_real_difference_stands_out_and_noise_does_not(pair):
    good, worse, noisy = pair[0]
    found = compare(worse, good, draws=300, names=("old", "new"))
    difference = found.measures["segm"]["AP"]
    assert (found.a, found.b, found.primary, found.images) == ("old", "new", "segm", 120)
    assert difference.b == pytest.approx(good.segm["AP"], abs=1e-12) and difference.a == pytest.approx(
        worse.segm["AP"], abs=1e-12
    )
    assert difference.difference == pytest.approx(good.segm["AP"] - worse.segm["AP"])
    assert difference.verdict == "B is better" and difference.ahead > 0.97
    assert compare(good, worse, draws=300).measures["segm"]["AP"].verdict == "A is better"
    assert compare(good, noisy, draws=300).measures["segm"]["AP"].verdict == "within chance"
    low, high = difference.interval
    own = run_draws(good)
    assert high - low < 0.6 * (own[1] - own[0]), "the paired interval is narrower than a model's own"
    assert "B is better" in found.text() and "n/a" not in found.text()


def run_draws(metrics):
    ranks = ranked(metrics.records, "segm", len(metrics.classes), metrics.order)
    drawn = bootstrap.draws([ranks], len(metrics.image_names), 300, 0)[0]
    return bootstrap.interval(drawn.metrics[:, 0], metrics.segm["AP"], 0.95)


def test_outputs_compare_as_what_they_were_written_from(pair, tmp_path):
    good, worse, _ = pair[0]
    for name, metrics in (("good", good), ("worse", worse)):
        (tmp_path / name).mkdir()
        for file, data in match_tables(metrics).items():
            (tmp_path / name / file).write_bytes(data)
    folders = compare(str(tmp_path / "worse"), str(tmp_path / "good"), draws=60)
    memory = compare(worse, good, draws=60)
    assert folders.to_json()["measures"] == memory.to_json()["measures"]
    assert folders.to_json()["classes"] == memory.to_json()["classes"]
    assert folders.a == str(tmp_path / "worse")
    one, other = read_matches(str(tmp_path / "good")), matches_of("good", good)
    for measure, ranks in other.ranks.items():
        for name in ("class_starts", "images", "truth_images"):
            assert np.array_equal(getattr(ranks, name), getattr(one.ranks[measure], name))


def test_what_cannot_be_compared_is_named(pair, tmp_path):
    good, _, _ = pair[0]
    _, truth, results = pair[1]
    fewer = {**truth, "images": truth["images"][:-1]}
    fewer["annotations"] = [one for one in truth["annotations"] if one["image_id"] != truth["images"][-1]["id"]]
    with pytest.raises(UsageError, match="same images: 120 and 119"):
        compare(good, run(tmp_path, fewer, results))
    without_one = {**truth, "annotations": truth["annotations"][1:]}
    with pytest.raises(UsageError, match="different truths"):
        compare(good, run(tmp_path, without_one, results))
    renamed = {**truth, "categories": [{**one, "name": one["name"] + "!"} for one in truth["categories"]]}
    with pytest.raises(UsageError, match="same classes"):
        compare(good, run(tmp_path, renamed, results))
    with pytest.raises(UsageError, match=r"expected the output of rayseg eval, found no detections\.parquet"):
        compare(str(tmp_path), good)
