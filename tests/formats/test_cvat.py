"""CVAT: images and videos by hand with known answers, declared attributes, masks run by run, and what CVAT has no form for."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polyline
from rayseg.formats import cvat, registry
from rayseg.formats.cvat_text import spoken
from rayseg.formats.faults import BadAnnotation

HW = (40, 60)
LABELS = """
      <label><name>car</name><color>#ff8000</color><type>any</type><attributes>
        <attribute><name>parked</name><mutable>False</mutable><input_type>checkbox</input_type>
          <default_value>false</default_value><values>false</values></attribute>
        <attribute><name>doors</name><mutable>False</mutable><input_type>number</input_type>
          <default_value>2</default_value><values>2
5
1</values></attribute>
        <attribute><name>make</name><mutable>False</mutable><input_type>select</input_type>
          <default_value>VW</default_value><values>VW
true</values></attribute>
      </attributes></label>
      <label><name>person</name><color>#0000ff</color><attributes>
        <attribute><name>pose</name><mutable>True</mutable><input_type>text</input_type>
          <default_value></default_value><values></values></attribute>
      </attributes></label>"""


def document(*images: str, labels: str = LABELS, mode: str = "annotation", meta: str = "") -> str:
    task = f"<task><id>4</id><size>1</size><mode>{mode}</mode>{meta}<labels>{labels}</labels></task>"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>{task}'
        f"<dumped>2025-01-02</dumped></meta>\n{''.join(images)}\n</annotations>"
    )


def image(
    *shapes: str, name: str = "a.jpg", size: str = 'width="60" height="40"', number: int = 0, more: str = ""
) -> str:
    return f'<image id="{number}" name="{name}" {size} {more}>{"".join(shapes)}</image>'


def put(folder: Path, text: str, name: str = "annotations.xml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(folder)


def read(folder: Path, *shapes: str, **how: Any) -> Dataset:
    return registry.read(put(folder, document(image(*shapes))), "cvat", **how)


def only(dataset: Dataset) -> tuple[Annotation, ...]:
    (found,) = dataset.images
    return found.annotations


# ---- shapes by hand


def test_every_element(tmp_path: Path):
    dataset = read(
        tmp_path,
        '<box label="car" source="manual" occluded="0" xtl="1.50" ytl="2.00" xbr="9.25" ybr="12.00" z_order="0"></box>',
        '<box label="car" occluded="0" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90.00"/>',
        '<polygon label="person" source="auto" occluded="1" points="1.00,2.00;5.00,2.00;5.00,8.00" z_order="3" group_id="7"/>',
        '<mask label="car" occluded="0" rle="1, 2, 1, 2" left="5" top="6" width="3" height="2"/>',
        '<ellipse label="car" occluded="0" cx="30" cy="20" rx="9" ry="4" rotation="30.00"/>',
        '<polyline label="car" occluded="0" points="1,2;3,4;5,6"/>',
        '<points label="car" occluded="0" points="7,8;9,10"/>',
        '<cuboid label="car" occluded="0" xtl1="1" ytl1="2" xbl1="3" ybl1="4" xtr1="5" ytr1="6" xbr1="7" ybr1="8" '
        'xtl2="9" ytl2="10" xbl2="11" ybl2="12" xtr2="13" ytr2="14" xbr2="15" ybr2="16"/>',
        '<skeleton label="person" z_order="0"><points label="head" outside="0" occluded="1" points="4,5">'
        '<attribute name="up">true</attribute></points><points label="foot" outside="1" occluded="0" points="6,7"/></skeleton>',
    )
    stamped = np.zeros(HW, np.uint8)
    stamped[6, 6:8] = stamped[7, 6:8] = 1
    box, turned, polygon, mask, ellipse, line, points, cuboid, skeleton = only(dataset)
    assert (box.box_xyxy, box.shape, box.extras, box.attributes) == ((1.5, 2.0, 9.25, 12.0), None, {}, {})
    assert turned.shape is not None
    expected = np.zeros(HW, np.uint8)
    expected[7:17, 13:17] = 1  # a quarter turn about (15, 12)
    assert np.array_equal(mask_of(turned, HW), expected)
    assert polygon.shape == polygons([ring((1, 2), (5, 2), (5, 8))])
    assert (polygon.category, polygon.group, polygon.attributes) == (1, 7, {"occluded": True})
    assert polygon.extras == {"cvat": {"source": "auto", "z_order": "3"}}
    assert mask.shape == rle(stamped)
    assert ellipse.shape == Ellipse((30.0, 20.0), (9.0, 4.0), 30.0)
    assert line.shape == Polyline(ring((1, 2), (3, 4), (5, 6)))
    assert points.shape == Points(ring((7, 8), (9, 10)))
    assert cuboid.shape == Points(np.arange(1, 17, dtype=float).reshape(8, 2))
    assert skeleton.shape == Points(ring((4, 5), (6, 7)))
    assert_stable(dataset, tmp_path / "out", "cvat")
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    written = root.find("image")
    assert written is not None
    assert [child.tag for child in written] == [
        *("box", "box", "polygon", "mask", "ellipse", "polyline", "points", "cuboid", "skeleton")
    ]
    assert written[1].get("rotation") == "90.00" and written[1].get("xtl") == "10.00"
    assert written[3].get("rle") == "0, 2, 1, 2" or written[3].get("left") == "6", "a tight rectangle"
    assert [(one.get("label"), one.get("points"), one.get("outside")) for one in written[8]] == [
        ("head", "4.00,5.00", "0"),
        ("foot", "6.00,7.00", "1"),
    ]
    assert written[8][0].findtext("attribute") == "true"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_masks_run_row_by_row_in_their_rectangle(height: int, width: int, seed: int):
    dense = (np.random.default_rng(seed).random((height, width)) < 0.5).astype(np.uint8)
    dataset = Dataset(
        (Category("car"),), [AnnotatedImage("a.jpg", None, (height, width), (Annotation(0, None, rle(dense)),))]
    )
    with tempfile.TemporaryDirectory() as folder:
        again, losses = there_and_back(dataset, Path(folder, "out"), "cvat")
        assert only(again)[0].shape == rle(dense) and losses.lossless
        element = ElementTree.parse(Path(folder, "out", "annotations.xml")).getroot().find("image/mask")
    assert element is not None
    painted = np.zeros((height, width), np.uint8)
    left, top, w, h = (int(element.get(key, "")) for key in ("left", "top", "width", "height"))
    pixels: list[int] = []
    for i, run in enumerate(element.get("rle", "").split(",")):
        pixels += [i % 2] * int(run)
    painted[top : top + h, left : left + w] = np.array(pixels).reshape(h, w)
    assert np.array_equal(painted, dense)
    if dense.any():
        rows, columns = np.nonzero(dense)
        assert (left, top, w, h) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


# ---- labels and attributes


def test_labels_colours_and_declared_attributes(tmp_path: Path):
    values = {"parked": "true", "doors": "4", "make": "true", "note": "12", "length": "4.50"}
    inner = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in values.items())
    dataset = read(tmp_path, f'<box label="car" occluded="0" xtl="1" ytl="2" xbr="9" ybr="12">{inner}</box>')
    assert dataset.class_names == ("car", "person")
    assert [category.colour for category in dataset.categories] == [(255, 128, 0), (0, 0, 255)]
    (found,) = only(dataset)
    assert found.attributes == {"parked": True, "doors": 4, "make": "true", "note": "12", "length": "4.50"}
    assert [type(value) for value in found.attributes.values()] == [bool, int, str, str, str]
    assert dataset.info["cvat"]["meta"][1] == ["dumped", "2025-01-02"]
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert only(again) == only(dataset) and losses.lossless
    labels = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot().findall("meta/task/labels/label")
    declared = {spec.findtext("name"): spec.findtext("input_type") for spec in labels[0].iter("attribute")}
    assert declared == {"parked": "checkbox", "doors": "number", "make": "select", "note": "text", "length": "text"}
    assert labels[0].findtext("attributes/attribute[3]/values") == "VW\ntrue"
    assert labels[0].findtext("color") == "#ff8000"


def test_new_attributes_are_declared_by_their_values(tmp_path: Path):
    odd = {
        "flag": True,
        "count": 3,
        "ratio": 0.5,
        "text": "true",
        "mixed": 1,
        "list": [1, "a"],
        "none": None,
        "ctl": "a\x01b",
    }
    more = {"flag": False, "count": -12, "mixed": "one", "text": " two  spaces\n\t<&>\"' "}
    boxes = tuple(Annotation(0, (1.0, 1.0, 5.0, 5.0), attributes=values) for values in (odd, more))
    dataset = Dataset(
        (Category("car"), Category("dog")), [AnnotatedImage("a.jpg", None, HW, boxes, None, {"night": [1]})]
    )
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert losses.lossless and only(again) == boxes
    assert next(iter(again.images)).attributes == {"night": [1]}
    labels = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot().findall("meta/task/labels/label")
    declared = {
        spec.findtext("name"): (spec.findtext("input_type"), spec.findtext("values"))
        for spec in labels[0].iter("attribute")
    }
    assert declared["flag"] == ("checkbox", "false") and declared["count"] == ("number", "-12\n3\n1")
    assert declared["mixed"] == ("text", "") and len(declared) == len(odd) and not list(labels[1].iter("attribute"))
    assert_stable(again, tmp_path / "again", "cvat")


def test_a_skeletons_points_are_no_classes(tmp_path: Path):
    labels = (
        "<label><name>body</name><type>skeleton</type><attributes/><svg>&lt;line/&gt;</svg></label>"
        "<label><name>head</name><type>points</type><attributes/><parent>body</parent></label>"
    )
    shape = '<skeleton label="body"><points label="head" outside="0" occluded="0" points="4,5"/></skeleton>'
    dataset = registry.read(put(tmp_path, document(image(shape), labels=labels)), "cvat")
    assert dataset.class_names == ("body",) and len(only(dataset)) == 1
    assert_stable(dataset, tmp_path / "out", "cvat")
    text = (tmp_path / "out" / "annotations.xml").read_text()
    assert "<parent>body</parent>" in text and "&lt;line/&gt;" in text and "<type>skeleton</type>" in text


def test_without_declared_labels_all_that_occur_are_taken(tmp_path: Path):
    shapes = '<points label="newt" points="1,2"/><tag label="blurred"/><points label="cat" points="1,2"/>'
    text = f"<annotations>{image(shapes)}</annotations>"
    dataset = registry.read(put(tmp_path, text), "cvat")
    assert dataset.class_names == ("newt", "cat") and len(only(dataset)) == 2
    assert [one.extras["cvat"]["tags"] for one in dataset.images] == [[[{"label": "blurred"}, []]]]
    again, _ = there_and_back(dataset, tmp_path / "out", "cvat")
    assert list(again.images) == [
        dataclasses.replace(one, uri=str(tmp_path / "out/images/a.jpg")) for one in dataset.images
    ]


def test_names_that_xml_cannot_hold(tmp_path: Path):
    names = ("a\x01b", "a\ufffdb", " two\nlines ", "", "  ")
    boxes = tuple(Annotation(i, (1.0, 1.0, 5.0, 5.0), attributes={"\x02": i}) for i in range(len(names)))
    dataset = Dataset(tuple(map(Category, names)), [AnnotatedImage("a.jpg", None, HW, boxes)])
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert [one.category for one in only(again)] == [0, 1, 2, 3, 4] and len(set(again.class_names)) == 5
    lost = {(row["kind"], row["outcome"], row["count"]) for row in losses.rows() if row["outcome"] != "kept"}
    assert lost == {("class", "approximated", 4), ("attribute", "dropped", 5)}


# ---- what CVAT has no form for


def test_the_sample_comes_back_whole(tmp_path: Path):
    (tmp_path / "in").mkdir()
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert losses.lossless
    assert [dataclasses.replace(one, extras={}) for one in again.categories] == list(dataset.categories)
    after = by_name(again)
    for name, before in by_name(dataset).items():
        assert dataclasses.replace(placeless(after[name]), extras={}) == placeless(before)
        assert all(iou == 1 for iou in ious(before, after[name]))
    assert_stable(again, tmp_path / "again", "cvat")


def test_parts_share_a_group_and_a_mark_and_holes_are_masks(tmp_path: Path):
    two = polygons([rectangle(1, 1, 9, 9)], [rectangle(20, 20, 30, 30)])
    holed = polygons([rectangle(1, 1, 30, 30), rectangle(5, 5, 9, 9)], [rectangle(40, 1, 50, 9)])
    given_ones = (
        Annotation(0, None, two),
        Annotation(0, None, two, group=4),
        Annotation(0, (0.0, 0.0, 3.0, 3.0), group=5),
        Annotation(0, None, two, group=5, crowd=True, score=0.125),
        Annotation(0, (0.0, 0.0, 59.0, 39.0), holed, group=-3),
    )
    dataset = Dataset((Category("car"),), [AnnotatedImage("a.jpg", None, HW, given_ones)])
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert losses.lossless and only(again) == given_ones
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    groups = [
        (one.tag, one.get("group_id"), one.findtext("attribute[@name='rayseg_object']"))
        for one in root.find("image") or ()
    ]
    assert groups == [
        ("polygon", "6", "1"),
        ("polygon", "6", "1"),
        ("polygon", "4", "2"),
        ("polygon", "4", "2"),
        ("box", "5", None),
        ("polygon", "7", "3"),
        ("polygon", "7", "3"),
        ("mask", None, None),
    ]
    declared = {spec.findtext("name") for spec in root.iter("attribute")}
    assert {"rayseg_object", "rayseg_crowd", "rayseg_score"} <= declared, "or CVAT would drop them"
    # what CVAT gives back: declared attributes, nothing of rayseg's own XML attributes
    for element in root.find("image") or ():
        for key in [key for key in element.attrib if key.startswith("rayseg_")]:
            del element.attrib[key]
    back = only(registry.read(put(tmp_path / "back", ElementTree.tostring(root, encoding="unicode")), "cvat"))
    assert [one.group for one in back] == [6, 4, 5, 7, None]
    assert [one.shape for one in back[:2]] == [two, two] and back[3].crowd and back[3].score == 0.125
    assert isinstance(back[4].shape, Mask)
    assert np.array_equal(mask_of(back[4], HW), mask_of(given_ones[4], HW))


def test_groups_of_other_peoples_files_stay_numbers(tmp_path: Path):
    polygon = '<polygon label="car" points="1,1;5,1;5,5" group_id="3"/>'
    assert [one.group for one in only(read(tmp_path, polygon, polygon))] == [3, 3]


def test_a_note_is_left_alone_when_the_mask_was_edited(tmp_path: Path):
    holed = Annotation(0, None, polygons([rectangle(1, 1, 30, 30), rectangle(5, 5, 9, 9)]))
    there_and_back(Dataset((Category("car"),), [AnnotatedImage("a.jpg", None, HW, (holed,))]), tmp_path / "out", "cvat")
    path = tmp_path / "out" / "annotations.xml"
    path.write_text(path.read_text().replace('left="1"', 'left="2"'))
    (edited,) = only(registry.read(str(path), "cvat"))
    assert isinstance(edited.shape, Mask)


# ---- files, names, subsets


def test_subsets_are_splits_and_images_are_found(tmp_path: Path):
    for name in ("images/train/a.jpg", "images/b.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(*HW))
    text = document(
        image(name="a.jpg", more='subset="train" task_id="4"'),
        image(name="b.jpg", more='subset="val"'),
        image(name="c.jpg"),
    )
    dataset = registry.read(put(tmp_path, text), "cvat")
    found = list(dataset.images)
    assert [(one.name, one.split) for one in found] == [("a.jpg", "train"), ("b.jpg", "val"), ("c.jpg", None)]
    assert [one.uri for one in found] == [
        str(tmp_path / name) for name in ("images/train/a.jpg", "images/b.jpg", "c.jpg")
    ]
    assert found[0].extras == {"cvat": {"id": 0, "xml": {"task_id": "4"}}}
    elsewhere = registry.read(str(tmp_path), "cvat", images=str(tmp_path / "images"))
    assert [one.uri for one in elsewhere.images][1] == str(tmp_path / "images/b.jpg")


def test_a_folder_of_folders_is_a_set_of_splits(tmp_path: Path):
    for split in ("train", "val"):
        put(tmp_path, document(image('<points label="car" points="1,2"/>')), f"{split}/annotations.xml")
    assert cvat.detect(str(tmp_path), ["train/annotations.xml", "val/annotations.xml"])
    dataset = registry.read(str(tmp_path), "cvat")
    assert [(one.name, one.split) for one in dataset.images] == [("train/a.jpg", "train"), ("val/a.jpg", "val")]
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert list(map(placeless, again.images)) == list(map(placeless, dataset.images)) and losses.lossless
    assert "<subsets>train\nval</subsets>" in (tmp_path / "out" / "annotations.xml").read_text()


def test_embedded_images_are_written_below_images(tmp_path: Path):
    data = picture(*HW)
    dataset = Dataset((Category("car"),), [AnnotatedImage("x/a.jpg", None, HW, (), None, data=data)])
    (found,) = there_and_back(dataset, tmp_path / "out", "cvat")[0].images
    assert found.uri == str(tmp_path / "out/images/x/a.jpg") and Path(found.uri).read_bytes() == data


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "", "x/../../a.jpg", "http://h/a.jpg"])
def test_names_out_of_the_folder_are_refused(tmp_path: Path, name: str):
    root = put(tmp_path, document(image(name=name), image(name="b.jpg", number=1)))
    with pytest.raises(BadAnnotation, match=r"annotations\.xml: line \d+: expected"):
        list(registry.read(root, "cvat").images)
    dataset = registry.read(root, "cvat", on_error="skip")
    assert [one.name for one in dataset.images] == [one.name for one in dataset.images] == ["b.jpg"]
    assert dataset.faults.counts == {"image": 1}


def test_other_xml_is_not_taken_for_it(tmp_path: Path):
    comment = "<!-- <annotations> -->" * 3
    for text, expected in (
        ("<annotation><object/></annotation>", False),
        (f"{comment}<annotation/>", False),
        (f'<?xml version="1.0"?>\n{comment}\n<annotations/>', True),
        ("<annotationsx/>", False),
        ("", False),
    ):
        put(tmp_path, text, "x.xml")
        assert cvat.detect(str(tmp_path), ["x.xml"]) is cvat.detect(str(tmp_path / "x.xml"), ["x.xml"]) is expected
    with pytest.raises(BadAnnotation, match="begins with <annotations>"):
        put(tmp_path, "<annotation/>", "x.xml")
        registry.read(str(tmp_path / "x.xml"), "cvat")
    with pytest.raises(BadAnnotation, match="found none"):
        registry.read(str(tmp_path), "cvat")


# ---- video


def track(number: int, label: str, *shapes: str, more: str = "") -> str:
    return f'<track id="{number}" label="{label}" source="manual" {more}>{"".join(shapes)}</track>'


def box(frame: int, x: int, outside: int = 0, keyframe: int = 1, inner: str = "") -> str:
    return (
        f'<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" '
        f'xtl="{x}" ytl="2" xbr="{x + 5}" ybr="12" z_order="0">{inner}</box>'
    )


def video(*tracks: str, size: int = 4, meta: str = "") -> str:
    frame_size = "<original_size><width>60</width><height>40</height></original_size>"
    return document(*tracks, mode="interpolation", meta=f"{meta}{frame_size}").replace(
        "<size>1</size>", f"<size>{size}</size>"
    )


def test_tracks_are_read_frame_by_frame(tmp_path: Path):
    text = video(
        track(0, "car", box(0, 1), box(1, 2, keyframe=0), box(2, 3, outside=1), more='group_id="6"'),
        track(
            1,
            "person",
            box(1, 30, inner='<attribute name="pose">up</attribute>'),
            '<polygon frame="2" keyframe="1" outside="0" occluded="1" points="1,1;5,1;5,5"/>',
            '<mask frame="2" keyframe="1" outside="0" occluded="0" rle="0, 4" left="7" top="8" width="2" height="2"/>',
        ),
    )
    dataset = registry.read(put(tmp_path, text), "cvat")
    frames = list(dataset.images)
    assert [one.name for one in frames] == [f"frame_{i:06d}.PNG" for i in range(4)]
    assert {one.image_hw for one in frames} == {HW}
    assert [len(one.annotations) for one in frames] == [1, 2, 2, 0]
    first, second = frames[1].annotations
    assert (first.box_xyxy, first.category, first.group) == ((2.0, 2.0, 7.0, 12.0), 0, 6)
    assert (first.attributes, first.extras) == ({"track_id": 0}, {"cvat": {"xml": {"keyframe": "0"}}})
    assert (second.category, second.attributes) == (1, {"pose": "up", "track_id": 1})
    polygon, mask = frames[2].annotations
    assert polygon.attributes == {"occluded": True, "track_id": 1} and polygon.shape == polygons(
        [ring((1, 1), (5, 1), (5, 5))]
    )
    assert mask_of(mask, HW).sum() == 4
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert list(map(placeless, again.images)) == list(map(placeless, frames)) and losses.lossless
    assert_stable(again, tmp_path / "again", "cvat")  # its labels now declare `track_id`


def test_which_track_a_shape_is_of_goes_through_cvat_and_into_other_formats(tmp_path: Path):
    tracks = track(0, "car", box(0, 1), box(1, 2)), track(12, "car", box(0, 30))
    dataset = registry.read(put(tmp_path, video(*tracks)), "cvat")
    expected = [[0, 12], [0], [], []]
    registry.write(dataset, str(tmp_path / "cvat"), "cvat")
    file = tmp_path / "cvat" / "annotations.xml"
    (declared,) = (
        ElementTree.parse(file).getroot().iterfind("meta/task/labels/label/attributes/attribute[name='track_id']")
    )
    assert (declared.findtext("input_type"), declared.findtext("values")) == ("number", "0\n12\n1")
    file.write_text(file.read_text().replace(' json="1"', "").replace(' keyframe="1"', ""))  # what CVAT gives back
    for uri in (tmp_path / "cvat", tmp_path / "coco"):
        found = [[one.attributes["track_id"] for one in image.annotations] for image in registry.read(str(uri)).images]
        assert found == expected
        if uri.name == "cvat":
            registry.write(registry.read(str(uri)), str(tmp_path / "coco"), "coco")
    losses = registry.write(dataset, str(tmp_path / "yolo"), "yolo")
    assert losses.drops["attribute", "YOLO has no place for 'track_id'"].count == 3


def test_a_number_of_the_label_s_own_stays(tmp_path: Path):
    inner = '<attribute name="track_id">mine</attribute>'
    (image, *_) = registry.read(put(tmp_path, video(track(3, "car", box(0, 1, inner=inner)))), "cvat").images
    assert image.annotations[0].attributes == {"track_id": "mine"}


def test_frames_follow_start_and_step_and_their_files(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "frame_000010.jpg").write_bytes(picture(*HW))
    meta = "<start_frame>10</start_frame><frame_filter>step=5</frame_filter>"
    dataset = registry.read(put(tmp_path, video(track(0, "car", box(15, 1), box(20, 2)), size=3, meta=meta)), "cvat")
    frames = list(dataset.images)
    assert [one.name for one in frames] == ["frame_000010.jpg", "frame_000015.jpg", "frame_000020.jpg"]
    assert [len(one.annotations) for one in frames] == [0, 1, 1]
    assert frames[0].uri == str(tmp_path / "images" / "frame_000010.jpg")


def test_a_projects_tasks_have_frames_of_their_own(tmp_path: Path):
    size = "<original_size><width>60</width><height>40</height></original_size>"
    tasks = "".join(
        f"<task><id>{i}</id><size>2</size><mode>interpolation</mode><subset>{subset}</subset>{size}</task>"
        for i, subset in ((7, "train"), (9, "val"))
    )
    meta = f"<meta><project><tasks>{tasks}</tasks><labels>{LABELS}</labels></project></meta>"
    tracks = track(0, "car", box(0, 1), more='task_id="9" subset="val"') + track(
        1, "car", box(0, 9), more='task_id="7"'
    )
    dataset = registry.read(put(tmp_path, f"<annotations>{meta}{tracks}</annotations>"), "cvat")
    found = [(one.name, one.split, [a.box_xyxy[0] for a in one.annotations if a.box_xyxy]) for one in dataset.images]
    assert found == [
        ("task_7/frame_000000.PNG", "train", [9.0]),
        ("task_7/frame_000001.PNG", "train", []),
        ("task_9/frame_000000.PNG", "val", [1.0]),
        ("task_9/frame_000001.PNG", "val", []),
    ]


def test_a_task_cannot_name_its_way_out_or_claim_endless_frames(tmp_path: Path):
    tasks = "<task><id>../../x</id><size>1</size></task><task><id>2</id><size>1</size></task>"
    meta = f"<meta><project><tasks>{tasks}</tasks><labels>{LABELS}</labels></project></meta>"
    text = f"<annotations>{meta}{track(0, 'car', box(0, 1))}</annotations>"
    dataset = registry.read(put(tmp_path, text), "cvat")
    assert [one.name for one in dataset.images] == ["task_0/frame_000000.PNG", "task_2/frame_000000.PNG"]
    put(tmp_path, video(track(0, "car", box(0, 1)), size=999_999_999))
    with pytest.raises(BadAnnotation, match="at most 10,000,000 frames"):
        list(registry.read(str(tmp_path), "cvat").images)


def test_bad_shapes_of_a_track_are_named(tmp_path: Path):
    text = video(track(0, "car", box(0, 1).replace('frame="0"', 'frame="x"'), box(1, 1).replace('xtl="1"', 'xtl="no"')))
    with pytest.raises(BadAnnotation, match=r"line \d+, box: expected frame as a whole number, found 'x'"):
        list(registry.read(put(tmp_path, text), "cvat").images)
    dataset = registry.read(str(tmp_path), "cvat", on_error="skip")
    assert [one.annotations for one in dataset.images] == [()] * 4
    assert dataset.faults.counts == {"frame": 1, "box": 1}


# ---- bad files


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ('<polygon label="car" points="1,1;2,2"/>', "polygon", "at least 3 points"),
        ('<polygon label="car" points="1,1;2,nan;3,3"/>', "polygon", "finite"),
        ('<polygon label="car" points="1,1;2;3,3"/>', "polygon", "points as x,y;x,y, found '1,1;2;3,3'"),
        ('<polygon label="car"/>', "polygon", "points as x,y;x,y"),
        ('<box label="car" xtl="1" ytl="1" xbr="5"/>', "box", "ybr as a finite number, found none"),
        ('<box label="car" xtl="9" ytl="1" xbr="5" ybr="5"/>', "box", "positive width"),
        ('<box label="car" xtl="9" ytl="1" xbr="5" ybr="5" rotation="9"/>', "box", "xtl <= xbr"),
        ('<box label="car" xtl="1e999" ytl="1" xbr="5" ybr="5"/>', "box", "xtl as a finite number"),
        ('<ellipse label="car" cx="1" cy="1" rx="0" ry="2"/>', "ellipse", "positive radii"),
        (
            '<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>',
            "mask",
            "rle of 2x2 pixels, found runs of 3",
        ),
        ('<mask label="car" rle="-1, 5" left="0" top="0" width="2" height="2"/>', "mask", "rle of 2x2"),
        ('<mask label="car" rle="4" left="59" top="0" width="2" height="2"/>', "mask", "inside the image of 60x40"),
        ('<mask label="car" rle="4" left="0" top="0" width="99999999999" height="2"/>', "mask", "inside the image"),
        ('<mask label="car" rle="x" left="0" top="0" width="2" height="2"/>', "mask", "rle as run lengths, found 'x'"),
        ('<points label="dog" points="1,1"/>', "class", "a label that <meta> declares, found 'dog'"),
        ('<points label="car" points="1,1" group_id="x"/>', "points", "group_id as a whole number"),
        ('<skeleton label="car"/>', "points", "a skeleton of points, found none"),
        ('<skeleton label="car"><polygon points="1,1;2,2;3,1"/></skeleton>', "points", "found 'polygon' in it"),
    ],
)
def test_a_bad_shape_is_named_and_passed_over(tmp_path: Path, shape: str, kind: str, message: str):
    good = '<points label="car" points="1,1"/>'
    with pytest.raises(BadAnnotation, match=rf"annotations\.xml: line \d+, \w+: .*{message}"):
        list(read(tmp_path, good, shape, good).images)
    dataset = read(tmp_path, good, shape, good, on_error="skip")
    assert len(only(dataset)) == 2 and dataset.faults.counts == {kind: 1}


@pytest.mark.parametrize("size", ['width="0" height="40"', 'width="x" height="40"', 'width="9999999" height="9999999"'])
def test_a_bad_size_is_named(tmp_path: Path, size: str):
    root = put(tmp_path, document(image(size=size)))
    with pytest.raises(BadAnnotation, match=r"line \d+: expected"):
        list(registry.read(root, "cvat").images)
    dataset = registry.read(root, "cvat", on_error="skip")
    assert list(dataset.images) == [] and dataset.faults.counts == {"size": 1}


def test_a_mask_needs_a_size_and_finds_it_in_the_image(tmp_path: Path):
    shape = '<mask label="car" rle="0, 4" left="7" top="8" width="2" height="2"/>'
    root = put(tmp_path, document(image(shape, size="")))
    with pytest.raises(BadAnnotation, match="the size of the image, which a mask needs"):
        list(registry.read(root, "cvat").images)
    (tmp_path / "a.jpg").write_bytes(picture(*HW))
    (found,) = only(registry.read(root, "cvat"))
    assert mask_of(found, HW)[8:10, 7:9].all()


def test_bombs_and_entities_are_refused(tmp_path: Path):
    for text in (
        '<!DOCTYPE a [<!ENTITY x "y">]><annotations/>',
        '<annotations><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]></annotations>',
        "<annotations>&x;</annotations>",
        "<annotations>" + "<a>" * 500,
    ):
        with pytest.raises(BadAnnotation):
            list(registry.read(put(tmp_path, text), "cvat").images)


def test_a_dtd_is_named_also_where_the_format_is_not_given(tmp_path: Path):
    root = put(
        tmp_path, '<?xml version="1.0"?>\n<!DOCTYPE annotations [<!ENTITY x "y">]>\n<annotations>&x;</annotations>'
    )
    with pytest.raises(BadAnnotation, match="line 2: expected XML without a document type, found a DTD"):
        registry.read(root)


def test_names_that_come_twice_are_a_fault(tmp_path: Path):
    root = put(tmp_path, document(image(), image(number=1)))
    with pytest.raises(BadAnnotation, match=r"'a\.jpg': expected images of different names"):
        list(registry.read(root, "cvat").images)
    labels = "<label><name>car</name></label>" * 2
    with pytest.raises(BadAnnotation, match="labels of different names, found 'car' twice"):
        registry.read(put(tmp_path, document(labels=labels)), "cvat")


# ---- real files, records of all kinds, damaged files


@pytest.mark.parametrize(("name", "format"), [("kudzu", "via"), ("coco_small", "coco")])
def test_real_data_comes_back(shared_data: Path, tmp_path: Path, name: str, format: str):
    dataset = registry.read(str(shared_data / name), format)
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert not {reason for kind, reason in losses.drops if kind != "extra"} and not losses.approximations
    before, after = list(dataset.images), list(again.images)
    assert [one.name for one in before] == [one.name for one in after]
    for one, other in zip(before, after, strict=True):
        assert dataclasses.replace(placeless(other), extras=one.extras) == placeless(one)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(sample_records.annotations((12, 16), 3), max_size=4),
    sample_records.attributes,
    st.lists(sample_records.texts.filter(str.isprintable).filter(bool), min_size=3, max_size=3, unique=True),
)
def test_records_of_all_kinds_come_back(given_ones: list[Annotation], attributes: dict[str, Any], names: list[str]):
    image = AnnotatedImage("a.png", None, (12, 16), tuple(given_ones), None, attributes)
    dataset = Dataset(tuple(map(Category, names)), [image])
    with tempfile.TemporaryDirectory() as folder:
        again, losses = there_and_back(dataset, Path(folder, "out"), "cvat")
        assert not {kind for kind, _ in losses.drops} - {"extra", "attribute"} and not losses.approximations
        (found,) = again.images
        assert again.class_names == tuple(names) and found.attributes == attributes
        for one, other in zip(given_ones, found.annotations, strict=True):
            kept = {name: value for name, value in one.attributes.items() if name and spoken(name) == name}
            extras = {name: values for name, values in one.extras.items() if name != "cvat"}  # these are none of CVAT's
            assert other == dataclasses.replace(one, extras=extras, attributes=kept)


def test_extras_of_another_form_are_dropped_and_told(tmp_path: Path):
    crooked = {"xml": {"a b": "c"}, "skeleton": [7], "rotated": "x", "z_order": "2", "elsewhere": 1}
    given_one = Annotation(0, None, Points(ring((1, 2))), extras={"cvat": crooked})
    category = Category("car", extras={"cvat": {"others": [["<", "x"]], "attributes": [7]}})
    image = AnnotatedImage("a.jpg", None, HW, (given_one,), extras={"cvat": {"tags": [[1, 2]], "id": "x"}})
    dataset = Dataset((category,), [image], {"cvat": {"meta": [["b c", "d"]]}})
    again, losses = there_and_back(dataset, tmp_path / "out", "cvat")
    assert only(again) == (dataclasses.replace(given_one, extras={"cvat": {"z_order": "2"}}),)
    assert sum(row["count"] for row in losses.rows() if row["kind"] == "extra") == 3


@pytest.fixture(scope="module")
def damaged_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cvat")
    (folder / "in").mkdir()
    registry.write(sample(folder / "in"), str(folder / "out" / "stills"), "cvat")
    put(
        folder / "out",
        video(track(0, "car", box(0, 1), box(1, 2)), track(1, "person", box(1, 3))),
        "video/annotations.xml",
    )
    return folder / "out"


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_raise_rayseg_errors_alone(damaged_source: Path, seed: int):
    fuzz(damaged_source, (".xml",), seed, lambda uri: registry.read(uri, "cvat", on_error="skip"))


def test_any_attribute_values_raise_rayseg_errors_alone(tmp_path: Path):
    texts = st.sampled_from(
        ["", "0", "-1", "nan", "1e999", "9" * 30, "1,1;2,2;3,1", "1,,2", ";", "[1]", '{"rle": 3}', "\u00b2"]
    )
    keys = (
        "id",
        "width",
        "label",
        "points",
        "rle",
        "left",
        "group_id",
        "z_order",
        "rotation",
        "xtl",
        "cx",
        "rayseg_shape",
    )

    @settings(deadline=None, max_examples=120)
    @given(st.sampled_from(cvat.TAGS), st.dictionaries(st.sampled_from([*keys, "rayseg_box", "rayseg_group"]), texts))
    def attempt(tag: str, values: dict[str, str]):
        element = ElementTree.Element(tag, {"label": "car"} | values)
        inner = ElementTree.SubElement(element, "points", {"points": values.get("points", "1,1")})
        ElementTree.SubElement(inner, "attribute", {"name": "rayseg_score"}).text = values.get("id", "x")
        root = put(tmp_path, document(image(ElementTree.tostring(element, encoding="unicode"))))
        for found in registry.read(root, "cvat", on_error="skip").images:
            assert isinstance(found, AnnotatedImage)

    attempt()
