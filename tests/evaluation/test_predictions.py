"""Predictions of every form, and of every bad form: what is matched, what is left out, what is refused."""

from __future__ import annotations

import contextlib
import json

import evaluation_scenes as scenes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.errors import JobError, RaysegError, UsageError
from rayseg.evaluation import evaluate
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.parts import RowError, part_bytes, rows_table
from rayseg.formats.registry import read
from rayseg.kernels import Rles
from rayseg.records import Instances


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    truth, results = scenes.scene(5, images=6)
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder / "truth.json", truth, results


def run(path, predictions, **kwargs):
    kwargs = {"draws": 0, "examples_each": 0, "boundary": False, **kwargs}
    return evaluate(read(str(path), "coco"), predictions, **kwargs)


def written(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    return str(path)


# ---- every form gives the same


def test_a_file_and_a_list_give_the_same(scene, tmp_path):
    path, _, results = scene
    assert run(path, results).measures == run(path, written(tmp_path, results)).measures


@pytest.mark.parametrize("form", ["bytes", "list of runs", "runs of 0", "polygons"])
def test_masks_in_every_form(scene, tmp_path, form):
    path, _, results = scene
    results = scenes.only(results, "segmentation")
    if form == "polygons":
        rings = [[3, 3, 30, 4, 20, 31], [25.5, 20, 38, 22, 30.25, 36]]
        height, width = results[0]["segmentation"]["size"]
        merged = scenes.as_rle(rings, height, width)
        as_rle = {"size": merged["size"], "counts": merged["counts"].decode()}
        assert (
            run(path, written(tmp_path, [{**results[0], "segmentation": rings}, *results[1:]])).measures
            == run(path, [{**results[0], "segmentation": as_rle}, *results[1:]]).measures
        )
        return
    changed = [{**one, "segmentation": in_form(one["segmentation"], form)} for one in results]
    predictions = changed if form == "bytes" else written(tmp_path, changed)
    assert run(path, predictions).measures == run(path, results).measures


def in_form(rle, form):
    if form == "bytes":
        return {**rle, "counts": rle["counts"].encode()}
    runs = Rles.from_strings([rle["counts"]], tuple(rle["size"])).runs()[0].tolist()
    if form == "runs of 0" and len(runs) > 2 and runs[1] > 1:
        runs = [runs[0], 1, 0, runs[1] - 1, *runs[2:]]
    return {"size": rle["size"], "counts": runs}


def test_an_order_of_images_that_is_not_that_of_ids_still_decides_ties_by_id(scene, tmp_path):
    path, truth, results = scene
    reordered = {**truth, "images": truth["images"][::-1]}
    (tmp_path / "truth.json").write_text(json.dumps(reordered))
    assert run(path, results).measures == run(tmp_path / "truth.json", results).measures


def scored(truth, results, **changes):
    """Results as a data set of rayseg's record."""
    names = [one["name"] for one in truth["categories"]]
    places = {one["id"]: k for k, one in enumerate(truth["categories"])}
    images = []
    for image in truth["images"]:
        annotations = tuple(
            Annotation(
                places[one["category_id"]],
                tuple(np.add(one["bbox"], [0, 0, *one["bbox"][:2]]).tolist()),
                Mask(one["segmentation"]["counts"].encode(), tuple(one["segmentation"]["size"])),
                score=one["score"],
            )
            for one in results
            if one["image_id"] == image["id"]
        )
        images.append(AnnotatedImage(image["file_name"], None, (image["height"], image["width"]), annotations))
    return Dataset(**{"categories": tuple(Category(name) for name in names), "images": images, **changes})


def test_a_data_set_with_scores_is_matched_by_names(scene):
    path, truth, results = scene
    by_names = run(path, scored(truth, results))
    assert by_names.segm == run(path, results).segm
    shuffled = {**truth, "categories": truth["categories"][::-1], "images": truth["images"][::-1]}
    assert run(path, scored(shuffled, results)).segm == by_names.segm


def test_an_instances_file_with_scores_is_a_data_set(scene, tmp_path):
    path, truth, results = scene
    renumbered = {one["id"]: 100 + k for k, one in enumerate(truth["categories"])}
    file = {
        "images": truth["images"],
        "categories": [{**one, "id": renumbered[one["id"]]} for one in truth["categories"]],
        "annotations": [
            {**one, "id": k, "category_id": renumbered[one["category_id"]]} for k, one in enumerate(results)
        ],
    }
    assert run(path, written(tmp_path, file)).segm == run(path, results).segm


# ---- a label run's output


def labels(folder, rows, names, *, parts=1, uri="photos/{}"):
    """A complete label output: `rows` of (file name, Instances or RowError), dealt over `parts`."""
    (folder / "data").mkdir(parents=True)
    listed = []
    for k in range(parts):
        ordinals = np.arange(k, len(rows), parts)
        chosen = [rows[i] for i in ordinals.tolist()]
        table = rows_table(ordinals, [uri.format(name) for name, _ in chosen], [one for _, one in chosen], names)
        data = part_bytes(table, ordinals=ordinals, metadata={})
        name = f"part-0001-{k:012d}-00000000.parquet"
        (folder / "data" / name).write_bytes(data)
        listed.append({"name": name, "rows": len(table), "size_bytes": len(data)})
    manifest = {"parts": listed, "model": {"class_names": list(names)}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def instances_of(truth, results):
    """(file name, Instances) of every image; scores that float32 holds exactly come through unchanged."""
    places = {one["id"]: k for k, one in enumerate(truth["categories"])}
    rows = []
    for image in truth["images"]:
        found = sorted((one for one in results if one["image_id"] == image["id"]), key=lambda one: -one["score"])
        hw = image["height"], image["width"]
        boxes = np.array([one["bbox"] for one in found], np.float32).reshape(-1, 4)
        rles = Rles.from_strings([one["segmentation"]["counts"] for one in found], hw)
        scores = np.array([one["score"] for one in found], np.float32)
        classes = np.array([places[one["category_id"]] for one in found], np.int64)
        boxes[:, 2:] += boxes[:, :2]
        rows.append((image["file_name"], Instances(boxes, scores, classes, rles, hw)))
    return rows


def exact(results):
    """The same with scores that float32 holds."""
    return [{**one, "score": round(one["score"] * 64) / 64} for one in results]


@pytest.mark.parametrize("parts", [1, 4])
def test_a_label_run_gives_what_its_results_give(scene, tmp_path, parts):
    path, truth, results = scene
    results = exact(results)
    names = [one["name"] for one in truth["categories"]]
    out = labels(tmp_path / "labels", instances_of(truth, results), names, parts=parts)
    assert run(path, out).segm == run(path, sorted(results, key=lambda one: -one["score"])).segm
    assert run(path, out).problems == ()


def test_only_parts_of_the_manifest_count(scene, tmp_path):
    path, truth, results = scene
    names = [one["name"] for one in truth["categories"]]
    out = tmp_path / "labels"
    labels(out, instances_of(truth, exact(results)), names)
    expected = run(path, str(out)).measures
    ghost = next((out / "data").iterdir()).read_bytes()
    (out / "data" / "part-0001-000000000009-11111111.parquet").write_bytes(ghost)
    assert run(path, str(out)).measures == expected


def test_an_unfinished_label_run_is_refused(scene, tmp_path):
    path, truth, results = scene
    out = tmp_path / "labels"
    labels(out, instances_of(truth, results), [one["name"] for one in truth["categories"]])
    (out / "job.json").write_text("{}")
    (out / "manifest.json").unlink()
    with pytest.raises(JobError, match="complete label output"):
        run(path, str(out))
    (out / "manifest.json").write_text("[]")
    with pytest.raises(JobError, match="not that of a label run"):
        run(path, str(out))


def test_what_a_label_run_lacks_is_said(scene, tmp_path):
    path, truth, results = scene
    rows = instances_of(truth, exact(results))
    rows[1] = (rows[1][0], RowError("decode", "truncated", "..."))
    other = ("elsewhere.jpg", rows[0][1])
    names = ["CLASS-3", *[one["name"] for one in truth["categories"]][1:], "zebra"]
    first = truth["categories"][0]["name"]
    names[0] = first.upper().replace(" ", "_")
    metrics = run(path, labels(tmp_path / "labels", [*rows[:5], other], names))
    text = "\n".join(metrics.problems)
    assert f"{len(other[1])} predictions left out: of images that the ground truth does not have" in text
    assert "1 image of the ground truth not labelled" in text and "1 image could not be labelled" in text
    assert f"{names[0]!r} as {first!r}" in text
    assert metrics.counts["of_images_not_in_the_ground_truth"] == len(other[1])


def test_a_class_the_model_lacks_is_said(scene, tmp_path):
    path, truth, results = scene
    names = [one["name"] for one in truth["categories"]]
    rows = instances_of(truth, exact(results))
    metrics = run(path, labels(tmp_path / "labels", rows, [*names[:-1], "zebra"]))
    text = "\n".join(metrics.problems)
    assert f"does not know 1 class: {names[-1]!r}" in text and "of classes the ground truth lacks: 'zebra'" in text


def test_an_image_with_two_rows_is_refused_or_counted_once(scene, tmp_path):
    path, truth, results = scene
    names = [one["name"] for one in truth["categories"]]
    rows = instances_of(truth, exact(results))
    out = labels(tmp_path / "labels", [*rows, rows[0]], names)
    with pytest.raises(BadAnnotation, match="has a row already"):
        run(path, out)
    skipped = run(path, out, on_error="skip")
    assert skipped.measures == run(path, labels(tmp_path / "once", rows, names)).measures
    assert "1 of kind 'image'" in skipped.problems[-1]


def test_images_are_told_apart_by_their_uris_where_these_are_known(scene, tmp_path):
    """Two folders with the same file names were labelled; the ground truth is of one of them."""
    path, truth, results = scene
    names = [one["name"] for one in truth["categories"]]
    rows = instances_of(truth, exact(results))
    dataset = read(str(path), "coco")
    located = [
        AnnotatedImage(one.name, f"/photos/val/{one.name}", one.image_hw, one.annotations, extras=one.extras)
        for one in dataset.images
    ]
    both = [(f"val/{name}", one) for name, one in rows] + [(f"train/{name}", one) for name, one in rows]
    out = labels(tmp_path / "labels", both, names, uri="/photos/{}")
    metrics = evaluate(Dataset(dataset.categories, located), out, draws=0, examples_each=0, boundary=False)
    assert metrics.segm == run(path, labels(tmp_path / "one", rows, names)).segm
    assert metrics.counts["of_images_not_in_the_ground_truth"] == sum(len(one) for _, one in rows)


def test_an_image_of_another_size_is_refused(scene, tmp_path):
    path, truth, results = scene
    name, one = instances_of(truth, exact(results))[0]
    small = Instances(one.boxes_xyxy[:0], one.scores[:0], one.classes[:0], Rles.empty((7, 9)), (7, 9))
    with pytest.raises(BadAnnotation, match=r"expected a size of .* found \[7, 9\]"):
        run(path, labels(tmp_path / "labels", [(name, small)], [one["name"] for one in truth["categories"]]))


# ---- bad results

BAD = {
    "nan score": ({"score": float("nan")}, "finite score"),
    "infinite score": ({"score": float("inf")}, "finite score"),
    "no score": ({"score": None}, "finite score"),
    "text score": ({"score": "0.9"}, "finite score"),
    "bool score": ({"score": True}, "finite score"),
    "other size": ({"segmentation": {"size": [3, 4], "counts": "<"}}, r"found size \[3, 4\]"),
    "huge size": ({"segmentation": {"size": [1 << 30, 1 << 30], "counts": "<"}}, "sides of 1 to"),
    "broken counts": ({"segmentation": {"size": None, "counts": "zz~"}}, "its RLE"),
    "too short": ({"segmentation": {"size": None, "counts": "5"}}, "its RLE covers fewer"),
    "runs": ({"segmentation": {"size": None, "counts": [1, 2, 3]}}, "run lengths"),
    "polygon": ({"segmentation": [[1, 2, 3, 4]]}, "3 points"),
    "no counts": ({"segmentation": {"size": None}}, "RLE counts"),
    "nothing": ({"segmentation": None, "bbox": None}, "neither"),
    "box": ({"bbox": [1, 2, 3]}, "bbox as four numbers"),
    "negative box": ({"bbox": [1, 2, -3, 4]}, "width and height from 0"),
    "nan box": ({"bbox": [1, 2, float("nan"), 4]}, "finite numbers"),
    "no image": ({"image_id": None}, "image_id"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("from_file", [False, True])
def test_a_broken_prediction_is_named_or_passed_over(scene, tmp_path, name, from_file):
    path, truth, results = scene
    change, message = BAD[name]
    hw = next([one["height"], one["width"]] for one in truth["images"] if one["id"] == results[4]["image_id"])
    broken = {**results[4], **json.loads(json.dumps(change))}
    if isinstance(broken.get("segmentation"), dict) and broken["segmentation"]["size"] is None:
        broken["segmentation"]["size"] = hw
    bad = [*results[:4], broken, *results[5:]]
    predictions = written(tmp_path, bad) if from_file else bad
    with pytest.raises(BadAnnotation, match=message) as caught:
        run(path, predictions)
    assert "results[4]" in str(caught.value) or "prediction 4" in str(caught.value)
    skipped = run(path, predictions, on_error="skip")
    assert skipped.measures == run(path, results[:4] + results[5:]).measures
    assert skipped.problems[-1].startswith("Passed over because broken: 1 of kind")


def test_images_and_classes_that_are_unknown_are_left_out_and_said(scene, tmp_path):
    path, _truth, results = scene
    extra = [{**results[0], "image_id": 9999}, {**results[1], "category_id": 777}, {**results[1], "category_id": 777}]
    for predictions in ([*results, *extra], written(tmp_path, [*results, *extra])):
        metrics = run(path, predictions)
        assert metrics.measures == run(path, results).measures
        assert "1 prediction left out" in metrics.problems[0] and "9999" in metrics.problems[0]
        assert "2 predictions left out: of classes the ground truth lacks: 'category_id 777' (2)" in metrics.problems[1]
        assert metrics.counts["predictions"] == len(results) + 3
        assert metrics.counts["matched_to_an_image_and_class"] == len(results)


def test_predictions_of_another_data_set_are_refused(scene, tmp_path):
    path, _truth, results = scene
    with pytest.raises(UsageError, match="none of its .* predictions is of an image of the ground truth"):
        run(path, [{**one, "image_id": 10**6 + one["image_id"]} for one in results])
    with pytest.raises(UsageError, match=r"none of its classes \('category_id 99'\)"):
        run(path, written(tmp_path, [{**one, "category_id": 99} for one in results]))


def test_exact_copies_count_as_pycocotools_counts_them(scene):
    path, truth, results = scene
    doubled = [one for one in results for _ in range(2)]
    found = run(path, doubled)
    expected = scenes.reference(truth, scenes.only(doubled, "segmentation"), "segm")
    assert list(found.segm.values()) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert f"{len(results)} predictions are exact copies of another" in found.problems[0]


def test_no_predictions(scene, tmp_path):
    path, _truth, _ = scene
    for predictions in ([], written(tmp_path, [])):
        metrics = run(path, predictions)
        assert metrics.segm["AP"] == metrics.bbox["AP"] == 0 and metrics.error_kinds["missed"]["count"] > 0
        assert metrics.problems == ("There are no predictions.",)
        assert metrics.best_threshold is None and metrics.calibration.ece is None
        json.dumps(metrics.to_json(), allow_nan=False)


def test_no_truths_means_nothing_is_defined(scene, tmp_path):
    _, truth, results = scene
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "annotations": []}))
    for predictions in (results, []):
        metrics = run(tmp_path / "truth.json", predictions, draws=20, boundary=True)
        assert set(metrics.segm.values()) == set(metrics.boundary.values()) == {None}
        assert all(one["ap_cost"] is None for one in metrics.error_kinds.values())
        assert all(value is None for rows in metrics.intervals.values() for value in rows.values())
        json.dumps(metrics.to_json(), allow_nan=False)


def test_no_images_is_refused(scene, tmp_path):
    _, truth, results = scene
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "images": [], "annotations": []}))
    with pytest.raises(UsageError, match="no images"):
        run(tmp_path / "truth.json", results)


def test_what_is_no_predictions_is_named(scene, tmp_path):
    path, *_ = scene
    with pytest.raises(UsageError, match=r"expected COCO results \(\.json\) or the output folder of rayseg label"):
        run(path, str(tmp_path))
    (tmp_path / "x.json").write_text("[{]")
    with pytest.raises(RaysegError, match="line 1"):
        run(path, str(tmp_path / "x.json"))


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["image_id", "category_id", "score", "bbox", "segmentation", "category"]),
            st.one_of(
                st.none(), st.booleans(), st.integers(-3, 60), st.floats(), st.text(max_size=4),
                st.lists(st.one_of(st.floats(), st.integers(), st.none()), max_size=7),
                st.fixed_dictionaries({"size": st.lists(st.integers(-1, 200), max_size=3), "counts": st.text(max_size=6)}),
            ),
        ),
        max_size=5,
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_nothing_but_our_own_errors_whatever_comes(scene, tmp_path_factory, junk):
    path, _, results = scene
    for predictions in ([*results, *junk], written(tmp_path_factory.mktemp("junk"), [*results, *junk])):
        assert run(path, predictions, on_error="skip").segm is not None
        with contextlib.suppress(RaysegError):
            run(path, predictions)
