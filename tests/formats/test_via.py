"""VIA: its four forms by hand with known answers, the class attribute and its traps, and what VIA has no form for."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
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

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.errors import RaysegError
from rayseg.formats import registry, via, via_classes
from rayseg.formats.faults import BadAnnotation, Faults

HW = (40, 60)
HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"


def polygon(*points: tuple[float, float], name: str = "polygon") -> dict[str, Any]:
    return {"name": name, "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}


def region(shape: Any, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(*regions: Any, filename: str = "a.jpg", size: int = 77, **more: Any) -> dict[str, Any]:
    return {"filename": filename, "size": size, "regions": list(regions), "file_attributes": {}, **more}


def put(folder: Path, *entries: dict[str, Any], name: str = "via_region_data.json") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({f"{one['filename']}{one['size']}": one for one in entries}))
    return str(folder)


def project(folder: Path, *entries: dict[str, Any], attributes: Any = None, settings: Any = None) -> str:
    keys = {f"{one['filename']}{one['size']}": one for one in entries}
    content = {
        "_via_settings": settings or {"core": {"default_filepath": ""}, "project": {"name": "x"}},
        "_via_img_metadata": keys,
        "_via_attributes": attributes or {"region": {}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(keys),
    }
    (folder / "via_project.json").write_text(json.dumps(content))
    return str(folder)


def only(dataset: Dataset) -> tuple[Annotation, ...]:
    (found,) = dataset.images
    return found.annotations


def named(dataset: Dataset) -> list[str]:
    return [dataset.class_names[one.category] for image in dataset.images for one in image.annotations]


SQUARE = polygon((1, 1), (9, 1), (9, 9))
EVERY_SHAPE = (
    region(polygon((1, 2), (9, 2), (9.5, 12)), **{"class": "a"}),
    region({"name": "rect", "x": 10, "y": 5, "width": 10, "height": 25.5}, **{"class": "b"}),
    region({"name": "circle", "cx": 20, "cy": 21, "r": 5.5}, **{"class": "a"}),
    region({"name": "ellipse", "cx": 20, "cy": 21, "rx": 9, "ry": 4, "theta": math.pi / 6}, **{"class": "a"}),
    region({"name": "ellipse", "cx": 20, "cy": 21, "rx": 9, "ry": 4}, **{"class": "a"}),
    region(polygon((1, 2), (9, 2), (9, 12), name="polyline"), **{"class": "a"}),
    region({"name": "point", "cx": 7, "cy": 8}, **{"class": "a"}),
)


def check_every_shape(dataset: Dataset) -> None:
    found = only(dataset)
    assert [one.shape for one in found] == [
        polygons([ring((1, 2), (9, 2), (9.5, 12))]),
        None,
        Ellipse((20.0, 21.0), (5.5, 5.5)),
        Ellipse((20.0, 21.0), (9.0, 4.0), math.degrees(math.pi / 6)),
        Ellipse((20.0, 21.0), (9.0, 4.0)),
        Polyline(ring((1, 2), (9, 2), (9, 12))),
        Points(ring((7, 8))),
    ]
    assert found[1].box_xyxy == (10.0, 5.0, 20.0, 30.5)
    assert dataset.class_names == ("a", "b") and [one.category for one in found] == [0, 1, 0, 0, 0, 0, 0]


# ---- the four forms


def test_annotation_json(tmp_path: Path):
    dataset = registry.read(put(tmp_path, entry(*EVERY_SHAPE)), "via")
    check_every_shape(dataset)
    assert dataset.info["via"] == {"form": "annotations", "class_attribute": "class"}
    assert_stable(dataset, tmp_path / "out", "via")
    written = json.loads((tmp_path / "out" / "via_region_data.json").read_text())
    assert list(written) == ["a.jpg77"] and written["a.jpg77"]["regions"] == [
        *EVERY_SHAPE[:4],
        region({"name": "ellipse", "cx": 20, "cy": 21, "rx": 9, "ry": 4, "theta": 0}, **{"class": "a"}),
        *EVERY_SHAPE[5:],
    ]


def test_projects(tmp_path: Path):
    attributes = {
        "region": {
            "kind": {
                "type": "dropdown",
                "description": "",
                "options": {"b": "", "a": "", "unused": ""},
                "default_options": {},
            },
            "note": {"type": "text", "description": "", "default_value": ""},
        },
        "file": {"night": {"type": "text", "description": "", "default_value": ""}},
    }
    first = region(SQUARE, kind="a", note="n") | {"elsewhere": 1}
    uri = project(tmp_path, entry(first, file_attributes={"night": "yes"}, elsewhere=[2]), attributes=attributes)
    dataset = registry.read(uri, "via", images=str(tmp_path))
    assert dataset.class_names == ("b", "a", "unused"), "classes as the project lists them"
    (image,) = dataset.images
    assert (image.attributes, image.extras) == ({"night": "yes"}, {"via": {"size": 77, "entry": {"elsewhere": [2]}}})
    assert image.annotations[0].attributes == {"note": "n"}
    assert image.annotations[0].extras == {"via": {"region": {"elsewhere": 1}}}
    assert_stable(dataset, tmp_path / "out", "via")
    written = json.loads((tmp_path / "out" / "via_project.json").read_text())
    assert written["_via_attributes"] == attributes and written["_via_image_id_list"] == ["a.jpg77"]
    assert written["_via_settings"]["project"] == {"name": "x"}


def test_csv_as_via_exports_it(tmp_path: Path):
    def cell(value: Any) -> str:
        return '"' + json.dumps(value, separators=(",", ":")).replace('"', '""') + '"'

    rows = [HEADER]
    for i, one in enumerate(EVERY_SHAPE):
        shape, attributes = cell(one["shape_attributes"]), cell(one["region_attributes"] | {"said": 'so, "so"'})
        rows.append(f"a.jpg,77,{cell({'night': 'yes'})},7,{i},{shape},{attributes}")
    rows.append('empty.jpg,5,"{}",0,0,"{}","{}"')
    (tmp_path / "via.csv").write_text("\r\n".join(rows) + "\r\n")
    assert via.detect(str(tmp_path), ["via.csv"]) and via.detect(str(tmp_path / "via.csv"), ["via.csv"])
    dataset = registry.read(str(tmp_path), "via")
    full, empty = dataset.images
    check_every_shape(dataclasses.replace(dataset, images=[full]))
    assert (full.attributes, empty.name, empty.annotations) == ({"night": "yes"}, "empty.jpg", ())
    assert {one.attributes["said"] for one in full.annotations} == {'so, "so"'}
    assert_stable(dataset, tmp_path / "out", "via")
    lines = (tmp_path / "out" / "via_region_data.csv").read_text().splitlines()
    assert lines[0] == HEADER and lines[-1] == 'empty.jpg,5,"{}",0,0,"{}","{}"'.replace('"{}"', "{}")
    (tmp_path / "via.csv").write_text("#" + "\n".join(rows))  # as VIA 1.0 had it
    assert len(list(registry.read(str(tmp_path / "via.csv"), "via").images)) == 2


def test_csv_cells_may_be_as_long_as_they_like(tmp_path: Path):
    ring_of_many = [(10 + 5 * math.cos(t / 5000), 10 + 5 * math.sin(t / 5000)) for t in range(30_000)]
    long = Annotation(0, None, polygons([ring(*ring_of_many)]))
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, HW, (long,))], {"via": {"form": "csv"}})
    assert only(there_and_back(dataset, tmp_path / "out", "via")[0]) == (long,)
    assert max(map(len, (tmp_path / "out" / "via_region_data.csv").read_text().splitlines())) > 1 << 18


def test_version_1(tmp_path: Path):
    data = picture(*HW)
    closed = region(polygon((1, 1), (9, 1), (9, 9), (1, 1)), label="a")
    old = {
        "fileref": "",
        "size": 77,
        "filename": "a.jpg",
        "base64_img_data": "data:image/jpeg;base64," + base64.b64encode(data).decode(),
        "file_attributes": {},
        "regions": {"0": closed, "1": region(SQUARE, label="b")},
    }
    dataset = registry.read(put(tmp_path, old), "via")
    (image,) = dataset.images
    assert image.data == data and image.uri is None and image.image_hw == HW
    assert [one.shape for one in image.annotations] == [polygons([ring((1, 1), (9, 1), (9, 9))])] * 2
    assert dataset.info["via"]["form"] == "via1"
    assert_stable(dataset, tmp_path / "out", "via")
    assert list(json.loads((tmp_path / "out" / "via_region_data.json").read_text())["a.jpg77"]["regions"]) == ["0", "1"]


# ---- classes


def test_kudzus_traps(shared_data: Path, tmp_path: Path):
    train = registry.read(str(shared_data / "kudzu" / "train"), "via")
    assert (train.class_names, len(list(train.images)), len(named(train))) == (("kudzu",), 24, 520)
    assert all(one.attributes == {"insect": "kudzu"} for image in train.images for one in image.annotations)
    val = registry.read(str(shared_data / "kudzu" / "val" / "via_region_data.json"), "via")
    assert (val.class_names, len(list(val.images)), len(named(val))) == (("object",), 16, 349)
    both = registry.read(str(shared_data / "kudzu"))
    assert both.class_names == ("kudzu",) and len(named(both)) == 869
    splits = [image.split for image in both.images]
    assert splits.count("train") == 24 and splits.count("val") == 16
    assert all(image.image_hw and image.uri and image.name.startswith(f"{image.split}/") for image in both.images)
    for name, dataset in (("train", train), ("val", val), ("both", both)):
        assert_stable(dataset, tmp_path / name, "via")


@pytest.mark.parametrize(
    ("regions", "attribute", "classes"),
    [
        ([{"Label": "a", "type": "x"}, {"type": "y"}], "Label", ["a", "a"]),
        ([{"kind": "", "tone": "red", "x": "1"}, {"tone": "blue"}, {"tone": "blue"}], "tone", ["red", "blue", "blue"]),
        ([{"id": "1", "sort": "a"}, {"id": "2", "sort": "a"}], "sort", ["a", "a"]),
        ([{"class": ""}, {"class": "a"}, {"class": "b"}], "class", ["object", "a", "b"]),
        ([{"class": "a"}, {"class": "b"}, {"insect": "b"}, {}], "class", ["a", "b", "b", "object"]),
        (
            [{"class": {"cat": True, "wet": True}}, {"class": {"cat": True}}, {"class": 7}],
            "class",
            ["cat+wet", "cat", "7"],
        ),
        ([{}, {}], "class", ["object", "object"]),
        ([{"rayseg_score": 0.5, "x": "a"}], "x", ["a"]),
    ],
)
def test_the_class_attribute_is_found(tmp_path: Path, regions: list[Any], attribute: str, classes: list[str]):
    dataset = registry.read(put(tmp_path, entry(*(region(SQUARE, **one) for one in regions))), "via")
    assert dataset.info["via"]["class_attribute"] == attribute and named(dataset) == classes
    assert_stable(dataset, tmp_path / "out", "via")
    again = registry.read(str(tmp_path / "out"), "via")
    assert named(again) == classes


def test_the_class_attribute_can_be_said(tmp_path: Path):
    uri = put(tmp_path, entry(region(SQUARE, **{"class": "a", "species": "b"})))
    dataset = via.read(uri, faults=Faults(), class_attribute="species")
    assert named(dataset) == ["b"] and only(dataset)[0].attributes == {"class": "a"}
    absent = via.read(uri, faults=Faults(), class_attribute="none")
    assert named(absent) == ["object"] and only(absent)[0].attributes == {"class": "a", "species": "b"}


def test_numbered_options_are_called_by_their_description(tmp_path: Path):
    declared = {"region": {"name": {"type": "radio", "options": {"1": "person", "3": "dog"}, "default_options": {}}}}
    declared["file"] = {}
    uri = project(tmp_path, entry(region(SQUARE, name="3"), region(SQUARE, name="dog")), attributes=declared)
    dataset = registry.read(uri, "via")
    assert dataset.class_names == ("person", "dog") and named(dataset) == ["dog", "dog"]
    assert_stable(dataset, tmp_path / "out", "via")
    regions = json.loads((tmp_path / "out" / "via_project.json").read_text())["_via_img_metadata"]["a.jpg77"]["regions"]
    assert [one["region_attributes"]["name"] for one in regions] == ["3", "dog"]


def test_a_class_that_was_changed_is_written_as_it_is_now(tmp_path: Path):
    uri = put(tmp_path, entry(region(SQUARE, **{"class": 7}), region(SQUARE)))
    dataset = registry.read(uri, "via")
    assert named(dataset) == ["7", "7"]
    renamed = dataclasses.replace(dataset, categories=(Category("seven"),))
    again, _ = there_and_back(renamed, tmp_path / "out", "via")
    assert named(again) == ["seven", "seven"]
    assert only(again)[1].extras == {"via": {"unlabelled": True}}


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["class", "a", "b", ""]), sample_records.json_values), max_size=5))
def test_every_region_has_a_class_that_is_listed(regions: list[dict[str, Any]]):
    classes = via_classes.find(regions, {}, None)
    assert len(set(classes.names)) == len(classes.names)
    assert all(classes.of(one)[0] in classes.names for one in regions)


# ---- what VIA has no form for


def test_the_sample_comes_back_whole_and_says_what_it_lacks(tmp_path: Path):
    (tmp_path / "in").mkdir()
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "via")
    assert again.class_names == dataset.class_names
    after = by_name(again)
    for name, before in by_name(dataset).items():
        assert placeless(after[name]) == placeless(before)
        assert all(iou == 1 for iou in ious(before, after[name]))
    lost = [(row["kind"], row["outcome"], row["count"]) for row in losses.rows() if row["outcome"] != "kept"]
    assert lost == [("class id", "dropped", 1), ("supercategory", "dropped", 1)]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json")) == [
        "train/via_project.json",
        "val/via_project.json",
        "via_project.json",
    ]
    assert_stable(again, tmp_path / "again", "via")


def test_holes_are_bridged_parts_tied_and_masks_outlined(tmp_path: Path):
    stamp = np.zeros(HW, np.uint8)
    stamp[5:20, 5:30] = 1
    stamp[8:12, 9:20] = 0
    stamp[30:35, 40:50] = 1
    holed = polygons([rectangle(2, 2, 30, 30), rectangle(8, 8, 20, 20)], [rectangle(40, 5, 50, 9)])
    given_ones = (
        Annotation(0, (0.0, 0.0, 59.0, 39.0), holed, crowd=True, score=0.5, group=-2),
        Annotation(0, None, rle(stamp)),
        Annotation(0, None, Points(ring((1, 2), (3, 4)))),
    )
    dataset = Dataset((Category("a"),), [AnnotatedImage("a.jpg", None, HW, given_ones)])
    again, losses = there_and_back(dataset, tmp_path / "out", "via")
    assert losses.lossless and only(again) == given_ones
    path = tmp_path / "out" / "via_project.json"
    content = json.loads(path.read_text())
    regions = content["_via_img_metadata"]["a.jpg-1"]["regions"]
    assert [one["region_attributes"].get("rayseg_object") for one in regions] == [1, 1, 2, 2, 3, 3]
    for members, annotation in ((regions[:2], given_ones[0]), (regions[2:4], given_ones[1])):
        drawn = np.zeros(HW, bool)
        for one in members:  # what any reader of VIA makes of it
            shape = one["shape_attributes"]
            outline = ring(*zip(shape["all_points_x"], shape["all_points_y"], strict=True))
            drawn |= mask_of(Annotation(0, None, Polygons(((outline,),))), HW) != 0
        assert np.array_equal(drawn, mask_of(annotation, HW))
    xs = regions[0]["shape_attributes"]["all_points_x"]
    xs[:] = [x + 1 if x == 2 else x for x in xs]  # somebody moves an edge: the note is old, and so is the box
    path.write_text(json.dumps(content))
    edited = only(registry.read(str(path), "via"))[0]
    assert isinstance(edited.shape, Polygons) and [len(part) for part in edited.shape.parts] == [1, 1]
    assert edited.box_xyxy is None and edited.crowd


def test_an_empty_mask_cannot_be_drawn_and_is_told(tmp_path: Path):
    image = AnnotatedImage("a.jpg", None, HW, (Annotation(0, (1.0, 1.0, 2.0, 2.0), rle(np.zeros(HW))), Annotation(0)))
    again, losses = there_and_back(Dataset((Category("a"),), [image]), tmp_path / "out", "via")
    assert only(again) == ()
    assert {(row["kind"], row["count"]) for row in losses.rows() if row["outcome"] == "dropped"} == {
        ("mask", 1),
        ("box", 1),
    }


def test_attributes_with_taken_names_are_told(tmp_path: Path):
    taken = {"class": 1, "rayseg_score": 2, "": 3, "free": 4}
    image = AnnotatedImage("a.jpg", None, HW, (Annotation(0, (1.0, 1.0, 2.0, 2.0), attributes=taken),))
    again, losses = there_and_back(Dataset((Category("a"),), [image]), tmp_path / "out", "via")
    assert only(again)[0].attributes == {"free": 4}
    assert sum(row["count"] for row in losses.rows() if row["outcome"] == "dropped") == 3


def test_unused_classes_are_told_where_no_list_holds_them(tmp_path: Path):
    image = AnnotatedImage("a.jpg", None, HW, (Annotation(1, (1.0, 1.0, 2.0, 2.0)),))
    for form, lost in (("annotations", 2), ("csv", 2), ("project", 0)):
        dataset = Dataset(tuple(map(Category, "abc")), [image], {"via": {"form": form}})
        again, losses = there_and_back(dataset, tmp_path / form, "via")
        dropped = [(row["kind"], row["count"]) for row in losses.rows() if row["outcome"] == "dropped"]
        assert dropped == ([("class", lost)] if lost else [])
        assert named(again) == ["b"]


# ---- files, names, splits


def test_images_are_found_beside_in_the_default_folder_and_elsewhere(tmp_path: Path):
    for name in ("set/a.jpg", "set/pixels/b.jpg", "other/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(*HW))
    entries = [entry(filename=f"{name}.jpg") for name in "abc"]
    uri = project(tmp_path / "set", *entries, settings={"core": {"default_filepath": "pixels/"}})
    found = list(registry.read(uri, "via").images)
    assert [image.uri for image in found] == [
        str(tmp_path / "set" / name) for name in ("a.jpg", "pixels/b.jpg", "c.jpg")
    ]
    assert [image.image_hw for image in found] == [HW, HW, None]
    elsewhere = list(registry.read(uri, "via", images=str(tmp_path / "other")).images)
    assert elsewhere[2].uri == str(tmp_path / "other" / "c.jpg") and elsewhere[2].image_hw == HW


def test_web_addresses_count_by_their_last_name(tmp_path: Path):
    uri = put(tmp_path, entry(region(SQUARE), filename="https://h/x/y.jpg?w=3", size=-1))
    dataset = registry.read(uri, "via")
    (image,) = dataset.images
    assert image.name == "y.jpg" and image.extras == {"via": {"filename": "https://h/x/y.jpg?w=3"}}
    assert_stable(dataset, tmp_path / "out", "via")


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "C:\\a.jpg", "", "file:///etc/passwd"])
def test_names_out_of_the_folder_are_refused(tmp_path: Path, name: str):
    uri = put(tmp_path, entry(filename=name), entry(filename="b.jpg"))
    with pytest.raises(BadAnnotation, match=r"via_region_data\.json: .*: expected"):
        list(registry.read(uri, "via").images)
    dataset = registry.read(uri, "via", on_error="skip")
    assert [one.name for one in dataset.images] == [one.name for one in dataset.images] == ["b.jpg"]
    assert dataset.faults.counts == {"image": 1}


def test_names_and_splits_that_are_no_folders(tmp_path: Path):
    images = [
        AnnotatedImage("x/a.jpg", None, HW, split="train"),
        AnnotatedImage("train/b.jpg", None, HW, split="train"),
        AnnotatedImage("c.jpg", None, HW, split="a/b"),
        AnnotatedImage("../d.jpg", None, HW, (Annotation(0, (1.0, 1.0, 2.0, 2.0)),)),
    ]
    again, losses = there_and_back(Dataset((Category("a"),), images), tmp_path / "out", "via")
    names = {image.name: image.split for image in again.images}
    assert names == {"x/a.jpg": "train", "train/b.jpg": "train", "c.jpg": None}
    assert {kind for kind, _ in losses.drops} == {"image", "box", "split"}


def test_embedded_images_are_written_beside(tmp_path: Path):
    data = picture(*HW)
    dataset = Dataset((), [AnnotatedImage("x/a.jpg", None, HW, (), "val", data=data)])
    (found,) = there_and_back(dataset, tmp_path / "out", "via")[0].images
    assert found.uri == str(tmp_path / "out/val/x/a.jpg") and Path(found.uri).read_bytes() == data


def test_one_file_counts_in_a_folder(tmp_path: Path):
    put(tmp_path, entry(region(SQUARE)), name="export.json")
    project(tmp_path, entry(region(SQUARE), region(SQUARE)))
    (tmp_path / "export.csv").write_text(f'{HEADER}\na.jpg,77,"{{}}",0,0,"{{}}","{{}}"\n')
    (tmp_path / "notes.json").write_text("{}")
    assert len(only(registry.read(str(tmp_path), "via"))) == 2, "the project"
    (tmp_path / "via_project.json").unlink()
    assert len(only(registry.read(str(tmp_path), "via"))) == 1
    put(tmp_path, entry(), name="other.json")
    with pytest.raises(BadAnnotation, match=r"found export\.json, other\.json; read one of them"):
        registry.read(str(tmp_path), "via")


def test_other_files_are_not_taken_for_it(tmp_path: Path, shared_data: Path):
    for content in ({"images": [], "annotations": []}, {"shapes": [], "imagePath": "a"}, [], {}):
        (tmp_path / "a.json").write_text(json.dumps(content))
        (tmp_path / "a.csv").write_text("filename,label\na.jpg,cat\n")
        assert not via.detect(str(tmp_path), ["a.csv", "a.json"])
    with pytest.raises(BadAnnotation, match="found none"):
        registry.read(str(tmp_path), "via")
    assert not via.detect(str(shared_data / "coco_small"), ["annotations/instances_train2017.json"])
    assert via.detect(str(shared_data / "kudzu"), ["LICENSE", "train/via_region_data.json"])


# ---- bad files


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (region(polygon((1, 1), (2, 2))), "polygon", "at least 3 points"),
        (
            region({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}),
            "polygon",
            "lists of one length",
        ),
        (region({"name": "polygon", "all_points_x": [1, 2, None], "all_points_y": [1, 2, 3]}), "polygon", "found None"),
        (region(polygon((1, 1), (2, 2), (float("nan"), 3))), "polygon", "finite number, found nan"),
        (region(polygon((1, 1), (2, 2), (10**400, 3))), "polygon", "finite number"),
        (region({"name": "rect", "x": 1, "y": 1, "width": -4, "height": 3}), "box", "positive width"),
        (region({"name": "rect", "x": 1, "y": "1", "width": 4, "height": 3}), "box", "y as a finite number, found '1'"),
        (region({"name": "circle", "cx": 1, "cy": 1, "r": 0}), "ellipse", "positive radii"),
        (region({"name": "ellipse", "cx": 1, "cy": 1, "rx": 1}), "ellipse", "ry as a finite number, found None"),
        (region(polygon((1, 1), name="polyline")), "points", "at least 2 points"),
        (region({"name": "star"}), "points", "a shape that VIA has, found 'star'"),
        (region({}), "points", "a shape that VIA has, found None"),
        (region([1]), "region", "two kinds of attributes"),
        (7, "region", "two kinds of attributes, found 7"),
    ],
)
def test_a_bad_region_is_named_and_passed_over(tmp_path: Path, bad: Any, kind: str, message: str):
    good = region({"name": "point", "cx": 1, "cy": 1})
    uri = put(tmp_path, entry(good, bad, good))
    with pytest.raises(BadAnnotation, match=rf"'a\.jpg77', regions\[1\]: .*{message}"):
        list(registry.read(uri, "via").images)
    dataset = registry.read(uri, "via", on_error="skip")
    assert len(only(dataset)) == 2 and dataset.faults.counts == {kind: 1}


def test_parts_of_different_kinds_are_a_fault(tmp_path: Path):
    point = {"name": "point", "cx": 1, "cy": 1}
    uri = put(
        tmp_path,
        entry(region(point, rayseg_object=1), region(SQUARE, rayseg_object=1), region(SQUARE, rayseg_object=2)),
    )
    dataset = registry.read(uri, "via", on_error="skip")
    assert len(only(dataset)) == 1 and dataset.faults.counts == {"points": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.jpg1": {"filename": "a.jpg", "regions": [\n\n}', "line 3: not the expected JSON"),
        ("[1]", "VIA's object of images"),
        ('{"a": 1, "b": 2}', "found the keys a, b"),
        (
            '{"_via_settings": {}, "_via_img_metadata": 4, "_via_attributes": {}}',
            "_via_img_metadata: expected an object",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_none_of_vias_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RaysegError, match=message):
        registry.read(str(tmp_path / "a.json"), "via", on_error="skip")


def test_bad_entries_and_rows_are_named(tmp_path: Path):
    twice = {"d": {"filename": "d.jpg"}, "e": {"filename": "d.jpg"}}
    content = {"a": 1, "b": {"filename": 4}, "c": {"filename": "c.jpg", "regions": 5}, **twice}
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = registry.read(str(tmp_path / "a.json"), "via", on_error="skip")
    assert [image.name for image in dataset.images] == ["d.jpg"] and dataset.faults.counts == {"image": 4}
    rows = [
        HEADER,
        "a.jpg,1",
        'a.jpg,1,"{}",1,0,"{}"x,"{}"',
        'a.jpg,1,"[]",1,0,"{}","{}"',
        'b.jpg,1,"{}",0,0,"{}","{}"',
        "",
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    dataset = registry.read(str(tmp_path / "a.csv"), "via", on_error="skip")
    assert [image.name for image in dataset.images] == ["b.jpg"] and dataset.faults.counts == {"region": 3}
    with pytest.raises(BadAnnotation, match=r"a\.csv: line 2: expected 7 columns, found 2"):
        list(registry.read(str(tmp_path / "a.csv"), "via").images)


# ---- real files, records of all kinds, damaged files


def test_real_coco_comes_back(shared_data: Path, tmp_path: Path):
    dataset = registry.read(str(shared_data / "coco_small"), "coco")
    again, losses = there_and_back(dataset, tmp_path / "out", "via")
    assert {kind for kind, _ in losses.drops} == {"extra", "class id", "supercategory"} and not losses.approximations
    before, after = by_name(dataset), by_name(again)
    assert before.keys() == after.keys() and again.class_names == dataset.class_names
    for name, image in before.items():
        bare = tuple(dataclasses.replace(annotation, extras={}) for annotation in image.annotations)
        assert (
            after[name].annotations == bare
            and after[name].split == image.split
            and after[name].image_hw == image.image_hw
        )
    crowds = [one for image in after.values() for one in image.annotations if one.crowd]
    assert len(crowds) == 13 and all(isinstance(one.shape, Mask) for one in crowds)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["project", "annotations", "via1", "csv"]),
    st.lists(sample_records.annotations((12, 16), 3), max_size=4),
    sample_records.attributes,
    st.lists(sample_records.texts.filter(bool), min_size=3, max_size=3, unique=True),
)
def test_records_of_all_kinds_come_back(
    form: str, given_ones: list[Annotation], attributes: dict[str, Any], names: list[str]
):
    image = AnnotatedImage("a.png", None, (12, 16), tuple(given_ones), None, attributes)
    dataset = Dataset(tuple(map(Category, names)), [image], {"via": {"form": form}})
    with tempfile.TemporaryDirectory() as folder:
        again, losses = there_and_back(dataset, Path(folder, "out"), "via")
        (found,) = again.images
    assert not losses.approximations and not {kind for kind, _ in losses.drops} - {
        "extra",
        "attribute",
        "mask",
        "class",
    }
    assert found.attributes == {name: value for name, value in attributes.items() if name}
    drawn = [one for one in given_ones if not (isinstance(one.shape, Mask) and not mask_of(one, (12, 16)).any())]
    for one, other in zip(drawn, found.annotations, strict=True):
        kept = {name: value for name, value in one.attributes.items() if name}
        assert again.class_names[other.category] == names[one.category]
        bare = dataclasses.replace(one, extras={}, attributes=kept, category=0)
        if one.shape is None:
            assert other.box_xyxy is not None and one.box_xyxy is not None
            assert np.allclose(other.box_xyxy, one.box_xyxy, rtol=0, atol=1e-12)
            bare = dataclasses.replace(bare, box_xyxy=other.box_xyxy)
        assert dataclasses.replace(other, category=0) == bare


@pytest.fixture(scope="module")
def damaged_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("via")
    (folder / "in").mkdir()
    dataset = sample(folder / "in")
    for form in ("project", "annotations", "via1", "csv"):
        info = {"via": {"form": form}}
        images = [dataclasses.replace(image, split=None) for image in dataset.images]
        registry.write(dataclasses.replace(dataset, images=images, info=info), str(folder / "out" / form), "via")
    return folder / "out"


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_raise_rayseg_errors_alone(damaged_source: Path, seed: int):
    fuzz(damaged_source, (".json", ".csv"), seed, lambda uri: registry.read(uri, "via", on_error="skip"))


def test_any_json_raises_rayseg_errors_alone(tmp_path: Path):
    @settings(deadline=None, max_examples=150)
    @given(st.recursive(sample_records.json_values, lambda inner: st.lists(inner, max_size=3), max_leaves=8), st.data())
    def attempt(value: Any, data: st.DataObject):
        whole = entry(region(SQUARE | {"cx": 1}, **{"class": "a"}), region(SQUARE), base64_img_data="")
        places = [
            whole,
            whole["regions"][0],
            whole["regions"][0]["shape_attributes"],
            whole["regions"][0]["region_attributes"],
        ]
        place = data.draw(st.sampled_from(places))
        place[data.draw(st.sampled_from([*place, "rayseg_shape", "rayseg_size", "rayseg_object"]))] = value
        (tmp_path / "a.json").write_text(json.dumps({"x": whole, "y": value}))
        for image in registry.read(str(tmp_path / "a.json"), "via", on_error="skip").images:
            assert isinstance(image, AnnotatedImage)

    attempt()
