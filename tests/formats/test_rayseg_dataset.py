"""rayseg's Parquet: data sets that come back exactly, label runs read as data sets, damage that is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats.sample_records import (
    CATEGORIES,
    HW,
    annotations,
    attributes,
    encoded_image,
    foreign_extras,
    mask_of,
    sample_dataset,
    texts,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rayseg import kernels
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.errors import RaysegError
from rayseg.formats import rayseg, rayseg_run, shapes
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.losses import Losses
from rayseg.formats.parts import DATA_SCHEMA, RowError, part_bytes, rows_table
from rayseg.formats.sink import output
from rayseg.kernels import Rles
from rayseg.records import Instances


def read(uri: Path | str, images: str | None = None, on_error: Any = "raise") -> Dataset:
    return rayseg.read(str(uri), images=images, faults=Faults(on_error))


def write(dataset: Dataset, folder: Path) -> Losses:
    losses = Losses()
    with output(str(folder), overwrite=True) as sink:
        rayseg.write(dataset, sink, losses)
    return losses


# ---- data sets


def test_a_data_set_comes_back_exactly(tmp_path: Path):
    dataset = sample_dataset(tmp_path)
    assert write(dataset, tmp_path / "out").lossless
    again = read(tmp_path / "out")
    assert list(again.images) == dataset.images
    assert again.categories == CATEGORIES
    assert next(image.uri for image in read(tmp_path / "out", "s3://b/x").images) == "s3://b/x/street_000000.png"
    assert rayseg.detect(str(tmp_path / "out"), ["data/images-00000.parquet"])


images_of_any_kind = st.builds(
    AnnotatedImage,
    name=st.from_regex(r"[a-zé ]{1,4}(/[a-z]{1,3})?\.(jpg|png)", fullmatch=True),
    uri=st.none() | texts,
    image_hw=st.just((9, 7)) | st.none(),
    annotations=st.lists(annotations((9, 7), 2), max_size=4).map(tuple),
    split=st.none() | texts,
    attributes=attributes,
    extras=foreign_extras,
    data=st.none() | st.binary(max_size=5),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(images_of_any_kind, max_size=4, unique_by=lambda image: image.name))
@example([])
def test_any_record_comes_back_exactly(tmp_path: Path, images: list[AnnotatedImage]):
    images = [
        dataclasses.replace(
            image, annotations=tuple(dataclasses.replace(a, box_xyxy=None) if a.shape else a for a in image.annotations[:2])
            + image.annotations[2:],
        ) for image in images
    ]  # fmt: skip
    categories = (Category("a", 5), Category("b", None, "c", (1, 2, 3), {"via": {"x": 1}}))
    dataset = Dataset(categories, images, {"elsewhere": {"a": [1, None]}})
    assert write(dataset, tmp_path / "out").lossless
    again = read(tmp_path / "out")
    assert list(again.images) == images
    assert (again.categories, again.info) == (categories, dataset.info)
    assert list(again.images) == images


def test_the_columns_of_a_label_run_are_there_for_every_mask(tmp_path: Path):
    dataset = sample_dataset(tmp_path)
    write(dataset, tmp_path / "out")
    files = str(tmp_path / "out/data/*.parquet")
    rows = duckdb.sql(
        f"select uri, height, width, i.category, i.category_id, i.area, i.rle, i.bbox from "
        f"(select *, unnest(instances) i from '{files}') order by ordinal"
    ).fetchall()
    expected = [(image, annotation) for image in dataset.images for annotation in image.annotations]
    assert len(rows) == len(expected) == 13
    for (uri, height, width, name, category, area, rle, bbox), (image, annotation) in zip(rows, expected, strict=True):
        assert (uri, height, width, name) == (image.uri, *HW, CATEGORIES[annotation.category].name)
        assert category == annotation.category
        x1, y1, x2, y2 = shapes.box_of(annotation)  # type: ignore[misc]
        assert list(bbox) == [x1, y1, x2 - x1, y2 - y1]
        if shapes.has_mask(annotation):
            drawn = shapes.rle_of(annotation, HW)
            assert (rle.encode(), area) == (drawn.strings()[0], drawn.areas()[0])
        else:
            assert (rle, area) == (None, None)


def test_embedded_images_and_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rayseg, "_GROUP_IMAGES", 2)
    monkeypatch.setattr(rayseg, "_FILE_IMAGES", 4)
    images = [AnnotatedImage(f"{n}.png", data=encoded_image(n, (3, 4)), image_hw=(3, 4)) for n in range(11)]
    losses = write(Dataset((), images), tmp_path / "out")
    assert losses.kept_counts == {"image": 11, "image file": 11}
    files = sorted((tmp_path / "out/data").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [4, 4, 3]
    assert [pq.read_metadata(file).num_row_groups for file in files] == [2, 2, 2]
    assert list(read(tmp_path / "out").images) == images
    assert list(read(files[1]).images) == images[4:8]
    for missing, found in (
        (files[1], r"expected 3 files, .* numbered \[0, 2\]"),
        (files[2], "expected more than 2 files"),
    ):
        data = missing.read_bytes()
        missing.unlink()
        with pytest.raises(BadAnnotation, match=found):
            read(tmp_path / "out")
        missing.write_bytes(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": []},
        {"colour": [float("inf"), 0, 0]},
        {"source_id": "x"},
        {"supercategory": 5},
        {"extras": []},
        {"name": 7},
    ],
)
def test_a_footer_with_a_class_of_wrong_kinds_is_named(tmp_path: Path, wrong: dict[str, Any]):
    write(Dataset((Category("cat"),), [AnnotatedImage("a.png", image_hw=(3, 3))]), tmp_path / "out")
    (file,) = (tmp_path / "out/data").iterdir()
    head = json.loads(pq.read_metadata(file).metadata[b"rayseg.dataset"])
    assert head["categories"] == [{"name": "cat"}]
    head["categories"] = [{"name": "cat", **wrong}]
    pq.write_table(pq.read_table(file).replace_schema_metadata({"rayseg.dataset": json.dumps(head)}), file)
    for on_error in ("raise", "skip"):
        with pytest.raises(BadAnnotation, match="expected categories and info in its footer"):
            read(tmp_path / "out", on_error=on_error)


def test_what_json_and_64_bits_cannot_hold_is_said(tmp_path: Path):
    annotation = Annotation(0, (0.0, 0.0, 1.0, 1.0), group=1 << 70, attributes={"a": {1, 2}, "b": 1})
    named = AnnotatedImage("a\udc80.png", image_hw=(3, 3), annotations=(annotation,))
    losses = write(
        Dataset((Category("x"),), [AnnotatedImage("a.png", annotations=(annotation,)), named]), tmp_path / "out"
    )
    assert sorted((kind, tally.count) for (kind, _), tally in losses.drops.items()) == [
        ("attribute", 1), ("box", 1), ("group", 1), ("image", 1),
    ]  # fmt: skip
    (image,) = read(tmp_path / "out").images
    assert image.annotations == (dataclasses.replace(annotation, group=None, attributes={"b": 1}),)


# ---- label runs

CLASSES = ["cat", "dog"]


def instances(seed: int, count: int, hw: tuple[int, int] = (8, 9)) -> Instances:
    rng = np.random.default_rng(seed)
    rles = kernels.encode((rng.random((count, *hw)) < 0.5).astype(np.uint8)) if count else Rles.empty(hw)
    boxes = np.sort(rng.random((count, 2, 2)).astype(np.float32), axis=1).reshape(count, 4) * 8
    scores = rng.random(count).astype(np.float32)
    return Instances(boxes, scores, rng.integers(0, 2, count), rles, hw)


def put_part(out: Path, epoch: int, ordinals: list[int], results: list[Instances | RowError]) -> str:
    name = f"part-{epoch:04d}-{ordinals[0]:012d}-{abs(hash(tuple(ordinals))) % 16**8:08x}.parquet"
    uris = [f"s3://bucket/photos/day/{number}.jpg" for number in ordinals]
    table = rows_table(ordinals, uris, results, CLASSES)
    (out / "data").mkdir(parents=True, exist_ok=True)
    (out / "data" / name).write_bytes(part_bytes(table, ordinals=np.array(ordinals), metadata={}))
    return name


def put_run(out: Path) -> list[str]:
    """A finished run of six images and a part that does not count; returns the names of those that do."""
    second = put_part(out, 1, [3, 4, 5], [instances(3, 2), RowError("decode", "corrupt", "bad"), instances(5, 1)])
    first = put_part(out, 1, [0, 1, 2], [instances(0, 3), instances(1, 0), RowError("read", "not_found", "no", (4, 5))])
    put_part(out, 2, [0, 1], [instances(8, 1), instances(9, 1)])
    record = {"model": {"class_names": CLASSES, "uri": "m"}, "spec": {"images": "s3://bucket/photos"}}
    (out / "job.json").write_text(json.dumps(record))
    (out / "manifest.json").write_text(json.dumps({**record, "parts": [{"name": one} for one in (second, first)]}))
    return [first, second]


def test_a_label_run_is_a_data_set_with_scores(tmp_path: Path):
    put_run(tmp_path)
    dataset = read(tmp_path)
    images = list(dataset.images)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.info["rayseg"]["model"]["uri"] == "m"
    assert [image.name for image in images] == [f"day/{number}.jpg" for number in range(6)]
    assert [image.uri for image in images] == [f"s3://bucket/photos/day/{number}.jpg" for number in range(6)]
    assert [image.image_hw for image in images] == [(8, 9), (8, 9), (4, 5), (8, 9), None, (8, 9)]
    assert [len(image.annotations) for image in images] == [3, 0, 0, 2, 0, 1]
    assert images[4].extras["rayseg"] == {
        "ordinal": 4,
        "error": {"stage": "decode", "kind": "corrupt", "message": "bad"},
    }
    expected = instances(0, 3)
    for i, annotation in enumerate(images[0].annotations):
        assert annotation.shape == Mask(expected.rles.strings()[i], (8, 9))
        assert (annotation.category, annotation.score) == (expected.classes[i], expected.scores[i])
        assert annotation.box_xyxy == pytest.approx(expected.boxes_xyxy[i], abs=1e-5)
    assert rayseg.detect(str(tmp_path), ["data/x.parquet", "job.json"])
    write(dataset, tmp_path / "out")
    assert list(read(tmp_path / "out").images) == images


def test_images_of_other_places_are_named_by_their_whole_uri(tmp_path: Path):
    put_run(tmp_path)
    for name in ("job.json", "manifest.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("s3://bucket/photos", "photos/*.jpg"))
    assert next(iter(read(tmp_path).images)).name == "bucket/photos/day/0.jpg"
    assert next(iter(read(tmp_path, "/data").images)).uri == "/data/bucket/photos/day/0.jpg"


def test_an_unfinished_run_counts_what_its_next_driver_would(tmp_path: Path):
    names = put_run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "epochs").mkdir()
    (tmp_path / "epochs/0001.json").write_text(json.dumps({"epoch": 1, "accepted": []}))
    (tmp_path / "epochs/0002.json").write_text(json.dumps({"epoch": 2, "accepted": names[:1]}))
    put_part(tmp_path, 2, [4, 5], [instances(4, 1), instances(5, 1)])
    put_part(tmp_path, 2, [5], [instances(6, 1)])  # is covered by the one before
    put_part(tmp_path, 3, [3], [instances(6, 1)])  # of an epoch that nobody began
    with pytest.raises(BadAnnotation, match=r"manifest\.json: is not there"):
        read(tmp_path)
    dataset = read(tmp_path, on_error="skip")
    assert [image.extras["rayseg"]["ordinal"] for image in dataset.images] == [0, 1, 2, 4, 5]
    assert dataset.faults.counts == {"run": 1}


ranges = st.lists(st.integers(0, 40), unique=True, max_size=12).map(
    lambda found: np.array(sorted(found)[: len(found) // 2 * 2]).reshape(-1, 2)
)


@given(ranges, ranges)
def test_ranges_overlap_where_they_share_an_ordinal(first: np.ndarray, second: np.ndarray):
    members = [{n for a, b in one.tolist() for n in range(a, b)} for one in (first, second)]
    assert rayseg_run._overlap(first.reshape(-1, 2)[::-1], second) == bool(members[0] & members[1])


def test_rows_that_contradict_themselves_are_named(tmp_path: Path):
    put_run(tmp_path)
    name = json.loads((tmp_path / "manifest.json").read_text())["parts"][1]["name"]
    table = rows_table([0, 1, 2], ["a", "b", "c"], [instances(0, 3), instances(1, 1), instances(2, 1)], [*CLASSES, "x"])
    rows = table.to_pylist()
    rows[0]["instances"][0]["category_id"] = 7
    rows[0]["instances"][1]["rle"] = "0"
    rows[1]["height"] = None
    rows[2]["uri"] = None
    broken = pa.Table.from_pylist(rows, schema=DATA_SCHEMA)
    (tmp_path / "data" / name).write_bytes(part_bytes(broken, ordinals=np.arange(3), metadata={}))
    dataset = read(tmp_path, on_error="skip")
    images = list(dataset.images)
    assert [len(image.annotations) for image in images] == [1, 0, 2, 0, 1]
    assert dataset.faults.counts == {"category": 1, "mask": 2, "image": 1}
    with pytest.raises(BadAnnotation, match=rf"{name}: row 0, instance 0: expected a category_id of 0 to 1, found 7"):
        list(read(tmp_path).images)


# ---- damage


def test_rows_of_a_data_set_that_make_no_sense_are_named(tmp_path: Path):
    write(sample_dataset(tmp_path), tmp_path / "out")
    path = tmp_path / "out/data/images-00000.parquet"
    metadata = pq.read_metadata(path).metadata
    rows = pq.read_table(path).to_pylist()
    rows[0]["name"] = "../x.png"
    rows[1]["name"] = rows[4]["name"]
    rows[2]["instances"][0]["category_id"] = 3
    rows[2]["instances"][1]["attributes"] = "[1]"
    rows[3]["instances"][0]["shape"] = '{"ellipse": [1]}'
    rows[3]["instances"][1]["box"] = [1, 2, 0, 4]
    rows[5]["height"] = -1
    table = pa.Table.from_pylist(rows, schema=rayseg.SCHEMA)
    with pq.ParquetWriter(path, rayseg.SCHEMA) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"rayseg.dataset": metadata[b"rayseg.dataset"]})
    dataset = read(tmp_path / "out", on_error="skip")
    for _ in range(2):
        assert [len(image.annotations) for image in dataset.images] == [1, 0, 1, 2]
        assert dataset.faults.counts == {"image": 3, "annotation": 3, "box": 1}


def test_other_parquet_is_refused(tmp_path: Path):
    path = tmp_path / "images-00000.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(BadAnnotation, match=r"expected rayseg\.dataset of version 1 in its footer, found None"):
        read(path)
    with pytest.raises(BadAnnotation, match="names the model's classes"):
        read(tmp_path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_named_error(tmp_path: Path, data: st.DataObject):
    path = tmp_path / "out/data/images-00000.parquet"
    if not path.exists():
        image = AnnotatedImage("a.png", image_hw=HW, annotations=(Annotation(0, shape=mask_of(np.ones(HW))),))
        write(Dataset((Category("x"),), [image]), tmp_path / "out")
        (tmp_path / "whole").write_bytes(path.read_bytes())
    text = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text)
    try:
        list(read(tmp_path / "out", on_error="skip").images)
    except RaysegError as error:
        assert "images-00000.parquet" in str(error)
