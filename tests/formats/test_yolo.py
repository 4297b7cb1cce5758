"""YOLO: rows by hand with known answers, numbers that come back exactly, and what one outline a row cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from annotated_samples import (
    assert_stable,
    by_name,
    fuzz,
    ious,
    mask_of,
    picture,
    polygons,
    rectangle,
    ring,
    rle,
    sample,
    there_and_back,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Points, Polygons
from rayseg.errors import UsageError
from rayseg.formats import registry, shapes, yolo, yolo_rows
from rayseg.formats.bridges import joined
from rayseg.formats.faults import BadAnnotation

HW = (40, 80)


def _put(root: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def _set(rows: str = "", config: str = "train: images/train\nnames: [cat, dog]\n") -> dict[str, str | bytes]:
    picture_bytes = picture(*HW)
    return {"data.yaml": config, "images/train/a.jpg": picture_bytes, "labels/train/a.txt": rows}


def _one(image: AnnotatedImage) -> Annotation:
    (annotation,) = image.annotations
    return annotation


def _even_odd(points: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre a ray to the right leaves through an odd number of the ring's sides."""
    y, x = np.mgrid[: image_hw[0], : image_hw[1]] + 0.5
    crossings = np.zeros(image_hw, int)
    for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if ya != yb:
            crossings += ((ya <= y) != (yb <= y)) & (xa + (y - ya) / (yb - ya) * (xb - xa) > x)
    return crossings % 2 == 1


def test_boxes_and_outlines_by_hand(tmp_path: Path) -> None:
    rows = "1 0.5 0.25 0.25 0.1\n\n0 0.1 0.1 0.2 0.1 0.2 0.35\r\n"
    root = _put(tmp_path, {**_set(rows), "images/train/b.png": picture(*HW, suffix="png")})
    assert yolo.detect(root, ["data.yaml", "images/train/a.jpg"])
    dataset = registry.read(root, "yolo")
    assert dataset.class_names == ("cat", "dog")
    first, second = dataset.images
    box, outline = first.annotations
    assert (first.name, first.split, first.image_hw) == ("a.jpg", "train", HW)
    assert (box.category, box.box_xyxy, box.shape) == (1, (30.0, 8.0, 50.0, 12.0), None)
    assert (outline.category, outline.box_xyxy) == (0, None)
    assert outline.shape == polygons([ring((8, 4), (16, 4), (16, 14))])
    assert (second.name, second.annotations) == ("b.png", ())
    assert_stable(dataset, tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/train/a.txt").read_text().splitlines()[0] == "1 0.5 0.25 0.25 0.1"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[cat, no, 7]", {0: "cat", 1: "no", 2: "7"}),
        ("{0: cat, 1: yes}", {0: "cat", 1: "yes"}),
        ("{3: cat, 1: dog}", {1: "dog", 3: "cat"}),
    ],
)
def test_names_as_list_or_map(tmp_path: Path, names: str, expected: dict[int, str]) -> None:
    rows = "".join(f"{class_id} .5 .5 .1 .1\n" for class_id in expected)
    dataset = registry.read(_put(tmp_path, _set(rows, f"train: images/train\nnames: {names}\n")), "yolo")
    assert {category.source_id: category.name for category in dataset.categories} == expected
    assert [one.category for image in dataset.images for one in image.annotations] == list(range(len(expected)))
    assert_stable(dataset, tmp_path / "out", "yolo")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("train: images/train\nval: images/val", ["a.jpg train", "b.jpg val"]),
        ("path: .\ntrain: ./images/train/\nval:\n- images/val", ["a.jpg train", "b.jpg val"]),
        ("path: ../datasets/coco\ntrain: ../images/train\nval: ''", ["a.jpg train"]),
        ("path: /content/coco\ntrain: [images/train, images/val]\nval: images/val", ["a.jpg train", "b.jpg train"]),
        ("train: images\ntest: images/val", ["train/a.jpg train", "val/b.jpg train"]),
        ("train: lists/one.txt", ["train/a.jpg train", "val/b.jpg train"]),
        ("train: [images/val, images/train]", ["a.jpg train", "b.jpg train"]),
        ("train: .", ["images/train/a.jpg train", "images/val/b.jpg train"]),
    ],
)
def test_splits_are_folders_lists_of_folders_or_lists_of_images(tmp_path: Path, config: str, found: list[str]) -> None:
    files = _set("0 .5 .5 .5 .5", f"{config}\nnames: [cat]\n")
    files |= {"images/val/b.jpg": picture(*HW), "labels/val/b.txt": "0 .5 .5 .25 .25"}
    files["lists/one.txt"] = f"./images/val/b.jpg\n\n{tmp_path}/in/images/train/a.jpg\n"
    dataset = registry.read(_put(tmp_path / "in", files), "yolo")
    assert [f"{image.name} {image.split}" for image in dataset.images] == found
    assert all(len(image.annotations) == 1 for image in dataset.images)
    assert_stable(dataset, tmp_path / "out", "yolo")


def test_a_root_named_by_path_is_used_where_it_is_there(tmp_path: Path) -> None:
    config = {"set.yaml": "path: data/coco\ntrain: images/train\nnames: [cat, dog]\n"}
    files = {f"data/coco/{name}": content for name, content in _set("0 .5 .5 .5 .5").items() if name != "data.yaml"}
    root = _put(tmp_path, {**config, **files})
    for uri in (root, f"{root}/set.yaml"):
        (image,) = registry.read(uri, "yolo").images
        assert len(image.annotations) == 1


def test_names_shared_by_two_splits_are_told_apart(tmp_path: Path) -> None:
    files = _set("0 .5 .5 .5 .5", "train: images/train\nval: images/val\nnames: [cat]\n")
    dataset = registry.read(_put(tmp_path / "in", files | {"images/val/a.jpg": picture(*HW)}), "yolo")
    assert [image.name for image in dataset.images] == ["train/a.jpg", "val/a.jpg"]
    assert_stable(dataset, tmp_path / "out", "yolo")


@pytest.mark.parametrize("place", ["/etc", "../../x", "images/../../x", "s3://bucket/x", "C:/x"])
def test_places_outside_are_refused(tmp_path: Path, place: str) -> None:
    root = _put(tmp_path / "in", _set(config=f"train: {place}\nnames: [cat]\n"))
    with pytest.raises(BadAnnotation, match="data.yaml: train: expected a path below"):
        registry.read(root, "yolo")
    root = _put(tmp_path / "list", _set(config="train: one.txt\nnames: [cat]\n") | {"one.txt": f"{place}/b.jpg\n"})
    with pytest.raises(BadAnnotation, match=r"one.txt: line 1: expected a path below"):
        list(registry.read(root, "yolo").images)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0 .5 .5 .1", "line 1: expected 4 values of a box or pairs"),
        ("0 .5 .5 .1 .1\n0 .1 .1 .2 .1 .2 .3 .4\n0 .5 .5 .1 .1", "line 2: expected 4 values"),
        ("2 .5 .5 .1 .1", "line 1: expected a class of names, found 2"),
        ("-1 .5 .5 .1 .1", "line 1: expected a class id"),
        ("0.5 .5 .5 .1 .1", "line 1: expected a class id"),
        ("0 .5 1.5 .1 .1", "line 1: expected coordinates of 0 to 1, found 1.5"),
        ("0 .1 .1 .2 .1 .2 -.1", "found -0.1"),
        ("0 .5 nan .1 .1", "found nan"),
        ("0 .5 x .1 .1", "line 1: expected numbers"),
        ("0 .1 .1 .2 .2", None),
    ],
)
def test_faults_of_rows_name_file_and_line(tmp_path: Path, rows: str, message: str | None) -> None:
    root = _put(tmp_path, _set(rows))
    if message is None:
        assert len(list(registry.read(root, "yolo").images)) == 1
        return
    with pytest.raises(BadAnnotation) as caught:
        list(registry.read(root, "yolo").images)
    assert "labels/train/a.txt: line " in str(caught.value)
    assert message in str(caught.value)
    dataset = registry.read(root, "yolo", on_error="skip")
    for _ in range(2):
        (image,) = dataset.images
        assert len(image.annotations) == rows.count("\n")
        assert dataset.faults.counts == {"row": 1}


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"labels/train/z.txt": "0 .5 .5 .1 .1"}, "image", "labels/train/z.txt: file: expected an image"),
        ({"images/train/b.jpg": b"no image"}, "image", "images/train/b.jpg: file: expected an image, whose size"),
        ({"labels/train/a.txt": b"\xff\xfe"}, "file", "labels/train/a.txt: file: expected rows"),
        ({"data.yaml": "train: images/train\nval: images/none\nnames: [cat]\n"}, "split", "found none"),
        ({"image_sizes.jsonl": '["../b.jpg", 4, 4]\n'}, "size", "image_sizes.jsonl: line 1"),
    ],
)
def test_faults_of_files_are_counted_once(tmp_path: Path, files: dict, kind: str, message: str) -> None:
    root = _put(tmp_path, _set("0 .5 .5 .1 .1") | files)
    with pytest.raises(BadAnnotation) as caught:
        list(registry.read(root, "yolo").images)
    assert message in str(caught.value)
    dataset = registry.read(root, "yolo", on_error="skip")
    for _ in range(2):
        assert [image.name for image in dataset.images] == ["a.jpg"]
        assert dataset.faults.counts == {kind: 1}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"names: [a", "line 2: not YAML"),
        (b"names: &a [*a]", "line 1: expected a plain YAML, found an alias"),
        (b"train: x", "expected names"),
        (b"names: {x: a}\ntrain: x", "names: expected class ids"),
        (b"names: [[a]]\ntrain: x", "names: expected class ids"),
        (b"names: [a]\ntrain: {a: b}", "train: expected a folder"),
        (b"names: [a]\n\xff", "line 2: expected YAML in UTF-8"),
        (b'names: ["\\ud800"]', "not YAML"),
        (b"names: [a]\nx: !!int ''", "not YAML"),
        (b"names: [a]\nx: " + b"[" * 60, "nested over"),
        (b"- a", "expected a YAML mapping"),
    ],
)
def test_broken_configs_say_where(tmp_path: Path, config: bytes, message: str) -> None:
    root = _put(tmp_path, _set() | {"data.yaml": config})
    with pytest.raises(BadAnnotation) as caught:
        registry.read(root, "yolo")
    assert message in str(caught.value)
    assert yolo.detect(root, ["data.yaml"]) == message.startswith("train:")


def test_several_configs_are_refused_and_one_can_be_named(tmp_path: Path) -> None:
    files = _set()
    root = _put(tmp_path, {"one.yaml": files["data.yaml"], "two.yaml": files["data.yaml"], **files})
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(UsageError, match=r"one.yaml, two.yaml"):
        registry.read(root, "yolo")
    assert len(list(registry.read(f"{root}/two.yaml", "yolo").images)) == 1


def test_a_folder_with_classes_alone(tmp_path: Path) -> None:
    files = {
        "classes.txt": "cat\ndog\n",
        "images/a.jpg": picture(*HW),
        "labels/a.txt": "1 .5 .5 .5 .5\n",
        "notes.json": "{}",
    }
    dataset = registry.read(_put(tmp_path / "in", files), "yolo")
    (image,) = dataset.images
    assert (image.name, image.split, _one(image).category) == ("a.jpg", None, 1)
    assert_stable(dataset, tmp_path / "out", "yolo")


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    files = _set("0 .5 .5 .5 .5")
    pictures = {"images/train/a.jpg": files.pop("images/train/a.jpg")}
    root = _put(tmp_path / "labels", files)
    for folder, strip in (("whole", ""), ("images", "images/")):
        place = _put(tmp_path / folder, {name.removeprefix(strip): data for name, data in pictures.items()})
        (image,) = registry.read(root, "yolo", images=place).images
        assert (image.name, image.uri) == ("a.jpg", f"{place}/{'images/train/a.jpg'.removeprefix(strip)}")
        assert _one(image).box_xyxy == (20.0, 10.0, 60.0, 30.0)


def test_predictions_carry_a_confidence(tmp_path: Path) -> None:
    rows = "0 .5 .5 .1 .1 0.25\n1 .1 .1 .2 .1 .2 .3 0.75\n"
    dataset = registry.read(_put(tmp_path / "in", _set(rows)), "yolo")
    (image,) = dataset.images
    assert [(one.score, one.box_xyxy is None) for one in image.annotations] == [(0.25, False), (0.75, True)]
    assert_stable(dataset, tmp_path / "out", "yolo")
    root = _put(tmp_path / "mixed", _set(rows + "0 .1 .1 .2 .1 .2 .3\n"))
    with pytest.raises(BadAnnotation, match=r"line 3: .* as most rows have one, found 6 values"):
        list(registry.read(root, "yolo").images)


def test_scores_are_written_for_all_or_for_none() -> None:
    def losses_of(first: float | None, second: float | None, folder: Path) -> dict:
        scored = tuple(Annotation(0, (0, 0, 9, 9), score=score) for score in (first, second))
        dataset = Dataset((Category("x"),), [AnnotatedImage("a.jpg", image_hw=HW, annotations=scored)])
        again, losses = there_and_back(dataset, folder, "yolo")
        found = [one.score for image in again.images for one in image.annotations]
        return {(row["kind"], row["outcome"]): row["count"] for row in losses.rows()}, found

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows, found = losses_of(0.5, None, Path(folder, "a"))
        assert (rows["score", "kept"], rows["score", "approximated"], found) == (1, 1, [0.5, 1.0])
        rows, found = losses_of(None, 0.5, Path(folder, "b"))
        assert (rows["score", "dropped"], found) == (1, [None, None])


def test_keypoints_ride_along(tmp_path: Path) -> None:
    config = "train: images/train\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames: [person]\n"
    rows = "0 .5 .5 .25 .25 .1 .2 2 .3 .4 0\n"
    dataset = registry.read(_put(tmp_path / "in", _set(rows, config)), "yolo")
    (image,) = dataset.images
    assert _one(image).box_xyxy == (30.0, 15.0, 50.0, 25.0)
    assert _one(image).extras == {"yolo": {"keypoints": [0.1, 0.2, 2.0, 0.3, 0.4, 0.0]}}
    assert_stable(dataset, tmp_path / "out", "yolo")
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["kpt_shape"] == [2, 3]


def test_a_sample_keeps_its_masks_and_tells_what_it_loses(tmp_path: Path) -> None:
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "yolo")
    old, new = by_name(dataset), by_name(again)
    assert new.keys() == old.keys()
    for name, image in old.items():
        assert new[name].split == image.split
        assert [one.category for one in new[name].annotations] == [one.category for one in image.annotations]
        assert all(iou == 1.0 for iou in ious(image, new[name]))
    rows = {(row["kind"], row["outcome"]): row["count"] for row in losses.rows() if row["kind"] != "attribute"}
    assert rows == {
        ("class", "kept"): 3, ("image", "kept"): 4, ("image file", "kept"): 4, ("box", "kept"): 2, ("mask", "kept"): 2,
        ("mask", "approximated"): 1, ("hole", "approximated"): 1, ("part", "approximated"): 1, ("box", "approximated"): 2,
        ("class id", "approximated"): 1, ("supercategory", "dropped"): 1, ("crowd flag", "dropped"): 1, ("group", "dropped"): 1,
    }  # fmt: skip
    assert sum(row["count"] for row in losses.rows() if row["kind"] == "attribute") == 4
    assert_stable(again, tmp_path / "again", "yolo")
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert config["train"] == ["images/train", "images/unsplit"]
    assert config["names"] == {0: "cat", 1: "traffic light", 2: "dog"}


@pytest.mark.parametrize("split", [None, "val", "holdout/2", "images"])
def test_train_and_val_are_always_named_and_any_split_comes_back(tmp_path: Path, split: str | None) -> None:
    image = AnnotatedImage("a.jpg", data=picture(*HW), split=split)
    again, losses = there_and_back(Dataset((Category("x"),), [image]), tmp_path / "out", "yolo")
    assert [found.split for found in again.images] == [split]
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    for key in ("train", "val"):
        assert (tmp_path / "out" / config[key] / "a.jpg").exists()
    assert losses.lossless


def test_boxes_alone_stay_boxes_in_a_set_without_masks(tmp_path: Path) -> None:
    annotations = (
        Annotation(0, (1, 2, 11, 12.5)),
        Annotation(0, (-5, 2, 90, 12.5)),
        Annotation(0, (1, 2, 3.0000001, 4)),
    )
    image = AnnotatedImage("a.jpg", data=picture(*HW), annotations=annotations)
    again, losses = there_and_back(Dataset((Category("x"),), [image]), tmp_path / "out", "yolo")
    assert [one.box_xyxy for found in again.images for one in found.annotations] == [
        (1.0, 2.0, 11.0, 12.5), (0.0, 2.0, 80.0, 12.5), (1.0, 2.0, 3.0, 4.0),
    ]  # fmt: skip
    reasons = [row["reason"] for row in losses.rows() if row["kind"] == "box" and row["outcome"] == "approximated"]
    assert reasons == ["cut at the image's edge", "coordinates are rounded to a millionth of a pixel"]


def test_overlapping_parts_are_united_first(tmp_path: Path) -> None:
    two = polygons([rectangle(2, 2, 20, 20)], [rectangle(10, 10, 30, 30)])
    image = AnnotatedImage("a.jpg", data=picture(*HW), annotations=(Annotation(0, shape=two),))
    again, losses = there_and_back(Dataset((Category("x"),), [image]), tmp_path / "out", "yolo")
    (found,) = again.images
    expected = _even_odd(rectangle(2, 2, 20, 20), HW) | _even_odd(rectangle(10, 10, 30, 30), HW)
    np.testing.assert_array_equal(mask_of(_one(found), HW) != 0, expected)
    (row,) = [row for row in losses.rows() if row["kind"] == "mask"]
    assert "united" in row["reason"]
    assert row["mean_iou"] == 1.0


def test_what_cannot_be_written_is_reported(tmp_path: Path) -> None:
    annotations = (
        Annotation(0, shape=polygons([rectangle(100, 100, 120, 120)])),
        Annotation(0, shape=rle(np.zeros(HW))),
        Annotation(0, shape=Points(ring((1, 1)))),
        Annotation(0, (1, 1, 5, 5), Points(ring((1, 1)))),
        Annotation(0, (0, 0, 30, 30), polygons([rectangle(2, 2, 20, 20)])),
        Annotation(0, shape=polygons([ring((1, 1), (2, 2))])),
    )
    images = [
        AnnotatedImage("a.jpg", data=picture(*HW), annotations=annotations),
        AnnotatedImage("../b.jpg", data=picture(*HW)),
        AnnotatedImage("c.jpg", uri=str(tmp_path / "none.jpg"), annotations=annotations[:1]),
    ]
    again, losses = there_and_back(Dataset((Category("x"),), images), tmp_path / "out", "yolo")
    assert [(image.name, len(image.annotations)) for image in again.images] == [("a.jpg", 2)]
    dropped = {}
    for row in losses.rows():
        if row["outcome"] == "dropped":
            dropped[row["kind"]] = dropped.get(row["kind"], 0) + row["count"]
    assert dropped == {"mask": 4, "points": 2, "box": 1, "image": 2}


def test_sizes_stand_in_for_images_that_cannot_be_copied(tmp_path: Path) -> None:
    image = AnnotatedImage("a.jpg", uri="s3-less/none.jpg", image_hw=HW, annotations=(Annotation(0, (1, 2, 3, 4)),))
    again, losses = there_and_back(Dataset((Category("x"),), [image]), tmp_path / "out", "yolo")
    (found,) = again.images
    assert (found.name, found.uri, found.image_hw, _one(found).box_xyxy) == ("a.jpg", None, HW, (1.0, 2.0, 3.0, 4.0))
    assert [row["kind"] for row in losses.rows() if row["outcome"] == "dropped"] == ["image file"]
    assert list(registry.read(str(tmp_path / "out"), "yolo").images) == [found]


def test_images_that_would_share_a_label_file_are_renamed(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "photo", "images/x.jpg"]
    images = [
        AnnotatedImage(name, data=picture(*HW), annotations=(Annotation(0, (0, 0, i + 1, 1)),))
        for i, name in enumerate(names)
    ]
    again, losses = there_and_back(Dataset((Category("x"),), images), tmp_path / "out", "yolo")
    assert {image.name: _one(image).box_xyxy[2] for image in again.images} == {
        "a.jpg": 1, "a_png.png": 2, "photo.jpg": 3, "images/x.jpg": 4,
    }  # fmt: skip
    assert [row["count"] for row in losses.rows() if row["kind"] == "image name"] == [2]


def test_exif_coordinates_are_of_the_upright_image(tmp_path: Path) -> None:
    files = _set("0 .25 .5 .5 1\n") | {"images/train/a.jpg": picture(*HW, orientation=6)}
    dataset = registry.read(_put(tmp_path / "in", files), "yolo")
    (image,) = dataset.images
    assert (image.image_hw, _one(image).box_xyxy) == ((80, 40), (0.0, 0.0, 20.0, 80.0))
    assert_stable(dataset, tmp_path / "out", "yolo")


shares = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1 / 3, 1 / 128, 0.1, 0.123456, 1e-300]) | st.integers(0, 10**6).map(
    lambda n: n / 1e6
)  # fmt: skip
image_sides = st.integers(1, 1 << 17)


@settings(max_examples=300, deadline=None)
@given(st.lists(shares, min_size=2, max_size=12).filter(lambda v: len(v) % 2 == 0), image_sides, image_sides)
@example([1 / 49, 0.3, 0.7, 1.0], 49, 3)
def test_what_was_read_is_written_and_read_as_the_same_numbers(values: list, height: int, width: int) -> None:
    values = values if len(values) > 2 else values * 2
    first = yolo_rows.parse(" ".join(["0", *map(repr, values)]), (height, width), scored=False)
    if first.box is None:
        assert first.ring is not None
        numbers = yolo_rows.ring_row(first.ring, (height, width))
    else:
        numbers, change = yolo_rows.box_row(first.box, (height, width))
        assert change == ""
    again = yolo_rows.parse(" ".join(["0", *map(repr, numbers)]), (height, width), scored=False)
    assert again.box == first.box
    assert np.array_equal(np.asarray(again.ring), np.asarray(first.ring))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=3, max_size=5), st.integers(1, 9))
def test_decimals_of_six_places_stay_the_doubles_they_are(points: list, size: int) -> None:
    width = 100 * size + 7
    pixels = np.array([(x % (width * 10**6), y % (width * 10**6)) for x, y in points]) / 1e6
    found = yolo_rows.outline(Annotation(0, shape=Polygons(((pixels,),))), (width, width))
    assert found is not None
    assert found.reason == ""
    row = " ".join(["0", *map(repr, yolo_rows.ring_row(found.ring, (width, width)))])
    again = yolo_rows.parse(row, (width, width), scored=False)
    assert np.array_equal(np.asarray(again.ring), pixels)


corner = st.integers(-40, 140).map(lambda n: n / 4)
rings = st.lists(st.tuples(corner, corner), min_size=3, max_size=6).map(lambda points: np.array(points, np.float64))


@settings(max_examples=60, deadline=None)
@given(rings, st.tuples(st.integers(1, 25), st.integers(1, 25)))
def test_cutting_at_the_edge_leaves_the_pixels(points: np.ndarray, image_hw: tuple[int, int]) -> None:
    cut = yolo_rows.clipped(points, image_hw)
    height, width = image_hw
    assert (cut >= 0).all()
    assert (cut <= [width, height]).all()
    before, after = (
        shapes.rle_of(Annotation(0, shape=Polygons(((one,),) if len(one) else ())), image_hw).decode(0)
        for one in (points, cut)
    )
    differ = (
        before != after
    )  # a corner on the edge is moved by rounding, which may pass the centre of a pixel beside it
    assert differ.sum() <= 1
    assert np.array_equal(before != 0, _even_odd(points, image_hw)) or differ.sum() <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=5))
def test_bridges_cover_nothing(squares: list) -> None:
    parts = [rectangle(x, y, x + side, y + side) for x, y, side in squares]
    whole = joined(parts)
    expected = np.zeros((30, 30), bool)
    for part in parts:
        expected ^= _even_odd(part, (30, 30))
    np.testing.assert_array_equal(_even_odd(whole, (30, 30)), expected)
    filled = shapes.rle_of(Annotation(0, shape=Polygons(((whole,),))), (30, 30)).decode(0)
    np.testing.assert_array_equal(filled != 0, expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_sets_give_images_or_rayseg_errors(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    source = tmp_path_factory.getbasetemp() / "yolo-fuzz"
    if not source.exists():
        rows = "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.9 0.1 0.5 0.9\n"
        _put(source, _set(rows, "path: .\ntrain: images/train\nval: val.txt\nnames:\n  0: cat\n  1: dog\n"))
        _put(source, {"val.txt": "./images/val/b.jpg\n", "images/val/b.jpg": picture(*HW), "labels/val/b.txt": rows})
    fuzz(source, (".yaml", ".txt", ".jpg"), seed, lambda uri: registry.read(uri, "yolo", on_error="skip"))
