"""Cityscapes: layers and numbers by hand, groups, the label table, and records that come back the same."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from annotated_samples import (
    assert_stable,
    by_name,
    fuzz,
    ious,
    mask_of,
    picture,
    placeless,
    polygons,
    rectangle,
    ring,
    rle,
    sample,
    there_and_back,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Points
from rayseg.errors import UsageError
from rayseg.formats import cityscapes, cityscapes_labels, cityscapes_polygons, id_maps, registry
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.kernels import Rles, to_polygons

HW = (30, 40)
START = "gtFine/val/ulm/ulm_000_gtFine_"
NO_IMAGE = frozenset({"image file"})
NAME = "ulm/ulm_000_leftImg8bit.png"


def _square(label: str, x: int, y: int, side: int, **more: object) -> dict:
    """Pixels x to x + side - 1: Cityscapes' points are pixels, these included."""
    last = side - 1
    return {"label": label, "polygon": [[x, y], [x + last, y], [x + last, y + last], [x, y + last]], **more}


OBJECTS = [
    _square("road", 0, 0, 20),
    _square("car", 2, 2, 6),
    _square("car", 2, 2, 6),  # hides the one before
    _square("car", 12, 12, 4, deleted=1),
    _square("car", 6, 2, 4),
    _square("cargroup", 22, 2, 5),
    _square("cargroup", 22, 20, 5),
    _square("license plate", 3, 3, 2),
    _square("unlabeled", 0, 19, 1),
]


def _put(root: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def _json(objects: list, **more: object) -> str:
    return json.dumps({"imgHeight": HW[0], "imgWidth": HW[1], "objects": objects, **more})


def _expected() -> np.ndarray:
    ids = np.zeros(HW, np.int32)
    ids[0:20, 0:20] = 7
    ids[2:8, 2:8] = 26001
    ids[2:6, 6:10] = 26002
    ids[2:7, 22:27] = ids[20:25, 22:27] = 26
    ids[19, 0] = 0
    return ids


def _png(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(ids.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


def _check(root: str) -> Dataset:
    dataset = registry.read(root, "cityscapes")
    (image,) = dataset.images
    assert (image.name, image.split, image.image_hw) == (NAME, "val", HW)
    assert [(dataset.class_names[one.category], one.crowd) for one in image.annotations] == [
        ("road", False), ("car", True), ("car", False), ("car", False),
    ]  # fmt: skip
    for annotation, number in zip(image.annotations, (7, 26, 26001, 26002), strict=True):
        np.testing.assert_array_equal(mask_of(annotation, HW) != 0, _expected() == number)
    return dataset


def test_polygons_lie_in_layers_and_are_drawn_as_pixels(tmp_path: Path) -> None:
    root = _put(tmp_path / "in", {START + "polygons.json": _json(OBJECTS)})
    assert cityscapes.detect(root, [START + "polygons.json"])
    dataset = _check(root)
    assert_stable(dataset, tmp_path / "out", "cityscapes", NO_IMAGE)
    written = json.loads((tmp_path / "out" / (START + "polygons.json")).read_text())
    assert written == json.loads(_json(OBJECTS))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / (START + "instanceIds.png"))), _expected())


def test_instance_ids_rule_over_polygons(tmp_path: Path) -> None:
    wrong = [_square("car", 0, 0, 30)]
    root = _put(tmp_path / "in", {START + "polygons.json": _json(wrong), START + "instanceIds.png": _png(_expected())})
    assert_stable(_check(root), tmp_path / "out", "cityscapes", NO_IMAGE)
    assert json.loads((tmp_path / "out" / (START + "polygons.json")).read_text())["objects"] == wrong


def test_maps_alone_and_the_files_that_are_made_for_them(tmp_path: Path) -> None:
    root = _put(tmp_path / "in", {START + "instanceIds.png": _png(_expected())})
    dataset = _check(root)
    (image,) = dataset.images
    assert image.extras == {}
    assert [one.extras for one in image.annotations] == [
        {},
        {},
        {"cityscapes": {"id": 26001}},
        {"cityscapes": {"id": 26002}},
    ]
    assert_stable(dataset, tmp_path / "out", "cityscapes", NO_IMAGE)
    labels = np.asarray(Image.open(tmp_path / "out" / (START + "labelIds.png")))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.where(_expected() > 1000, 26, _expected()))
    assert Image.open(tmp_path / "out" / (START + "instanceIds.png")).mode == "I;16"
    objects = json.loads((tmp_path / "out" / (START + "polygons.json")).read_text())["objects"]
    assert [entry["label"] for entry in objects] == ["road", "cargroup", "car", "car"]
    assert not (tmp_path / "out/labels.json").exists()


def test_label_ids_alone_are_regions_and_groups(tmp_path: Path) -> None:
    labels = np.where(_expected() > 1000, 26, _expected())
    dataset = registry.read(_put(tmp_path, {START + "labelIds.png": _png(labels)}), "cityscapes")
    (image,) = dataset.images
    assert [(dataset.class_names[one.category], one.crowd) for one in image.annotations] == [
        ("road", False),
        ("car", True),
    ]


def test_polygons_made_for_masks_draw_the_same_masks(tmp_path: Path) -> None:
    table = cityscapes_labels.standard_table()
    rng, car = np.random.default_rng(0), table.place_of(26000)
    assert car is not None
    drawn = 0
    for _ in range(150):
        mask = np.zeros((20, 24), np.uint8)
        for x, y in rng.integers(0, 16, (3, 2)):
            mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = 1
        shape = rle(mask)
        made = cityscapes_polygons.object_of(Annotation(car, shape=shape), table, (20, 24))
        image = Image.new("I", (24, 20), 0)
        ImageDraw.Draw(image).polygon([tuple(point) for point in made["polygon"]], fill=1)
        again = np.asarray(image)
        assert (again[mask != 0] == 1).all()
        if sum(map(len, to_polygons(Rles.from_strings([shape.counts], (20, 24)))[0])) == 1:
            drawn += 1
            np.testing.assert_array_equal(again, mask)
    assert drawn > 15


def test_drawing_an_image_that_was_made_for_it_gives_the_same_numbers(tmp_path: Path) -> None:
    there_and_back(sample(tmp_path / "in", overlapping=False), tmp_path / "out", "cityscapes")
    table = cityscapes_labels.table_in((tmp_path / "out/labels.json").read_bytes(), "u")
    start = tmp_path / "out/gtFine/val/sub folder/b_gtFine_"
    objects = json.loads(Path(f"{start}polygons.json").read_text())["objects"]
    ids = cityscapes_polygons.drawn(objects, (50, 30), table, "u", Faults())
    np.testing.assert_array_equal(ids, np.asarray(Image.open(f"{start}instanceIds.png")))


def test_a_sample_comes_back_but_for_what_overlaps(tmp_path: Path) -> None:
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "cityscapes")
    assert again.class_names == dataset.class_names
    old, new = by_name(dataset), by_name(again)
    assert new.keys() == old.keys()
    assert ious(old["a.jpg"], new["a.jpg"]) == [1.0, 1.0, 1.0]
    whole, lost = ious(old["sub folder/b.png"], new["sub folder/b.png"])
    rows = {(row["kind"], row["outcome"]): row for row in losses.rows() if row["outcome"] != "kept"}
    assert whole == 1.0
    assert rows["mask", "approximated"]["mean_iou"] == pytest.approx(lost)
    assert set(rows) == {("mask", "approximated"), ("class id", "approximated"), ("class label", "approximated")}
    for name, image in old.items():
        assert new[name].split == image.split
        assert Path(str(new[name].uri)).read_bytes() == Path(str(image.uri)).read_bytes()
        for a, b in zip(image.annotations, new[name].annotations, strict=True):
            assert (a.category, a.box_xyxy, a.crowd, a.group, a.attributes) == (
                b.category, b.box_xyxy, b.crowd, b.group, b.attributes,
            )  # fmt: skip
    assert_stable(again, tmp_path / "again", "cityscapes")


def test_standard_names_keep_their_ids_and_others_get_new_ones(tmp_path: Path) -> None:
    names = ["dog", "person", "road", "traffic light", "license plate", "person"]
    squares = [polygons([rectangle(6 * i, 0, 6 * i + 5, 5)]) for i in range(6)]
    annotations = tuple(Annotation(i, shape=shape) for i, shape in enumerate(squares))
    image = AnnotatedImage("a.jpg", image_hw=HW, annotations=annotations)
    again, losses = there_and_back(Dataset(tuple(map(Category, names)), [image]), tmp_path / "out", "cityscapes")
    assert [(one.name, one.source_id) for one in again.categories] == [
        ("dog", 34), ("person", 24), ("road", 7), ("traffic light", 19), ("license plate", 35), ("person_2", 36),
    ]  # fmt: skip
    ids = np.asarray(Image.open(tmp_path / "out/gtFine/unsplit/none/a_gtFine_instanceIds.png"))
    assert [ids[2, 6 * i + 2] for i in range(6)] == [34000, 24000, 7, 19, 35000, 36000]
    assert [row["count"] for row in losses.rows() if row["kind"] == "class label"] == [3]
    (found,) = again.images
    assert [one.category for one in found.annotations] == list(range(6))
    assert_stable(again, tmp_path / "again", "cityscapes", NO_IMAGE)


def test_many_classes_need_more_bits(tmp_path: Path) -> None:
    count = 300
    cells = [
        polygons([rectangle(2 * (i % 20), 2 * (i // 20), 2 * (i % 20) + 2, 2 * (i // 20) + 2)]) for i in range(count)
    ]
    image = AnnotatedImage("a.jpg", image_hw=HW, annotations=tuple(Annotation(i, shape=s) for i, s in enumerate(cells)))
    dataset = Dataset(tuple(Category(f"class {i}") for i in range(count)), [image])
    again, _ = there_and_back(dataset, tmp_path / "out", "cityscapes")
    (found,) = again.images
    assert sorted(one.category for one in found.annotations) == list(range(count))
    assert ious(image, found) == [1.0] * count
    start = tmp_path / "out/gtFine/unsplit/none/a_gtFine_"
    assert Image.open(f"{start}instanceIds.png").mode == "RGB"
    assert id_maps.read(Path(f"{start}labelIds.png").read_bytes()).max() == 333
    assert_stable(again, tmp_path / "again", "cityscapes", NO_IMAGE)


def test_groups_of_a_label_become_one_and_lines_are_lost(tmp_path: Path) -> None:
    left, right = polygons([rectangle(0, 0, 4, 4)]), polygons([rectangle(10, 0, 22, 4)])
    annotations = (
        Annotation(0, shape=left, crowd=True, score=0.5),
        Annotation(0, shape=right, crowd=True, attributes={"a": 1}),
        Annotation(0, shape=Points(ring((1, 1)))),
        Annotation(0, shape=polygons([rectangle(0.6, 0.6, 1.4, 1.4)])),
        Annotation(0, (0, float("nan"), 1, 1)),
    )
    image = AnnotatedImage("a.jpg", image_hw=HW, annotations=annotations)
    again, losses = there_and_back(Dataset((Category("car"),), [image]), tmp_path / "out", "cityscapes")
    (found,) = again.images
    assert [(one.crowd, one.score, mask_of(one, HW).sum()) for one in found.annotations] == [(True, 0.5, 64)]
    rows = {(row["kind"], row["outcome"]): row for row in losses.rows()}
    assert rows["mask", "approximated"]["count"] == 2
    assert rows["mask", "approximated"]["mean_iou"] == pytest.approx((16 / 64 + 48 / 64) / 2)
    assert {kind for kind, outcome in rows if outcome == "dropped"} == {
        "mask",
        "points",
        "box",
        "attribute",
        "crowd flag",
        "image file",
    }


def test_more_objects_than_numbers(tmp_path: Path) -> None:
    cells = [polygons([rectangle(x, y, x + 1, y + 1)]) for y in range(26) for x in range(40)][:1003]
    image = AnnotatedImage("a.jpg", image_hw=HW, annotations=tuple(Annotation(0, shape=shape) for shape in cells))
    again, losses = there_and_back(Dataset((Category("car"),), [image]), tmp_path / "out", "cityscapes")
    (found,) = again.images
    assert len(found.annotations) == 1000
    assert [row["count"] for row in losses.rows() if (row["kind"], row["outcome"]) == ("mask", "dropped")] == [3]


def test_polygons_that_came_are_drawn_anew_once_objects_are_gone(tmp_path: Path) -> None:
    dataset = registry.read(_put(tmp_path / "in", {START + "polygons.json": _json(OBJECTS)}), "cityscapes")
    (image,) = dataset.images
    for change in (
        dataclasses.replace(dataset, images=[dataclasses.replace(image, annotations=image.annotations[:2])]),
        dataclasses.replace(dataset, categories=(*dataset.categories[:25], Category("auto"), *dataset.categories[26:])),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        again, losses = there_and_back(change, folder, "cityscapes")
        labels = [entry["label"] for entry in json.loads((folder / (START + "polygons.json")).read_text())["objects"]]
        assert len(labels) == sum(len(found.annotations) for found in again.images)
        assert [row["reason"] for row in losses.rows() if row["kind"] == "extra"] == [
            "the polygons that came are of other objects: they are drawn anew"
        ]


def test_places_names_splits_and_images(tmp_path: Path) -> None:
    names = ["ulm/ulm_000_leftImg8bit.png", "a.jpg", "b.jpg", "x/y/a.jpg", "x_y/a.jpg", "../c.jpg", "a.jpg"]
    splits = ["train", None, "a/b", "val", "val", None, None]
    data = [picture(*HW, suffix="png"), picture(*HW), None, None, None, None, None]
    images = [
        AnnotatedImage(name, image_hw=HW, split=split, data=one, uri=None if one else "/elsewhere/it.jpg")
        for name, split, one in zip(names, splits, data, strict=True)
    ]
    again, losses = there_and_back(Dataset((Category("car"),), images), tmp_path / "out", "cityscapes")
    found = by_name(again)
    assert {name: image.split for name, image in found.items()} == dict(zip(names[:5], splits[:5], strict=True))
    assert Path(str(found["a.jpg"].uri)).read_bytes() == data[1]
    assert found["b.jpg"].uri == "/elsewhere/it.jpg"
    assert (tmp_path / "out/leftImg8bit/train/ulm/ulm_000_leftImg8bit.png").exists()
    assert "rayseg" not in json.loads((tmp_path / "out/gtFine/train/ulm/ulm_000_gtFine_polygons.json").read_text())
    dropped = {row["kind"]: row["count"] for row in losses.rows() if row["outcome"] == "dropped"}
    assert dropped == {"image": 2, "image file": 3}
    once_more, _ = there_and_back(again, tmp_path / "again", "cityscapes")
    assert list(map(placeless, once_more.images)) == list(map(placeless, again.images))


def test_the_folder_itself_its_pictures_and_coarse_annotations(tmp_path: Path) -> None:
    files = {
        START + "polygons.json": _json(OBJECTS),
        "leftImg8bit/val/ulm/ulm_000_leftImg8bit.png": picture(*HW, suffix="png"),
    }
    root = _put(tmp_path / "in", files)
    (image,) = registry.read(root, "cityscapes").images
    assert image.uri == f"{root}/leftImg8bit/val/ulm/ulm_000_leftImg8bit.png"
    inner = f"{root}/gtFine"
    assert cityscapes.detect(inner, [name.removeprefix("gtFine/") for name in files])
    assert [image.uri for image in registry.read(inner, "cityscapes").images] == [None]
    (image,) = registry.read(inner, "cityscapes", images=f"{root}/leftImg8bit").images
    assert image.uri == f"{root}/leftImg8bit/val/ulm/ulm_000_leftImg8bit.png"
    coarse = {name.replace("gtFine", "gtCoarse"): content for name, content in files.items()}
    _check(_put(tmp_path / "coarse", coarse))
    _put(tmp_path / "in/more", files)
    with pytest.raises(UsageError, match="several"):
        registry.read(root, "cityscapes")
    with pytest.raises(BadAnnotation, match="found no gtFine"):
        registry.read(f"{root}/leftImg8bit", "cityscapes")


def test_exif_a_map_of_the_raw_rasters_size_is_turned(tmp_path: Path) -> None:
    ids = np.zeros(HW, int)
    ids[0, 0] = 7
    files = {
        START + "instanceIds.png": _png(ids),
        "leftImg8bit/val/ulm/ulm_000_leftImg8bit.jpg": picture(*HW, orientation=6),
    }
    dataset = registry.read(_put(tmp_path / "in", files), "cityscapes")
    (image,) = dataset.images
    assert image.image_hw == (40, 30)
    assert np.argwhere(mask_of(image.annotations[0], (40, 30))).tolist() == [[0, 29]]
    assert_stable(dataset, tmp_path / "out", "cityscapes")


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"polygons.json": "{\n"}, "polygons", "ulm_001_gtFine_polygons.json: image val/ulm/ulm_001: line 2"),
        ({"polygons.json": "[]"}, "polygons", "expected an object, found []"),
        ({"polygons.json": "{}"}, "polygons", "expected an object with a list of objects"),
        ({"polygons.json": _json([_square("cat", 0, 0, 2)])}, "polygon", "objects[0]: expected a label of the table"),
        ({"polygons.json": _json([{"label": "car", "polygon": [[0, 0], [1, 1]]}])}, "polygon", "at least 3 points, found 2"),
        ({"polygons.json": _json([{"label": "car", "polygon": [[0, 0], [1, "x"], [2, 2]]}])}, "polygon", "y in polygon"),
        ({"polygons.json": _json([{"label": "car", "polygon": [[0, float("nan")], [1, 1], [2, 0]]}])}, "polygon", "y in polygon"),
        ({"polygons.json": '{"objects": []}'}, "size", "expected imgHeight and imgWidth"),
        ({"polygons.json": '{"imgHeight": 20000, "imgWidth": 20000, "objects": []}'}, "size", "of at most"),
        ({"polygons.json": '{"imgHeight": 99999999, "imgWidth": 1, "objects": []}'}, "size", "sides of 1 to"),
        ({"instanceIds.png": _png(np.full(HW, 40))}, "class", "number 40: expected numbers of labels"),
        ({"instanceIds.png": b"\x89PNG\r\n\x1a\n"}, "mask", "png ends inside its header"),
        ({"instanceIds.png": _png(np.zeros((3, 3))), "polygons.json": _json([])}, "size", "as the polygons' file says"),
        ({"polygons.json": _json([], rayseg={"image": "/etc/passwd"})}, "image", "expected the name of an image"),
        ({"polygons.json": _json([], rayseg={"instances": [{"id": 26000}]})}, "instance", "instances[0]: expected the number"),
        ({"polygons.json": _json([], rayseg={"image": NAME})}, "image", f"expected one image '{NAME}', found two"),
    ],
)  # fmt: skip
def test_faults_name_file_and_item_and_are_counted_once(tmp_path: Path, files: dict, kind: str, message: str) -> None:
    bad = {START.replace("_000_", "_001_") + name: content for name, content in files.items()}
    root = _put(tmp_path, {START + "polygons.json": _json(OBJECTS)} | bad)
    with pytest.raises(BadAnnotation) as caught:
        list(registry.read(root, "cityscapes").images)
    assert message in str(caught.value)
    assert "ulm_001_gtFine_" in str(caught.value)
    dataset = registry.read(root, "cityscapes", on_error="skip")
    for _ in range(2):
        assert NAME in [image.name for image in dataset.images]
        assert dataset.faults.counts == {kind: 1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{", "labels.json: line 1"),
        ("[]", "expected an object with labels"),
        ('{"labels": [{"name": 3, "id": 34}]}', "labels[0]: expected a name"),
        ('{"labels": [{"name": "cat", "id": 34}, {"name": "dog", "id": 34}]}', "labels[1]: expected an id of its own"),
        ('{"labels": [{"name": "\\ud800", "id": 34}]}', "labels[0]: expected a name"),
    ],
)
def test_broken_label_files_say_where(tmp_path: Path, labels: str, message: str) -> None:
    with pytest.raises(BadAnnotation) as caught:
        registry.read(_put(tmp_path, {START + "polygons.json": _json([]), "labels.json": labels}), "cityscapes")
    assert message in str(caught.value)


def test_the_label_table() -> None:
    found = {label.name: label for label in cityscapes_labels.LABELS}
    assert len(found) == 35
    assert [label.id for label in cityscapes_labels.LABELS] == [*range(34), -1]
    trained = sorted((label for label in found.values() if 0 <= label.train_id < 255), key=lambda label: label.train_id)
    assert [label.name for label in trained] == [
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
        "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ]  # fmt: skip
    assert [label.name for label in found.values() if label.has_instances and not label.ignored] == [
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ]  # fmt: skip
    assert (found["car"].colour, found["car"].category) == ((0, 0, 142), "vehicle")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_sets_give_images_or_rayseg_errors(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    source = tmp_path_factory.getbasetemp() / "cityscapes-fuzz"
    if not source.exists():
        registry.write(sample(tmp_path_factory.mktemp("pictures")), str(source), "cityscapes")
        _put(source, {START + "polygons.json": _json(OBJECTS).replace("road", "cat").replace("car", "dog")})
    fuzz(source, (".json", ".png"), seed, lambda uri: registry.read(uri, "cityscapes", on_error="skip"))
