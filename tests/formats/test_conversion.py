"""Conversions: classes mapped, losses accounted for, all of it written or nothing, from Python and the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from formats.sample_records import sample_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import rayseg
from rayseg import cli, specs
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset
from rayseg.errors import ObjectNotFound, UsageError
from rayseg.formats import coco_writing
from rayseg.formats.class_mapping import ClassMapping, with_classes
from rayseg.formats.conversion import LossyConversion, convert
from rayseg.formats.faults import BadAnnotation


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The synthetic data set as rayseg's Parquet."""
    rayseg.write(sample_dataset(tmp_path), str(tmp_path / "source"), "rayseg")
    return tmp_path / "source"


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- classes


def boxes(*categories: int) -> AnnotatedImage:
    found = tuple(Annotation(one, (0.0, 0.0, float(number + 1), 1.0)) for number, one in enumerate(categories))
    return AnnotatedImage("a.png", None, (4, 4), found)


def mapped(mapping: dict[str, Any], names: str = "abcd") -> tuple[list[str], list[str], dict[str, int]]:
    """Names of the classes, the names of one annotation of each old class, what was dropped."""
    categories = tuple(Category(name, number * 10, colour=(number, 0, 0)) for number, name in enumerate(names))
    dataset, tally = with_classes(
        Dataset(categories, [boxes(*range(len(names)))]), specs.validate(ClassMapping, mapping)
    )
    for _ in range(2):
        (image,) = dataset.images
    return list(dataset.class_names), [dataset.class_names[a.category] for a in image.annotations], dict(tally)


@pytest.mark.parametrize(
    ("mapping", "names", "annotations", "dropped"),
    [
        ({}, "abcd", "abcd", {}),
        ({"rename": {"b": "x"}}, "axcd", "axcd", {}),
        ({"rename": {"a": "b", "b": "a"}}, "bacd", "bacd", {}),
        ({"merge": {"x": ["b", "d"]}}, "axc", "axcx", {}),
        ({"merge": {"b": ["d", "b"]}}, "abc", "abcb", {}),
        ({"drop": ["a", "c"]}, "bd", "bd", {"class": 2, "annotation": 2}),
        ({"order": ["d", "b"]}, "dbac", "abcd", {}),
        ({"rename": {"a": "z"}, "merge": {"x": ["b", "c"]}, "drop": ["d"], "order": ["x"]}, "xz", "zxx",
         {"class": 1, "annotation": 1}),
    ],
)  # fmt: skip
def test_classes_are_renamed_merged_dropped_and_reordered(mapping: dict, names: str, annotations: str, dropped: dict):
    assert mapped(mapping) == (list(names), list(annotations), dropped)


def test_a_class_that_others_join_keeps_what_is_said_of_it():
    categories = (Category("a", 1), Category("b", 2, "above", (1, 2, 3)))
    dataset, _ = with_classes(Dataset(categories, []), specs.validate(ClassMapping, {"merge": {"b": ["a", "b"]}}))
    assert dataset.categories == (categories[1],)
    dataset, _ = with_classes(Dataset(categories, []), specs.validate(ClassMapping, {"merge": {"x": ["a", "b"]}}))
    assert dataset.categories == (Category("x", 1),)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"rename": {"lorrie": "x"}}, "classes: rename: no class 'lorrie'; did you mean 'lorry'?"),
        ({"drop": ["zzz"]}, "classes: drop: no class 'zzz'; there are lorry, car, bus"),
        ({"order": ["lorry", "x"]}, "classes: order: no class 'x'"),
        ({"rename": {"car": "x"}, "drop": ["car"]}, "classes: 'car' stands there twice"),
        ({"rename": {"car": "bus"}}, "classes: bus and car would all be 'bus'; list them under merge"),
        ({"merge": {"bus": ["car"]}}, "classes: bus would be 'bus' too; list it under merge.bus"),
        ({"rename": {"lorry": "x"}, "merge": {"x": ["car"]}}, "classes: lorry would be 'x' too"),
        ({"ordr": []}, "ordr: no such key; did you mean order?"),
        ({"drop": "car"}, "drop: input should be a valid list"),
    ],
)
def test_what_a_mapping_cannot_mean_is_said(mapping: dict, message: str):
    categories = tuple(Category(name) for name in ("lorry", "car", "bus"))
    with pytest.raises(UsageError) as caught:
        with_classes(Dataset(categories, []), specs.validate(ClassMapping, mapping))
    assert str(caught.value).startswith(message)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["keep", "drop", "rename", "x", "y"]), min_size=1, max_size=6), st.randoms())
def test_every_annotation_follows_its_class(plan: list[str], random: Any):
    names = [f"c{i}" for i in range(len(plan))]
    expected = {"keep": lambda n: n, "drop": lambda _: None, "rename": lambda n: f"new {n}"}
    targets = [expected.get(what, lambda _, what=what: what)(name) for name, what in zip(names, plan, strict=True)]
    results = list(dict.fromkeys(target for target in targets if target is not None))
    random.shuffle(results)
    mapping = {
        "rename": {name: f"new {name}" for name, what in zip(names, plan, strict=True) if what == "rename"},
        "merge": {
            new: olds for new in "xy" if (olds := [n for n, what in zip(names, plan, strict=True) if what == new])
        },
        "drop": [name for name, what in zip(names, plan, strict=True) if what == "drop"],
        "order": results,
    }
    dataset, _ = with_classes(
        Dataset(tuple(map(Category, names)), [boxes(*range(len(names)))]), specs.validate(ClassMapping, mapping)
    )
    assert list(dataset.class_names) == results
    (image,) = dataset.images
    found = {a.box_xyxy[2] - 1: dataset.class_names[a.category] for a in image.annotations}  # type: ignore[index]
    assert found == {number: target for number, target in enumerate(targets) if target is not None}


# ---- conversions


def test_a_conversion_counts_what_it_carries(source: Path, tmp_path: Path):
    seen = []
    done = convert(str(source), str(tmp_path / "out"), "coco", progress=lambda n, total: seen.append((n, total)))
    assert (done.source_format, done.target_format, done.images, done.annotations) == ("rayseg", "coco", 7, 13)
    assert done.lossless and done.seconds > 0
    assert [n for n, _ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert len(list(rayseg.read(str(tmp_path / "out"), "coco").images)) == 7
    done = convert(str(tmp_path / "out"), str(tmp_path / "again"), "rayseg", progress=lambda *row: seen.append(row))
    assert seen[-1] == (7, 7)
    value = json.loads(json.dumps(done.as_json()))
    assert (value["from"], value["to"], value["lossless"], value["images"], value["faults"]) == (
        "coco",
        "rayseg",
        True,
        7,
        [],
    )
    assert {"kind": "mask", "outcome": "kept", "count": 10, "reason": "", "mean_iou": None, "min_iou": None} in value[
        "rows"
    ]


@pytest.mark.parametrize("to", ["coco", "cvat", "via"])
def test_formats_that_only_name_images_say_that_these_stay(source: Path, tmp_path: Path, to: str):
    made = convert(str(source), str(tmp_path / to), to)
    (row,) = [row for row in made.rows() if row["kind"] == "image file"]
    assert (row["outcome"], row["count"]) == ("kept", 7) and "--images" in row["reason"]
    found = list(rayseg.read(str(tmp_path / to), images=str(tmp_path)).images)
    assert [Path(str(image.uri)).is_file() for image in found] == [True] * 7


def test_strict_writes_nothing_where_something_would_be_lost(source: Path, tmp_path: Path):
    before = entries(tmp_path)
    with pytest.raises(
        LossyConversion, match=r"nothing is written, as yolo cannot hold all\n(.*\n)*.*attribute dropped"
    ) as caught:
        convert(str(source), str(tmp_path / "out"), "yolo", strict=True)
    assert entries(tmp_path) == before
    assert not caught.value.conversion.lossless
    assert convert(str(source), str(tmp_path / "out"), "coco", strict=True).lossless
    done = convert(str(source), str(tmp_path / "out"), "yolo", overwrite=True)
    assert done.rows() == caught.value.conversion.rows()


def test_classes_dropped_as_asked_are_accounted_for_but_no_loss(source: Path, tmp_path: Path):
    mapping = ClassMapping(drop=["car"], rename={"person": "human"})
    done = convert(str(source), str(tmp_path / "out"), "coco", classes=mapping, strict=True)
    assert done.annotations == 8
    assert [row for row in done.rows() if row["outcome"] == "dropped"] == [
        {"kind": kind, "outcome": "dropped", "count": count, "reason": "as the class mapping says", "mean_iou": None,
         "min_iou": None} for kind, count in (("class", 1), ("annotation", 5))
    ]  # fmt: skip
    assert rayseg.read(str(tmp_path / "out"), "coco").class_names == ("human", "traffic light")


def put_faulty(folder: Path) -> Path:
    """A COCO file with two faulty annotations of three."""
    found = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]
    found += [{**found[0], "bbox": [0, 0, -1, 1]}, {**found[0], "segmentation": [[1, 2]]}]
    value = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
        "annotations": found,
        "categories": [{"id": 1, "name": "x"}],
    }
    path = folder / "faulty.json"
    path.write_text(json.dumps(value))
    return path


def test_faulty_items_stop_or_are_counted(tmp_path: Path):
    path = put_faulty(tmp_path)
    with pytest.raises(BadAnnotation, match=r"faulty\.json: annotations\[1\]"):
        convert(str(path), str(tmp_path / "out"), "coco")
    assert entries(tmp_path) == {"faulty.json"}
    with pytest.raises(LossyConversion, match=r"1 x box skipped: is faulty in the source\n  1 x polygon skipped"):
        convert(str(path), str(tmp_path / "out"), "coco", on_error="skip", strict=True)
    assert entries(tmp_path) == {"faulty.json"}
    done = convert(str(path), str(tmp_path / "out"), "coco", on_error="skip")
    assert done.annotations == 1 and not done.lossless
    assert {row["kind"]: row["count"] for row in done.rows() if row["outcome"] == "skipped"} == {"box": 1, "polygon": 1}
    assert len(done.as_json()["faults"]) == 2


def test_an_interrupted_conversion_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = entries(tmp_path)
    finish = coco_writing._SplitFile.finish

    def interrupted(self: Any, sink: Any, name: str, head: Any) -> None:
        finish(self, sink, name, head)
        raise KeyboardInterrupt

    monkeypatch.setattr(coco_writing._SplitFile, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(str(source), str(tmp_path / "out"), "coco")
    assert entries(tmp_path) == before


def test_what_cannot_be_asked_is_refused_before_anything_is_read(source: Path, tmp_path: Path):
    for target in (source / "out", source / "data/.." / "out"):
        with pytest.raises(UsageError, match="expected a target outside of the source"):
            convert(str(source), str(target), "coco")
    with pytest.raises(UsageError, match="format 'coko'"):
        convert(str(source), str(tmp_path / "out"), "coko")
    with pytest.raises(ObjectNotFound):
        convert(str(tmp_path / "missing"), str(tmp_path / "out"), "coco")
    with pytest.raises(UsageError, match="new or empty"):
        convert(str(source), str(tmp_path), "coco", source_format="rayseg")


def test_a_data_set_may_be_replaced_by_itself(source: Path):
    before = list(rayseg.read(str(source)).images)
    convert(str(source), str(source), "rayseg", overwrite=True)
    assert list(rayseg.read(str(source)).images) == before


def test_object_storage_is_read_and_written_like_a_disk(source: Path, tmp_path: Path, bucket: str):
    expected = [dataclasses.replace(image, uri=None) for image in rayseg.read(str(source)).images]
    convert(str(source), f"{bucket}/coco", "coco")
    convert(f"{bucket}/coco", f"{bucket}/data", "rayseg")
    done = convert(f"{bucket}/data", str(tmp_path / "back"), "rayseg")
    assert (done.images, done.annotations) == (7, 13)
    found = {image.name: image for image in rayseg.read(str(tmp_path / "back")).images}
    for image in expected:
        one = found[image.name]
        assert [(a.shape, a.attributes, a.group) for a in one.annotations] == [
            (a.shape, a.attributes, a.group) for a in image.annotations
        ]


# ---- the command


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["convert", *map(str, words)], catch_exceptions=True)


def test_the_command_prints_a_table_and_writes_a_report(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    report = tmp_path / "report.json"
    result = run(source, tmp_path / "out", "--to", "yolo", "--report", report)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["what", "outcome", "count", "mean", "IoU", "least", "reason"] in lines
    assert any(line[:3] == ["mask", "approximated", "4"] for line in lines)
    assert "7 images, 13 annotations" in result.output and "not everything came through" in result.output
    value = json.loads(report.read_text())
    assert value["rows"] and value["lossless"] is False
    assert value["source"] == str(source)


def test_the_command_is_strict(source: Path, tmp_path: Path):
    report = tmp_path / "report.json"
    result = run(source, tmp_path / "out", "--from", "rayseg", "--to", "voc", "--strict", "--report", report)
    assert isinstance(result.exception, LossyConversion) and result.exception.exit_code == 1
    assert not (tmp_path / "out").exists()
    assert json.loads(report.read_text())["lossless"] is False
    result = run(source, tmp_path / "out", "--to", "coco", "--strict")
    assert result.exit_code == 0 and "nothing lost" in result.output


def test_the_command_maps_classes_and_skips_faults(tmp_path: Path):
    (tmp_path / "classes.yaml").write_text("rename: {x: y}\n")
    path = put_faulty(tmp_path)
    out = tmp_path / "out"
    result = run(path, out, "--to", "coco", "--classes", tmp_path / "classes.yaml", "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "skipped" in result.output and "annotations[2]" in result.output
    assert rayseg.read(str(out), "coco").class_names == ("y",)
    result = run(path, out, "--to", "coco", "--on-error", "ignore")
    assert isinstance(result.exception, UsageError) and "--on-error 'ignore'" in str(result.exception)
    (tmp_path / "classes.yaml").write_text("renam: {x: y}\n")
    result = run(path, out, "--to", "coco", "--classes", tmp_path / "classes.yaml")
    assert isinstance(result.exception, UsageError) and "did you mean rename" in str(result.exception)


def test_the_help_has_examples_and_formats():
    result = run("--help")
    assert result.exit_code == 0
    assert "rayseg convert coco/ yolo/ --to yolo" in result.output
    assert "cityscapes" in result.output
