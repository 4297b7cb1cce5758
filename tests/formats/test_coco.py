"""COCO files against pycocotools, files with known answers, and fuzz."""

from __future__ import annotations

import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats.sample_records import CATEGORIES, HW, annotations, attributes, mask_of, sample_dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask, Polygons
from rayseg.errors import RaysegError, StorageError
from rayseg.formats import coco, shapes
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.losses import Losses
from rayseg.formats.sink import output
from rayseg.kernels import Rles

SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]


def read(uri: Path | str, images: Path | str | None = None, on_error: Any = "raise") -> Dataset:
    return coco.read(str(uri), images=None if images is None else str(images), faults=Faults(on_error))


def write(dataset: Dataset, folder: Path) -> Losses:
    losses = Losses()
    with output(str(folder), overwrite=True) as sink:
        coco.write(dataset, sink, losses)
    return losses


def loaded(path: Path) -> COCO:
    """pycocotools' own reading, without what it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        return COCO(str(path))


def document(*items: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A file of one image, one class, and annotations that `items` complete."""
    bare = {"image_id": 7, "category_id": 4, "iscrowd": 0}
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        "annotations": [{"id": number, **bare, **item} for number, item in enumerate(items, 1)],
        "categories": [{"id": 4, "name": "cat"}],
        **keys,
    }


def put(folder: Path, value: Any, name: str = "a.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def only(dataset: Dataset) -> tuple[Annotation, ...]:
    (image,) = dataset.images
    return image.annotations


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


def decoded(mask: Mask) -> np.ndarray:
    return Rles.from_strings([mask.counts], mask.image_hw).decode(0)


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


def loaded_results(truth: COCO, results: Path | list) -> COCO:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        return truth.loadRes(str(results) if isinstance(results, Path) else results)


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


def test_scores_are_also_written_as_results(tmp_path: Path):
    write(sample_dataset(tmp_path), tmp_path / "out")
    truth = loaded(tmp_path / "out/annotations/instances_val.json")
    results = json.loads((tmp_path / "out/results/val.json").read_text())
    assert [one["score"] for one in results] == [0.75]
    assert len(loaded_results(truth, results).anns) == 1
    assert not (tmp_path / "out/results/train.json").exists()


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


def transposed(image: Image.Image, orientation: int) -> Image.Image:
    operations = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    return image.transpose(Image.Transpose(operations[orientation])) if orientation > 1 else image


def test_a_size_of_neither_raster_is_a_fault(tmp_path: Path):
    Image.new("L", (31, 20)).save(tmp_path / "a.jpg")
    put(tmp_path, document())
    with pytest.raises(BadAnnotation, match=r"a\.json: images\[0\]: expected the image's size 31x20, found 30x20"):
        list(read(tmp_path).images)


# ---- bad input


def broken(**changes: Any) -> dict[str, Any]:
    return document({"bbox": [1, 1, 2, 2], **changes})


BROKEN = [
    ("annotation", r"annotations\[0\]: expected the id of an image, found 8", broken(image_id=8)),
    ("annotation", r"annotations\[0\]: expected the id of an image, found None", broken(image_id=None)),
    ("category", r"annotations\[0\]: expected the id of a category, found 5", broken(category_id=5)),
    ("category", r"annotations\[0\]: expected the id of a category", broken(category_id=[4])),
    ("polygon", r"annotations\[0\]: .*at least 3 points, found 2", broken(segmentation=[[1, 2, 3, 4]])),
    ("polygon", r"annotations\[0\]: .*even number", broken(segmentation=[[1, 2, 3, 4, 5, 6, 7]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, float("nan")]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, 1e300]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, 10**400]])),
    ("polygon", r"annotations\[0\]: .*lists of numbers", broken(segmentation=[1, 2, 3, 4, 5, 6])),
    ("polygon", r"annotations\[0\]: .*lists of numbers", broken(segmentation="x")),
    ("mask", r"found size \[30, 20\]", broken(segmentation={"size": [30, 20], "counts": [600]})),
    ("mask", "do not cover", broken(segmentation={"size": [20, 30], "counts": [599]})),
    ("mask", "do not cover", broken(segmentation={"size": [20, 30], "counts": [601, -1]})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": [2**70]})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": "é"})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": "00"})),
    ("mask", "size", broken(segmentation={"counts": "00"})),
    ("box", "four numbers", broken(bbox=[1, 2, 3])),
    ("box", "finite numbers", broken(bbox=[1, 2, 3, -4])),
    ("box", "finite numbers", broken(bbox=[1, 2, 3, float("inf")])),
    ("annotation", "found neither", broken(bbox=[])),
    ("score", "finite number", broken(score="high")),
    ("image", r"images\[0\]: .*absolute", document(images=[{"id": 7, "file_name": "/etc/passwd"}])),
    ("image", r"images\[0\]: .*leads out", document(images=[{"id": 7, "file_name": "a/../../b.jpg"}])),
    ("image", r"images\[0\]: .*name of a file", document(images=[{"id": 7}])),
    ("image", r"images\[0\]: .*name of a file", document(images=[{"id": 7, "file_name": "\ud800.jpg"}])),
    ("image", r"images\[0\]: .*whole number", document(images=[{"id": 7, "file_name": "a", "height": "x"}])),
    ("image", r"images\[0\]: .*sides", document(images=[{"id": 7, "file_name": "a", "height": 0, "width": 5}])),
    ("image", r"images\[0\]: .*sides", document(images=[{"id": 7, "file_name": "a", "height": 2**60, "width": 5}])),
    ("image", r"images\[1\]: .*no other image has, found 7", document(images=[{"id": 7, "file_name": n} for n in "ab"])),
    ("image", r"images\[1\]: .*no other image has, found 'a'", document(images=[{"id": n, "file_name": "a"} for n in (7, 8)])),
    ("category", r"categories\[0\]: ", document(categories=[{"id": 4}])),
    ("category", r"categories\[1\]: .*again", document(categories=[{"id": 4, "name": n} for n in "ab"])),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "value"), BROKEN)
def test_bad_items_are_named_or_skipped_and_counted(tmp_path: Path, kind: str, message: str, value: dict):
    path = put(tmp_path, value)
    with pytest.raises(BadAnnotation, match=r"a\.json: .*" + message):
        list(read(path).images)
    dataset = read(path, on_error="skip")
    for _ in range(2):  # what is counted does not double
        list(dataset.images)
        assert dict(dataset.faults.counts) == {kind: 1}
        assert len(dataset.faults.messages) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id": 1,\n "file_name": }]}', r"line 2: .*Expecting value"),
        ('{"images": [],\n"annotations": [{"id": 1} {"id": 2}]}', r"line 2: .*comma"),
        ('{"annotations": []}', "expected COCO's 'images' in it, found the keys 'annotations'"),
        ("", "line 1"),
        ("3", "line 1"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    for on_error in ("raise", "skip"):
        with pytest.raises(StorageError, match=message):
            list(read(tmp_path / "a.json", on_error=on_error).images)


def test_a_fault_within_an_item_has_its_line(tmp_path: Path):
    text = json.dumps(document({"bbox": [1, 1, 2, 2]}, {"bbox": [1, 1, 2, 2]}), indent=1)
    line = text[: text.rindex('"iscrowd"')].count("\n") + 1
    head, _, tail = text.rpartition('"iscrowd": 0')
    (tmp_path / "a.json").write_text(f'{head}"iscrowd": nul{tail}')
    with pytest.raises(BadAnnotation, match=rf"a\.json: line {line}: annotations\[1\]: "):
        list(read(tmp_path / "a.json").images)


def test_a_folder_without_coco_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(BadAnnotation, match="expected annotations/instances_"):
        read(tmp_path)
    assert not coco.detect(str(tmp_path), ["a.json"])


@pytest.mark.parametrize(
    "own", [3, [], {"made": 3}, {"made": "area"}, {"shape": 3, "box": 3, "extras": 3}, {"box": [1.5] * 4}]
)
def test_what_rayseg_would_not_have_written_is_passed_over(tmp_path: Path, own: Any):
    item = {"segmentation": [SQUARE], "bbox": [2, 3, 10, 10], "area": 100, "rayseg": own}
    (found,) = only(read(put(tmp_path, document(item))))
    (plain,) = only(read(put(tmp_path, document({key: one for key, one in item.items() if key != "rayseg"}))))
    assert found == plain


pieces = st.sampled_from(
    [
        b'"',
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"null",
        b"-1",
        b"1e999",
        b"NaN",
        b'"x"',
        b"\xff",
        b"{}",
        b"[]",
        b"",
        b"\\",
        b"1",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_named_error(tmp_path: Path, data: st.DataObject):
    value = document(
        {"segmentation": [SQUARE], "bbox": [1, 1, 2, 2], "score": 0.5},
        {"segmentation": {"size": [20, 30], "counts": [600]}, "iscrowd": 1, "rayseg": {"shape": {"points": [1, 2]}}},
    )
    text = json.dumps(value if data.draw(st.booleans()) else value["annotations"]).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(begin + 6, len(text))))
        text = text[:begin] + data.draw(pieces) + text[end:]
    path = tmp_path / "a.json"
    path.write_bytes(text)
    try:
        dataset = read(path, on_error="skip")
        images = list(dataset.images)
    except RaysegError:
        return
    for image in images:
        for annotation in image.annotations:
            assert shapes.fault(annotation, image.image_hw) is None
    with warnings.catch_warnings():
        write(dataset, tmp_path / "out")
    assert len(list(read(tmp_path / "out", on_error="skip").images)) == len(images)


# ---- writing


def test_everything_comes_back_and_pycocotools_draws_it(tmp_path: Path):
    dataset = sample_dataset(tmp_path)
    losses = write(dataset, tmp_path / "out")
    assert losses.lossless, losses.rows()
    again = read(tmp_path / "out", tmp_path)
    assert again.categories == CATEGORIES
    found = {image.name: image for image in again.images}
    truths = {split: loaded(tmp_path / f"out/annotations/instances_{split}.json") for split in ("train", "val")}
    for image in dataset.images:
        annotations = [stripped(one) for one in found[image.name].annotations]
        assert annotations == [stripped(one) for one in image.annotations]
        for ours, one in zip(image.annotations, found[image.name].annotations, strict=True):
            theirs = truths[image.split or ""].anns[one.extras["coco"]["id"]]
            if theirs["segmentation"] and not isinstance(ours.shape, Polygons):
                drawn = truths[image.split or ""].annToMask(theirs)
                assert np.array_equal(drawn, shapes.rle_of(ours, HW).decode(0))
    runs = [one for truth in truths.values() for one in truth.anns.values() if one["iscrowd"]]
    assert all(isinstance(one["segmentation"]["counts"], list) for one in runs) and runs


def stripped(annotation: Annotation) -> Annotation:
    """Without the ids and areas that COCO gives, and with the box that a shape has."""
    extras = {key: value for key, value in annotation.extras.items() if key != "coco"}
    return dataclasses.replace(annotation, extras=extras, box_xyxy=shapes.box_of(annotation))


names = st.from_regex(r"[a-zé ]{1,4}(/[a-z]{1,3})?\.(jpg|png)", fullmatch=True)
images_of_any_kind = st.builds(
    AnnotatedImage,
    name=names,
    image_hw=st.just((9, 7)),
    annotations=st.lists(annotations((9, 7), 2), max_size=4).map(tuple),
    split=st.none() | st.sampled_from(["train", "val", "train2017", "a/b", "é%", "x 2014", "default"]),
    attributes=attributes,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(images_of_any_kind, max_size=4, unique_by=lambda image: image.name))
@example([])
def test_any_record_comes_back(tmp_path: Path, images: list[AnnotatedImage]):
    categories = (Category("a", 5), Category("b", None, "c", (1, 2, 3), {"via": {"x": 1}}))
    losses = write(Dataset(categories, images, {"elsewhere": {"a": 1}}), tmp_path / "out")
    assert losses.lossless, losses.rows()
    again = read(tmp_path / "out")
    assert again.categories == (categories[0], dataclasses.replace(categories[1], source_id=1))
    assert again.info["elsewhere"] == {"a": 1}
    found = {image.name: image for image in again.images}
    assert found.keys() == {image.name for image in images}
    for image in images:
        one = found[image.name]
        assert (one.split, one.image_hw, one.attributes) == (image.split, image.image_hw, image.attributes)
        assert [exact(a) for a in one.annotations] == [exact(a) for a in image.annotations]
    second = tmp_path / "second"
    assert write(again, second).lossless
    assert list(read(second).images) == list(again.images)
    for path in (tmp_path / "out").glob("annotations/*.json"):
        loaded(path)


def exact(annotation: Annotation) -> Annotation:
    return dataclasses.replace(annotation, extras={k: v for k, v in annotation.extras.items() if k != "coco"})


def test_what_another_tool_changed_counts(tmp_path: Path):
    write(sample_dataset(tmp_path), tmp_path / "out")
    path = tmp_path / "out/annotations/instances_train.json"
    value = json.loads(path.read_text())
    dense = np.zeros(HW, np.uint8)
    dense[1:3, 1:4] = 1
    edited = next(one for one in value["annotations"] if "polygons" in one.get("rayseg", {}).get("shape", {}))
    edited["segmentation"]["counts"] = coco_mask.encode(np.asfortranarray(dense))["counts"].decode()
    path.write_text(json.dumps(value))
    (found,) = [a for i in read(path).images for a in i.annotations if a.extras["coco"]["id"] == edited["id"]]
    assert found.shape == mask_of(dense)


def test_repeated_ids_are_made_new_and_said(tmp_path: Path):
    box = Annotation(0, (0.0, 0.0, 1.0, 1.0), extras={"coco": {"id": 5, "area": 3}})
    images = [AnnotatedImage(name, None, (4, 4), (box, box), extras={"coco": {"id": 1}}) for name in ("a.jpg", "b.jpg")]
    losses = write(Dataset((Category("x"),), images), tmp_path / "out")
    assert [(kind, tally.count) for (kind, _), tally in losses.approximations.items()] == [("id", 4)]
    theirs = loaded(tmp_path / "out/annotations/instances_default.json")
    assert len(theirs.anns) == 4 and len(theirs.imgs) == 2


def test_an_embedded_image_is_written_and_found_again(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("L", (6, 5)).save(buffer, "PNG")
    image = AnnotatedImage("x/a.png", None, (5, 6), data=buffer.getvalue())
    assert write(Dataset((), [image]), tmp_path / "out").lossless
    (found,) = read(tmp_path / "out").images
    assert found.uri is not None and Path(found.uri).read_bytes() == image.data


def test_what_has_no_place_is_said(tmp_path: Path):
    hole = Polygons((tuple(np.reshape(SQUARE, (4, 2)) * scale for scale in (1.0, 0.5)),))
    images = [
        AnnotatedImage("unsized.jpg", None, None, (Annotation(0, shape=hole), Annotation(0, (1.0, 1.0, 2.0, 2.0)))),
        AnnotatedImage("../out.jpg", None, (9, 9), (Annotation(0, (1.0, 1.0, 2.0, 2.0)), Annotation(0, shape=hole))),
        AnnotatedImage("a.jpg", None, (9, 9), (Annotation(0, shape=mask_of(np.ones((5, 5)))),)),
        AnnotatedImage("b.jpg", None, (9, 9), (Annotation(0, (1.0, 1.0, 2.0, 2.0), attributes={"a": b"x"}),)),
    ]
    losses = write(Dataset((Category("x"),), images), tmp_path / "out")
    dropped = {(kind, reason): tally.count for (kind, reason), tally in losses.drops.items()}
    assert sorted((kind, count) for (kind, _), count in dropped.items()) == [
        ("attribute", 1), ("box", 1), ("image", 1), ("mask", 1), ("mask", 1), ("mask", 1),
    ]  # fmt: skip
    assert len(loaded(tmp_path / "out/annotations/instances_default.json").anns) == 2
