"""COCO files are read: real ones against pycocotools, small ones with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from formats.coco_files import SQUARE, decoded, document, loaded, loaded_results, only, put, read, write
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from rayseg.annotations import AnnotatedImage, Category, Mask, Polygons
from rayseg.formats import coco, shapes
from rayseg.formats.faults import BadAnnotation
from rayseg.kernels import Rles

# ---- real files


def test_real_splits_come_back_record_for_record_and_mean_what_pycocotools_reads(shared_data: Path, tmp_path: Path):
    source = shared_data / "coco_small"
    first = read(source)
    images = list(first.images)
    assert [image.split for image in images] == ["train"] * 45 + ["val"] * 47
    assert len(first.images) == 92
    losses = write(first, tmp_path)
    assert losses.lossless
    again = read(tmp_path, source)
    assert list(again.images) == images
    assert (again.categories, again.info) == (first.categories, first.info)
    for split in ("train", "val"):
        ours, theirs = (
            tmp_path / f"annotations/instances_{split}.json",
            source / f"annotations/instances_{split}2017.json",
        )
        check_same_masks(loaded(ours), loaded(theirs))
        check_record(loaded(theirs), [image for image in images if image.split == split], first.categories)


def check_same_masks(ours: COCO, theirs: COCO) -> None:
    assert ours.anns.keys() == theirs.anns.keys()
    for key, annotation in theirs.anns.items():
        assert np.array_equal(ours.annToMask(ours.anns[key]), theirs.annToMask(annotation))
        assert {**ours.anns[key], "segmentation": 0} == {**annotation, "segmentation": 0}


def check_record(theirs: COCO, images: list[AnnotatedImage], categories: tuple[Category, ...]) -> None:
    """Records say what the file says, in the order of the file."""
    for image in images:
        found = theirs.imgs[image.extras["coco"]["id"]]
        assert image.uri is not None and Path(image.uri).is_file()
        assert (image.name, image.image_hw) == (found["file_name"], (found["height"], found["width"]))
        expected = theirs.imgToAnns[found["id"]]
        assert [annotation.extras["coco"]["id"] for annotation in image.annotations] == [one["id"] for one in expected]
        for annotation, one in zip(image.annotations, expected, strict=True):
            assert categories[annotation.category].source_id == one["category_id"]
            if isinstance(annotation.shape, Polygons):
                assert [part[0].reshape(-1).tolist() for part in annotation.shape.parts] == one["segmentation"]
            else:
                assert isinstance(annotation.shape, Mask)
                assert coco_mask.decode(theirs.annToRLE(one)).tolist() == decoded(annotation.shape).tolist()


def test_results_take_names_from_the_ground_truth_beside(shared_data: Path):
    folder = shared_data / "coco_eval"
    dataset = read(folder / "instances_val2014_fakesegm100_results.json")
    truth = loaded(folder / "instances_val2014_100.json")
    theirs = loaded_results(truth, folder / "instances_val2014_fakesegm100_results.json")
    images = list(dataset.images)
    assert len(images) == 100 and dataset.class_names[0] == "person"
    assert sum(len(image.annotations) for image in images) == len(theirs.anns)
    for image in images:
        expected = theirs.imgToAnns[image.extras["coco"]["id"]]
        assert [a.score for a in image.annotations] == [one["score"] for one in expected]
        for annotation, one in zip(image.annotations, expected, strict=True):
            assert isinstance(annotation.shape, Mask)
            assert np.array_equal(decoded(annotation.shape), theirs.annToMask(one))


# ---- known answers


def test_every_kind_of_segmentation(tmp_path: Path):
    dense = np.zeros((20, 30), np.uint8)
    dense[3:13, 2:12] = 1
    runs = coco_mask.encode(np.asfortranarray(dense))
    zeros_between = [63, 4, 0, 6, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    zeros_between.append(600 - sum(zeros_between))
    items = [
        {"segmentation": [SQUARE], "bbox": [2, 3, 10, 10.5]},
        {"segmentation": [SQUARE, [20.5, 1, 25, 1, 25, 4.25]]},
        {"segmentation": {"size": [20, 30], "counts": runs["counts"].decode()}, "iscrowd": 1},
        {"segmentation": {"size": [20, 30], "counts": Rles.from_coco([runs]).runs()[0].tolist()}},
        {"segmentation": {"size": [20, 30], "counts": [43, 10] + [10, 10] * 9 + [367, 0, 0]}},
        {"segmentation": [], "bbox": [1.5, 2, 3, 4]},
        {"bbox": [0.1, 0, 0.2, 0]},
    ]
    found = only(read(put(tmp_path, document(*items))))
    assert found[0].box_xyxy == (2, 3, 12, 13.5)
    assert found[0].shape == Polygons(((np.reshape(SQUARE, (4, 2)),),))
    assert isinstance(found[1].shape, Polygons) and [len(part[0]) for part in found[1].shape.parts] == [4, 3]
    assert found[1].box_xyxy is None
    assert [one.crowd for one in found] == [False, False, True, False, False, False, False]
    for one in found[2:5]:
        assert one.shape == Mask(runs["counts"], (20, 30))
    assert (found[5].shape, found[5].box_xyxy) == (None, (1.5, 2, 4.5, 6))
    assert found[6].box_xyxy == (0.1, 0, 0.1 + 0.2, 0)
    assert all(np.array_equal(shapes.rle_of(one, (20, 30)).decode(0), dense) for one in found[2:5])


def test_numbers_of_many_digits_are_read_to_the_last_bit(tmp_path: Path):
    numbers = [473.07000000000005, 1e-7, 123456789.12345678, 0.1 + 0.2, 5e-324, 1 / 3]
    (found,) = only(read(put(tmp_path, document({"segmentation": [numbers]}))))
    assert isinstance(found.shape, Polygons)
    assert found.shape.parts[0][0].reshape(-1).tolist() == numbers


def test_annotations_belong_to_their_image_wherever_they_stand(tmp_path: Path):
    images = [{"id": 10 * i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in range(5, 0, -1)]
    rng = np.random.default_rng(0)
    items = [{"id": i, "image_id": int(rng.integers(1, 6)) * 10, "bbox": [0, 0, i, 1]} for i in range(1, 40)]
    value = document()
    value = {
        "annotations": [{"category_id": 4, **one} for one in items],
        "categories": value["categories"],
        "images": images,
    }
    for image in read(put(tmp_path, value)).images:
        expected = [one["id"] for one in items if one["image_id"] == image.extras["coco"]["id"]]
        assert [annotation.extras["coco"]["id"] for annotation in image.annotations] == expected
    assert [image.name for image in read(tmp_path / "a.json").images] == [f"{i}.jpg" for i in range(5, 0, -1)]


def test_what_else_a_file_says_stays_at_its_place(tmp_path: Path):
    value = document(
        {"bbox": [1, 2, 3, 4], "area": 12.5, "keypoints": [1, 2, 2], "num_keypoints": 1, "score": 0.5, "group_id": 3,
         "attributes": {"occluded": True}, "note": None},
        info={"year": 2017}, licenses=[{"id": 4}], extra={"a": [1]},
    )  # fmt: skip
    value["images"][0].update(license=4, flickr_url="u", attributes={"night": True})
    value["categories"] += [
        {"id": 1, "name": "dog", "supercategory": "animal", "skeleton": [[1, 2]], "color": [1, 2, 3]}
    ]
    dataset = read(put(tmp_path, value))
    (image,) = dataset.images
    (found,) = image.annotations
    assert found.extras == {"coco": {"id": 1, "area": 12.5, "keypoints": [1, 2, 2], "num_keypoints": 1, "note": None}}
    assert (found.score, found.group, found.attributes) == (0.5, 3, {"occluded": True})
    assert image.extras == {"coco": {"id": 7, "license": 4, "flickr_url": "u"}} and image.attributes == {"night": True}
    assert dataset.categories == (
        Category("cat", 4),
        Category("dog", 1, "animal", (1, 2, 3), {"coco": {"skeleton": [[1, 2]]}}),
    )
    assert dataset.info == {"coco": {"": {"info": {"year": 2017}, "licenses": [{"id": 4}], "extra": {"a": [1]}}}}
    assert write(dataset, tmp_path / "out").lossless
    written = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
    assert {key: one for key, one in written.items() if key != "annotations"} == {
        key: one for key, one in value.items() if key != "annotations"
    }
    assert {**value["annotations"][0], "segmentation": []} == written["annotations"][0]


def test_string_and_missing_ids(tmp_path: Path):
    value = {
        "images": [{"id": "x", "file_name": "a.jpg", "height": 20, "width": 30}],
        "annotations": [{"image_id": "x", "category_id": "c", "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": "c", "name": "cat"}],
    }
    dataset = read(put(tmp_path, value))
    assert [annotation.category for annotation in only(dataset)] == [0]
    write(dataset, tmp_path / "out")
    written = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
    assert written["images"] == value["images"] and written["categories"] == value["categories"]
    assert written["annotations"][0]["image_id"] == "x" and written["annotations"][0]["category_id"] == "c"


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["instances_train2017.json", "instances_val2017.json"], ["train", "val"]),
        (["annotations/instances_train.json", "annotations/instances_val2014.json", "other.json"], ["train", "val"]),
        (["annotations/instances_default.json"], [None]),
        (["annotations/instances.json", "annotations/captions_train2017.json"], [None]),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], ["train", "valid"]),
        (["one.json", "two.json"], ["one", "two"]),
        (["whatever.json"], [None]),
        (["test.json"], ["test"]),
    ],
)
def test_files_beside_each_other_are_splits(tmp_path: Path, names: list[str], splits: list[str | None]):
    for number, name in enumerate(names):
        put(tmp_path, document({"bbox": [number, 0, 1, 1]}), name)
    dataset = read(tmp_path)
    images = list(dataset.images)
    assert [image.split for image in images] == splits
    assert coco.detect(str(tmp_path), sorted(names))
    assert [image.name for image in images] == ["a.jpg", *(f"{split}/a.jpg" for split in splits[1:])]
    write(dataset, tmp_path / "out")
    assert list(read(tmp_path / "out").images) == images


def test_files_with_other_categories_are_one_list_by_name(tmp_path: Path):
    put(tmp_path, document({"bbox": [0, 0, 1, 1]}), "instances_train.json")
    second = document({"bbox": [0, 0, 1, 1]}, categories=[{"id": 9, "name": "dog"}, {"id": 4, "name": "bird"}])
    second["categories"].append({"id": 2, "name": "cat"})
    second["annotations"] = [{**second["annotations"][0], "category_id": one} for one in (2, 9, 4)]
    put(tmp_path, second, "instances_val.json")
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog", "bird")
    assert [[a.category for a in image.annotations] for image in dataset.images] == [[0], [0, 1, 2]]
    write(dataset, tmp_path / "out")
    written = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert [one["id"] for one in written["categories"]] == [4, 9, 1]


@pytest.mark.parametrize("layout", ["{split}2017/a.jpg", "images/a.jpg", "a.jpg", "images/{split}/a.jpg"])
def test_images_are_found_where_they_usually_lie(tmp_path: Path, layout: str):
    put(tmp_path, document(), "annotations/instances_train2017.json")
    place = tmp_path / layout.format(split="train")
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (30, 20)).save(place)
    assert [image.uri for image in read(tmp_path).images] == [str(place)]
    assert [image.uri for image in read(tmp_path / "annotations/instances_train2017.json", tmp_path).images] == [
        str(place)
    ]


def test_bare_results_have_ids_for_names(tmp_path: Path):
    rle = coco_mask.encode(np.asfortranarray(np.ones((5, 6), np.uint8)))
    results = [
        {
            "image_id": 9,
            "category_id": 3,
            "score": 0.5,
            "segmentation": {"size": [5, 6], "counts": rle["counts"].decode()},
        },
        {"image_id": 2, "category_id": 1, "score": 0.25, "bbox": [1, 2, 3, 4]},
        {"image_id": 9, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]},
    ]
    dataset = read(put(tmp_path, results))
    assert [(image.name, image.image_hw, len(image.annotations)) for image in dataset.images] == [
        ("9", (5, 6), 2), ("2", None, 1),
    ]  # fmt: skip
    assert [(one.name, one.source_id) for one in dataset.categories] == [("1", 1), ("3", 3)]
    assert [a.category for image in dataset.images for a in image.annotations] == [1, 0, 0]
    truth = document(categories=[{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}])
    truth["images"] = [{"id": one, "file_name": f"{one}.jpg", "height": 5, "width": 6} for one in (1, 2, 9)]
    put(tmp_path, document(), "unrelated.json")
    named = put(tmp_path / "truth", truth)
    for dataset in (
        read(tmp_path / "a.json", named),
        (put(tmp_path, truth, "truth.json"), read(tmp_path / "a.json"))[1],
    ):
        assert dataset.class_names == ("cat", "dog")
        assert [(image.name, len(image.annotations)) for image in dataset.images] == [
            ("1.jpg", 0),
            ("2.jpg", 1),
            ("9.jpg", 2),
        ]


# ---- rotated photos


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_either_raster_land_on_the_same_pixels(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("L", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    raw = np.zeros((20, 30), np.uint8)
    raw[3:13, 2:6] = 1
    upright = np.asarray(transposed(Image.fromarray(raw), orientation))
    counts = {name: coco_mask.encode(np.asfortranarray(one)) for name, one in (("raw", raw), ("upright", upright))}
    found = {}
    for name, one in counts.items():
        height, width = one["size"]
        value = document({"segmentation": {"size": one["size"], "counts": one["counts"].decode()}})
        value["images"][0].update(height=height, width=width)
        (image,) = read(put(tmp_path, value, f"{name}.json")).images
        assert image.image_hw == upright.shape
        found[name] = decoded(image.annotations[0].shape)  # type: ignore[arg-type]
    assert np.array_equal(found["upright"], upright)
    if orientation >= 5 or orientation == 1:  # only swapped sides tell
        assert np.array_equal(found["raw"], upright)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_keypoints_turn_with_their_photo(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("L", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    raw = np.zeros((20, 30), np.uint8)
    raw[3, 4], raw[19, 28] = 1, 2
    upright = np.asarray(transposed(Image.fromarray(raw), orientation))
    value = document(
        {"bbox": [1, 1, 9, 9], "keypoints": [4, 3, 2, 0, 0, 0, 28, 19, 1], "num_keypoints": 2},
        {"bbox": [1, 1, 9, 9], "keypoints": [1, 2], "face_kpts": [4.0, 3.0, 0.9]},
    )
    value["images"][0].update(height=20, width=30)
    (image,) = read(put(tmp_path, value)).images
    first, second = (one.extras["coco"] for one in image.annotations)
    (ay, ax), (by, bx) = (np.argwhere(upright == mark)[0].tolist() for mark in (1, 2))
    assert first["keypoints"] == [ax, ay, 2, 0, 0, 0, bx, by, 1] and first["num_keypoints"] == 2
    assert all(type(one) is int for one in first["keypoints"])
    assert (second["keypoints"], second["face_kpts"]) == ([1, 2], [ax, ay, 0.9])


def transposed(image: Image.Image, orientation: int) -> Image.Image:
    operations = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    return image.transpose(Image.Transpose(operations[orientation])) if orientation > 1 else image


def test_a_size_of_neither_raster_is_a_fault(tmp_path: Path):
    Image.new("L", (31, 20)).save(tmp_path / "a.jpg")
    put(tmp_path, document())
    with pytest.raises(BadAnnotation, match=r"a\.json: images\[0\]: expected the image's size 31x20, found 30x20"):
        list(read(tmp_path).images)
