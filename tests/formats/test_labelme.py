"""labelme: files by hand with known answers, objects out of parts, and what labelme has no form for."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import tempfile
from pathlib import Path
from typing import Any

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
from formats import sample_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.errors import RaysegError
from rayseg.formats import labelme, registry
from rayseg.formats.faults import BadAnnotation

HW = (40, 60)


def png64(pixels: np.ndarray, mode: str | None = None) -> str:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def entry(kind: str | None, points: list[Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def document(*shapes: Any, **more: Any) -> dict[str, Any]:
    size = {"imageHeight": HW[0], "imageWidth": HW[1]}
    whole = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None}
    return whole | size | more


def put(folder: Path, content: Any, name: str = "a.json", image: str | None = "a.jpg") -> str:
    for path, data in ((name, json.dumps(content).encode()), (image, picture(*HW))):
        if path is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    return str(folder)


def only(dataset: Dataset) -> tuple[Annotation, ...]:
    (image,) = dataset.images
    return image.annotations


def read(folder: Path | str, *shapes: Any, **more: Any) -> Dataset:
    return registry.read(put(Path(folder), document(*shapes, **more)), "labelme")


# ---- shapes by hand


def test_every_shape_type(tmp_path: Path):
    square = [[1.5, 2], [11.5, 2], [11.5, 12], [1.5, 12]]
    stamp = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    dataset = read(
        tmp_path,
        entry("polygon", square),
        entry(None, [*square, square[0]]),  # older files say nothing, and some close their rings
        entry("rectangle", [[20, 30], [10, 5]]),
        entry("circle", [[20, 20], [23, 24]]),
        entry("line", [[1, 2], [3, 4]]),
        entry("linestrip", [[1, 2], [3, 4], [5, 6]]),
        entry("point", [[7, 8]]),
        entry("points", [[7, 8], [9, 10]]),
        entry("mask", [[5, 6], [7, 7]], mask=png64(stamp)),
        entry("oriented_rectangle", [[5, 0], [10, 5], [5, 10], [0, 5]]),
    )
    stamped = np.zeros(HW, np.uint8)
    stamped[6:8, 5:8] = stamp != 0
    corners = ring(*map(tuple, square))
    found = only(dataset)
    assert [one.shape for one in found] == [
        polygons([corners]),
        polygons([corners]),
        None,
        Ellipse((20.0, 20.0), (5.0, 5.0)),
        Polyline(ring((1, 2), (3, 4))),
        Polyline(ring((1, 2), (3, 4), (5, 6))),
        Points(ring((7, 8))),
        Points(ring((7, 8), (9, 10))),
        rle(stamped),
        polygons([ring((5, 0), (10, 5), (5, 10), (0, 5))]),
    ]
    assert [one.box_xyxy for one in found if one.box_xyxy] == [(10.0, 5.0, 20.0, 30.0)]
    assert found[9].extras == {"labelme": {"shape_type": "oriented_rectangle"}}
    assert_stable(dataset, tmp_path / "out", "labelme")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_masks_are_read_in_any_kind_of_png(tmp_path: Path, mode: str):
    stamp = np.zeros((4, 5), np.uint8)
    stamp[1:, 2:] = 255
    encoded = png64(stamp, mode) if mode not in ("RGBA",) else png64(np.stack([stamp] * 4, axis=2))
    (found,) = only(read(tmp_path, entry("mask", [[10.0, 20.0], [14.0, 23.0]], mask=encoded)))
    assert isinstance(found.shape, Mask)
    expected = np.zeros(HW, np.uint8)
    expected[21:24, 12:15] = 1
    assert np.array_equal(mask_of(found, HW), expected)


def test_flags_description_score_and_other_keys(tmp_path: Path):
    dataset = read(
        tmp_path,
        entry(
            "rectangle",
            [[1, 1], [9, 9]],
            flags={"occluded": True, "iscrowd": True, "blurred": False},
            description="by the door",
            attributes={"colour": "red", "legs": 4},
            difficult=True,
            score=0.5,
            kie_linking=[[1, 2]],
        ),
        flags={"night": True},
        version="3.16.2",
        lineColor=[0, 255, 0, 128],
    )
    (image,) = dataset.images
    (found,) = image.annotations
    assert found.attributes == {
        "occluded": True,
        "blurred": False,
        "description": "by the door",
        "colour": "red",
        "legs": 4,
        "difficult": True,
    }
    assert found.crowd and found.score == 0.5 and found.extras == {"labelme": {"kie_linking": [[1, 2]]}}
    assert image.attributes == {"night": True}
    assert image.extras == {"labelme": {"version": "3.16.2", "lineColor": [0, 255, 0, 128]}}
    assert_stable(dataset, tmp_path / "out", "labelme")


# ---- groups


def test_a_label_and_a_group_are_one_object(tmp_path: Path):
    first, second = [[1, 1], [9, 1], [9, 9]], [[21, 1], [29, 1], [29, 9]]
    dataset = read(
        tmp_path,
        entry("polygon", first, group_id=4),
        entry("polygon", first, "dog", group_id=4),
        entry("rectangle", [[30, 30], [35, 38]], group_id=4),
        entry("polygon", second, group_id=4),
        entry("polygon", second),
        entry("point", [[3, 3]], group_id=4),
        entry("point", [[4, 4]], group_id=4),
    )
    joined, dog, alone, one, other = only(dataset)
    parts = [[ring(*map(tuple, first))], [rectangle(30, 30, 35, 38)], [ring(*map(tuple, second))]]
    assert joined.shape == polygons(*parts) and joined.group == 4
    assert (dog.category, dog.group, alone.group) == (1, 4, None)
    assert (one.group, other.group) == (4, 4), "points are no parts"
    assert_stable(dataset, tmp_path / "out", "labelme")


def test_parts_that_are_masks_or_circles_are_united(tmp_path: Path):
    stamp = np.full((3, 3), 255, np.uint8)
    dataset = read(
        tmp_path,
        entry("mask", [[5, 6], [7, 8]], group_id=1, mask=png64(stamp)),
        entry("circle", [[30, 20], [34, 20]], group_id=1),
        entry("polygon", [[6, 6], [16, 6], [16, 16], [6, 16]], group_id=1),
    )
    (found,) = only(dataset)
    y, x = np.mgrid[: HW[0], : HW[1]] + 0.5
    expected = ((x - 30) ** 2 + (y - 20) ** 2 <= 16) | ((x > 6) & (x < 16) & (y > 6) & (y < 16))
    expected[6:9, 5:8] = True
    assert isinstance(found.shape, Mask) and np.array_equal(mask_of(found, HW), expected)
    assert_stable(dataset, tmp_path / "out", "labelme")


def test_parts_with_fields_of_their_own_keep_them(tmp_path: Path):
    triangle = [[1, 1], [9, 1], [9, 9]]
    dataset = read(
        tmp_path,
        entry("polygon", triangle, group_id=1, flags={"occluded": True}, description="left"),
        entry("polygon", triangle, group_id=1, flags={}, description="right"),
    )
    (found,) = only(dataset)
    assert found.attributes == {"occluded": True, "description": "left"}
    assert_stable(dataset, tmp_path / "out", "labelme")
    written = json.loads((tmp_path / "out" / "a.json").read_text())["shapes"]
    assert [(one["flags"], one["description"]) for one in written] == [({"occluded": True}, "left"), ({}, "right")]


def test_objects_of_one_group_elsewhere_stay_apart(tmp_path: Path):
    box = Annotation(0, (1.0, 1.0, 5.0, 5.0), group=4)
    parts = Annotation(0, None, polygons([rectangle(1, 1, 9, 9)], [rectangle(20, 20, 30, 30)]), group=4)
    free = Annotation(0, None, polygons([rectangle(1, 1, 9, 9)], [rectangle(20, 20, 30, 30)]))
    alone = Annotation(1, None, polygons([rectangle(1, 1, 9, 9)]), group=4)
    given_ones = (box, parts, box, free, alone)
    dataset = Dataset((Category("a"), Category("b")), [AnnotatedImage("a.jpg", None, HW, given_ones)])
    again, losses = there_and_back(dataset, tmp_path / "out", "labelme")
    assert only(again) == given_ones
    assert {row["kind"] for row in losses.rows() if row["outcome"] != "kept"} == {"image file"}
    groups = [one["group_id"] for one in json.loads((tmp_path / "out" / "a.json").read_text())["shapes"]]
    assert groups == [None, 5, 5, None, 6, 6, 4], "parts share a number that nothing else of the image has"


# ---- what labelme has no form for


def test_holes_are_masks_of_the_same_pixels_and_come_back(tmp_path: Path):
    holed = Annotation(0, None, polygons([rectangle(2, 2, 30, 30), rectangle(8.25, 8, 20, 20)]), score=0.25)
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, HW, (holed,))])
    again, _ = there_and_back(dataset, tmp_path / "out", "labelme")
    assert only(again) == (holed,)
    file = tmp_path / "out" / "a.json"
    content = json.loads(file.read_text())
    (shape,) = content["shapes"]
    assert shape["shape_type"] == "mask"
    (left, top), (right, bottom) = shape["points"]
    stamp = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
    assert stamp.shape == (bottom - top + 1, right - left + 1)
    expected = mask_of(holed, HW)
    assert np.array_equal(expected[int(top) : int(bottom) + 1, int(left) : int(right) + 1], stamp)
    assert stamp.sum() == expected.sum() > 0
    stamp = stamp.copy()
    stamp[0, 0] = False  # somebody edits the mask: the outlines are old
    shape["mask"] = png64(stamp)
    file.write_text(json.dumps(content))
    (edited,) = only(registry.read(str(file.parent), "labelme"))
    assert isinstance(edited.shape, Mask) and mask_of(edited, HW).sum() == expected.sum() - 1


def test_a_box_beside_a_shape_counts_until_the_shape_is_changed(tmp_path: Path):
    both = Annotation(0, (0.0, 0.0, 50.0, 39.0), polygons([rectangle(2, 2, 30, 30)]))
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, HW, (both,))])
    again, _ = there_and_back(dataset, tmp_path / "out", "labelme")
    assert only(again) == (both,)
    file = tmp_path / "out" / "a.json"
    content = json.loads(file.read_text())
    content["shapes"][0]["points"][0] = [1, 1]
    file.write_text(json.dumps(content))
    assert only(registry.read(str(file.parent), "labelme"))[0].box_xyxy is None


def test_without_a_known_size_holes_are_bridged(tmp_path: Path):
    holed = Annotation(0, None, polygons([rectangle(2, 2, 30, 30), rectangle(8, 8, 20, 20)]))
    oval = Annotation(0, None, Ellipse((20.0, 20.0), (9.0, 4.0), 10.0))
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, None, (holed, oval))])
    again, _ = there_and_back(dataset, tmp_path / "out", "labelme")
    (image,) = again.images
    assert image.image_hw is None and image.annotations == (holed, oval)


def test_the_sample_comes_back_whole_and_says_what_it_lacks(tmp_path: Path):
    (tmp_path / "in").mkdir()
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "labelme")
    assert again.class_names == dataset.class_names
    before, after = by_name(dataset), by_name(again)
    assert {name: placeless(image) for name, image in before.items()} == {
        name: placeless(image) for name, image in after.items()
    }
    assert all(iou == 1 for name in before for iou in ious(before[name], after[name]))
    lost = [(row["kind"], row["outcome"], row["count"]) for row in losses.rows() if row["outcome"] != "kept"]
    assert lost == [("class id", "dropped", 1), ("supercategory", "dropped", 1)]
    assert (tmp_path / "out" / "sub folder" / "b.png").read_bytes() == Path(
        before["sub folder/b.png"].uri or ""
    ).read_bytes()
    assert_stable(again, tmp_path / "again", "labelme")


# ---- files, names, splits, classes


def test_paths_are_followed_below_the_folder_alone(tmp_path: Path):
    root = put(tmp_path / "set", document(imagePath="..\\images\\a.jpg"), "labels/x.json", "images/a.jpg")
    dataset = registry.read(root, "labelme")
    (image,) = dataset.images
    assert (image.name, image.uri) == ("images/a.jpg", str(tmp_path / "set/images/a.jpg"))
    assert image.extras["labelme"]["file"] == "labels/x.json"
    assert_stable(dataset, tmp_path / "out", "labelme")
    assert (tmp_path / "out/labels/x.json").exists() and (tmp_path / "out/images/a.jpg").exists()


@pytest.mark.parametrize(
    "path", ["../a.jpg", "x/../../a.jpg", "/etc/passwd", "C:\\a.jpg", "..\\a.jpg", "", "s3://b/a.jpg"]
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str):
    put(tmp_path, document(), "outside.json")
    root = put(tmp_path / "set", document(imagePath=path), image=None)
    with pytest.raises(BadAnnotation, match=r"a\.json: file: expected"):
        list(registry.read(root, "labelme").images)
    dataset = registry.read(root, "labelme", on_error="skip")
    assert list(dataset.images) == list(dataset.images) == []
    assert dataset.faults.counts == {"image": 1}, "going through twice counts once"


def test_images_elsewhere_are_found_by_name(tmp_path: Path):
    (tmp_path / "pixels").mkdir()
    (tmp_path / "pixels" / "a.jpg").write_bytes(picture(*HW))
    root = put(tmp_path / "set", document(imagePath="../elsewhere/a.jpg"), image=None)
    (image,) = registry.read(root, "labelme", images=str(tmp_path / "pixels")).images
    assert (image.name, image.uri) == ("a.jpg", str(tmp_path / "pixels" / "a.jpg"))


def test_embedded_images_stay_embedded(tmp_path: Path):
    data = picture(*HW)
    dataset = read(tmp_path, entry("point", [[1, 1]]), imageData=base64.b64encode(data).decode())
    (image,) = dataset.images
    assert image.data == data and image.uri is None
    assert_stable(dataset, tmp_path / "out", "labelme")
    assert not (tmp_path / "out" / "a.jpg").exists()


@pytest.mark.parametrize("turn", range(2, 9))
def test_embedded_rotated_photos_are_written_as_labelme_shows_them(tmp_path: Path, turn: int):
    data, hw = picture(*HW, orientation=turn), HW[::-1] if turn >= 5 else HW
    stamp = np.zeros(hw, np.uint8)
    stamp[3:9, 4:7] = 1
    given_ones = (
        Annotation(0, (1.5, 2.25, 20.0, 21.0)),
        Annotation(0, None, rle(stamp)),
        Annotation(0, None, polygons([ring((1.1, 2.3), (9.7, 3.3), (5.9, 21.3))])),
        Annotation(0, (0.0, 0.0, 30.0, 30.0), polygons([rectangle(2, 3, 20, 21), rectangle(5, 6, 8, 9)])),
        Annotation(0, None, Ellipse((11.0, 12.0), (7.5, 3.25), 20.0)),
    )
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, hw, given_ones, data=data)])
    again, losses = there_and_back(dataset, tmp_path / "out", "labelme")
    (image,) = again.images
    assert image.image_hw == hw and image.annotations == given_ones and losses.lossless
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (content["imageHeight"], content["imageWidth"]) == HW, "the size as it is stored"
    assert_stable(again, tmp_path / "again", "labelme")


def test_splits_are_folders_or_noted(tmp_path: Path):
    images = [
        AnnotatedImage("train/a.jpg", None, HW, split="train"),
        AnnotatedImage("train/b.jpg", None, HW),
        AnnotatedImage("c.jpg", None, HW, split="holdout"),
        AnnotatedImage("c.png", None, HW),
    ]
    again, _ = there_and_back(Dataset((), images), tmp_path / "out", "labelme")
    assert [(image.name, image.split) for image in again.images] == [
        ("c.jpg", "holdout"),
        ("c.png", None),
        ("train/a.jpg", "train"),
        ("train/b.jpg", None),
    ]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.json")) == [
        "a.json",
        "b.json",
        "c.json",
        "c.png.json",
    ]
    content = json.loads((tmp_path / "out/train/a.json").read_text())
    assert "rayseg" not in content and content["imagePath"] == "a.jpg"


def test_classes_stand_in_the_order_of_the_list(tmp_path: Path):
    put(tmp_path, document(entry("point", [[1, 1]], "dog"), entry("point", [[1, 1]], "newt")))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    assert registry.read(str(tmp_path), "labelme").class_names == ("cat", "dog", "newt")
    assert registry.read(str(tmp_path / "a.json"), "labelme").class_names == ("dog", "newt")


def test_what_cannot_be_named_is_reported_with_all_that_is_on_it(tmp_path: Path):
    on_it = (Annotation(0, (1.0, 1.0, 2.0, 2.0)), Annotation(0, None, rle(np.ones(HW))))
    bad = AnnotatedImage("../a.jpg", None, HW, on_it)
    losses = registry.write(Dataset((Category("a"), Category("b\nc")), [bad]), str(tmp_path / "out"), "labelme")
    lost = {(row["kind"], row["count"]) for row in losses.rows() if row["outcome"] == "dropped"}
    assert lost == {("image", 1), ("box", 1), ("mask", 1), ("class", 1)}
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["labels.txt"]


# ---- bad files


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (entry("polygon", [[1, 1], [2, 2]]), "polygon", "at least 3 points"),
        (entry("polygon", [[1, 1], [2, float("nan")], [3, 3]]), "polygon", "finite number, found nan"),
        (entry("polygon", [[1, 1], [2, 10**400], [3, 3]]), "polygon", "finite number"),
        (entry("polygon", [[1, 1], [2, True], [3, 3]]), "polygon", "found True"),
        (entry("polygon", [[1, 1, 1], [2, 2], [3, 3]]), "polygon", r"list of \[x, y\]"),
        (entry("rectangle", [[1, 1]]), "box", "2 points of a rectangle, found 1"),
        (entry("circle", [[1, 1], [1, 1]]), "ellipse", "positive radii"),
        (entry("line", [[1, 1]]), "points", "at least 2 points"),
        (entry("hexagon", [[1, 1]]), "shape", "shape_type that labelme has, found 'hexagon'"),
        (entry("mask", [[0, 0], [1, 1]], mask="no base64!"), "mask", "PNG in base64"),
        (entry("mask", [[0, 0], [1, 1]]), "mask", "PNG in base64, found None"),
        (
            entry("mask", [[0, 0], [9, 9]], mask=png64(np.ones((3, 3), np.uint8))),
            "mask",
            "10x10 pixels as its points say",
        ),
        (entry("mask", [[59, 0], [61, 2]], mask=png64(np.ones((3, 3), np.uint8))), "mask", "inside the image of 60x40"),
        (entry("point", [[1, 1]], group_id="x"), "shape", "group_id as a whole number"),
        (entry("point", [[1, 1]]) | {"label": 7}, "shape", "object with a label"),
        (7, "shape", "object with a label"),
        (entry("point", [[1, 1]], flags=[1]), "shape", "flags as an object"),
    ],
)
def test_a_bad_shape_is_named_and_passed_over(tmp_path: Path, bad: Any, kind: str, message: str):
    root = put(tmp_path, document(entry("point", [[1, 1]]), bad, entry("point", [[2, 2]])))
    with pytest.raises(BadAnnotation, match=rf"a\.json: shapes\[1\]: .*{message}"):
        list(registry.read(root, "labelme").images)
    dataset = registry.read(root, "labelme", on_error="skip")
    assert len(only(dataset)) == 2 and dataset.faults.counts == {kind: 1}


def test_a_mask_that_claims_more_than_it_may_is_not_decoded(tmp_path: Path):
    bomb = base64.b64encode(picture(1, 1, "png").replace(b"\0\0\0\1\0\0\0\1", b"\0\0\xea\x60\0\0\xea\x60", 1)).decode()
    size = {"imageHeight": 60_000, "imageWidth": 60_000}
    content = document(entry("mask", [[0, 0], [59_999, 59_999]], mask=bomb), **size)
    dataset = registry.read(put(tmp_path, content, image=None), "labelme", on_error="skip")
    assert only(dataset) == () and dataset.faults.counts == {"mask": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"shapes": [\n\n}', "line 3: not the expected JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"shapes": 3}', "labelme's object with shapes"),
        ("[]", "labelme's object with shapes"),
        ('{"shapes": [], "imagePath": 4}', "imagePath as the image's name, found 4"),
        ('{"shapes": [], "imagePath": "a.jpg", "imageHeight": "x"}', "imageHeight as a whole number"),
        ('{"shapes": [], "imagePath": "a.jpg", "imageHeight": 0, "imageWidth": 4}', "sides of 1 to"),
        ('{"shapes": [], "imagePath": "a.jpg", "imageHeight": 9, "imageWidth": 4}', "image's size 60x40, found 4x9"),
        ('{"shapes": [], "imagePath": "a.jpg", "imageData": "bm8gaW1hZ2U="}', "no known image"),
    ],
)
def test_a_bad_file_is_named_and_passed_over(tmp_path: Path, text: str, message: str):
    put(tmp_path, document(imagePath="b.jpg"), "b.json", "b.jpg")
    put(tmp_path, document())
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RaysegError, match=message):
        list(registry.read(str(tmp_path), "labelme").images)
    dataset = registry.read(str(tmp_path), "labelme", on_error="skip")
    assert [image.name for image in dataset.images] == ["b.jpg"]
    assert dataset.faults.counts.total() == 1


def test_two_files_of_one_image_are_a_fault(tmp_path: Path):
    put(tmp_path, document())
    put(tmp_path, document(), "b.json")
    with pytest.raises(BadAnnotation, match=r"b\.json: file: expected an image that no other file has, found 'a\.jpg'"):
        list(registry.read(str(tmp_path), "labelme").images)


def test_other_json_is_not_taken_for_it(tmp_path: Path, shared_data: Path):
    for content in ({"images": [], "annotations": []}, [], {"a.jpg1": {"filename": "a.jpg", "regions": []}}):
        root = put(tmp_path, content)
        assert not labelme.detect(root, ["a.json", "a.jpg"]) and not labelme.detect(f"{root}/a.json", ["a.json"])
    assert not labelme.detect(str(shared_data / "coco_small"), ["annotations/instances_train2017.json"])
    with pytest.raises(BadAnnotation, match="found none"):
        registry.read(str(shared_data / "odd_images" / "derived"), "labelme")
    put(tmp_path, document(imageData="A" * 100_000))
    assert labelme.detect(str(tmp_path), ["a.json"]) and labelme.detect(str(tmp_path / "a.json"), ["a.json"])


# ---- real files, records of all kinds, damaged files


@pytest.mark.parametrize(("name", "format"), [("kudzu", "via"), ("coco_small", "coco")])
def test_real_data_comes_back(shared_data: Path, tmp_path: Path, name: str, format: str):
    dataset = registry.read(str(shared_data / name), format)
    again, _ = there_and_back(dataset, tmp_path / "out", "labelme")
    before, after = by_name(dataset), by_name(again)
    assert before.keys() == after.keys()
    for key, image in before.items():
        assert dataclasses.replace(placeless(after[key]), extras=image.extras) == placeless(image)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(sample_records.annotations((12, 16), 3), max_size=4),
    sample_records.attributes,
    st.lists(sample_records.texts.filter(bool), min_size=3, max_size=3, unique=True),
)
def test_records_of_all_kinds_come_back(given_ones: list[Annotation], attributes: dict[str, Any], names: list[str]):
    image = AnnotatedImage("a.png", None, (12, 16), tuple(given_ones), None, attributes)
    dataset = Dataset(tuple(map(Category, names)), [image])
    with tempfile.TemporaryDirectory() as folder:
        again, losses = there_and_back(dataset, Path(folder, "out"), "labelme")
        assert not {kind for kind, _ in losses.drops} - {"extra", "image file", "class"} and not losses.approximations
        (found,) = again.images
        expected = [(names[one.category], dataclasses.replace(one, category=0)) for one in given_ones]
        assert [
            (again.class_names[one.category], dataclasses.replace(one, category=0)) for one in found.annotations
        ] == expected
        assert found.attributes == attributes


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_raise_rayseg_errors_alone(damaged_source: Path, seed: int):
    fuzz(damaged_source, (".json", ".txt"), seed, lambda uri: registry.read(uri, "labelme", on_error="skip"))


@pytest.fixture(scope="module")
def damaged_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelme")
    (folder / "in").mkdir()
    registry.write(sample(folder / "in"), str(folder / "out"), "labelme")
    return folder / "out"


def test_any_json_raises_rayseg_errors_alone(tmp_path: Path):
    @settings(deadline=None, max_examples=150)
    @given(st.recursive(sample_records.json_values, lambda inner: st.lists(inner, max_size=3), max_leaves=8), st.data())
    def attempt(value: Any, data: st.DataObject):
        whole = document(entry("polygon", [[1, 1], [5, 1], [5, 5]]), entry("mask", [[0, 0], [1, 1]]))
        place = data.draw(st.sampled_from([*whole, "point", *entry("mask", [])]))
        if place in whole:
            whole[place] = value
        else:
            whole["shapes"][1][place] = value
        root = put(tmp_path, whole)
        for image in registry.read(root, "labelme", on_error="skip").images:
            assert isinstance(image, AnnotatedImage)

    attempt()


def test_polygons_equal_their_points():
    """`==` of records, on which these tests stand, tells rings apart."""
    assert polygons([rectangle(0, 0, 1, 1)]) != polygons([rectangle(0, 0, 1, 2)])
    assert Polygons(()) == Polygons(())
