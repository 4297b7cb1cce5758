"""VOC: files by hand with known answers, what a map cannot hold, and records that come back the same."""

from __future__ import annotations

import io
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
    polygons,
    rectangle,
    rle,
    sample,
    there_and_back,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset
from rayseg.errors import UsageError
from rayseg.formats import id_maps, registry, safe_xml, voc, voc_xml
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.voc_layout import CLASSES

HW = (40, 50)


def _object(name: str, box: tuple, *more: str) -> str:
    bounds = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{''.join(more)}<bndbox>{bounds}</bndbox></object>"


def _xml(image_id: str, *objects: str, hw: tuple[int, int] = HW, suffix: str = "jpg", more: str = "") -> str:
    size = f"<size><width>{hw[1]}</width><height>{hw[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{image_id}.{suffix}</filename>{more}{size}{''.join(objects)}</annotation>"


def _palette_png(ids: np.ndarray) -> bytes:
    """As the development kit's PNGs are, made with Pillow alone."""
    image, file = Image.fromarray(ids.astype(np.uint8), "L"), io.BytesIO()
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [9] * 759)
    image.save(file, "PNG")
    return file.getvalue()


def _put(root: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def _hand_made(root: Path) -> str:
    """A car at pixels x 4..13, y 2..8 with a void border below; a person beside it; a far boat without pixels."""
    numbers, classes = np.zeros(HW, int), np.zeros(HW, int)
    numbers[2:9, 4:14], classes[2:9, 4:14] = 1, 7
    numbers[9:11, 4:14] = classes[9:11, 4:14] = 255
    numbers[20:30, 30:36], classes[20:30, 30:36] = 2, 15
    flags = "<pose>Left</pose><truncated>0</truncated><difficult>1</difficult>"
    person = _object("person", (31, 21, 36, 30), "<occluded>1</occluded>", "<part><name>head</name></part>")
    source = "<source><database>The VOC Database</database></source>"
    return _put(
        root,
        {
            "Annotations/2007_01.xml": _xml(
                "2007_01", _object("car", (5, 3, 14, 9), flags), person, _object("boat", (1, 1, 2.5, 2)), more=source
            ),
            "Annotations/2007_02.xml": _xml("2007_02"),
            "JPEGImages/2007_01.jpg": picture(*HW),
            "JPEGImages/2007_02.jpg": picture(*HW),
            "SegmentationObject/2007_01.png": _palette_png(numbers),
            "SegmentationClass/2007_01.png": _palette_png(classes),
            "ImageSets/Main/val.txt": "2007_02\n",
            "ImageSets/Main/train.txt": "2007_01\n",
            "ImageSets/Main/trainval.txt": "2007_01\n2007_02\n",
            "ImageSets/Main/boat_train.txt": "2007_01 -1\n2007_02  1\n",
            "ImageSets/Segmentation/train.txt": "2007_01\n",
        },
    )


def test_boxes_flags_masks_and_splits_of_a_set_by_hand(tmp_path: Path) -> None:
    root = _hand_made(tmp_path)
    assert registry.format_of("voc").detect(root, ["Annotations/2007_01.xml"])
    dataset = registry.read(root, "voc")
    assert dataset.class_names == CLASSES
    first, second = dataset.images
    assert (first.name, first.split, first.image_hw) == ("2007_01.jpg", "train", HW)
    assert (second.name, second.split, second.annotations) == ("2007_02.jpg", "val", ())
    car, person, boat = first.annotations
    assert [dataset.class_names[one.category] for one in first.annotations] == ["car", "person", "boat"]
    assert car.box_xyxy == (4.0, 2.0, 14.0, 9.0)  # 1-based and inclusive: 5..14, 3..9
    assert boat.box_xyxy == (0.0, 0.0, 2.5, 2.0)
    assert boat.shape is None
    assert car.attributes == {"pose": "Left", "truncated": False, "difficult": True}
    assert person.attributes == {"occluded": True}
    assert person.extras == {"voc": {"elements": [["part", [["name", "head"]]]]}}
    assert np.argwhere(mask_of(car, HW)).min(axis=0).tolist() == [2, 4]
    assert mask_of(car, HW).sum() == 70
    assert np.argwhere(mask_of(person, HW)).max(axis=0).tolist() == [29, 35]


def test_a_set_by_hand_comes_back_with_void_and_all(tmp_path: Path) -> None:
    dataset = registry.read(_hand_made(tmp_path / "in"), "voc")
    assert_stable(dataset, tmp_path / "out", "voc")
    for folder in ("SegmentationObject", "SegmentationClass"):
        old, new = (np.asarray(Image.open(tmp_path / side / folder / "2007_01.png")) for side in ("in", "out"))
        np.testing.assert_array_equal(new, old)
    main = (tmp_path / "out/ImageSets/Main/trainval.txt").read_text()
    assert main == "2007_01\n2007_02\n"
    assert (tmp_path / "out/JPEGImages/2007_01.jpg").read_bytes() == picture(*HW)


def test_the_devkit_above_is_found_and_two_of_them_are_refused(tmp_path: Path) -> None:
    _hand_made(tmp_path / "VOCdevkit" / "VOC2012")
    assert len(list(registry.read(str(tmp_path), "voc").images)) == 2
    assert len(list(registry.read(str(tmp_path / "VOCdevkit"), "voc").images)) == 2
    _hand_made(tmp_path / "VOCdevkit" / "VOC2007")
    with pytest.raises(UsageError, match="several"):
        registry.read(str(tmp_path), "voc")
    with pytest.raises(BadAnnotation, match="neither"):
        registry.read(str(tmp_path / "VOCdevkit/VOC2012/JPEGImages"), "voc")


def test_objects_are_tied_by_box_where_the_order_contradicts(tmp_path: Path) -> None:
    numbers = np.zeros(HW, int)
    numbers[0:10, 0:10], numbers[20:30, 20:30] = 2, 1
    objects = [_object("car", (1, 1, 10, 10)), _object("dog", (21, 21, 30, 30))]
    files = {"Annotations/a.xml": _xml("a", *objects), "SegmentationObject/a.png": _palette_png(numbers)}
    (image,) = registry.read(_put(tmp_path, files), "voc").images
    assert [np.argwhere(mask_of(one, HW)).min() for one in image.annotations] == [0, 20]


def test_a_small_visible_part_stays_with_its_object_by_order(tmp_path: Path) -> None:
    numbers = np.zeros(HW, int)
    numbers[0:3, 0:3], numbers[4:30, 4:30] = 1, 2
    objects = [_object("car", (1, 1, 30, 30)), _object("dog", (5, 5, 30, 30))]
    files = {"Annotations/a.xml": _xml("a", *objects), "SegmentationObject/a.png": _palette_png(numbers)}
    (image,) = registry.read(_put(tmp_path, files), "voc").images
    assert [mask_of(one, HW).sum() for one in image.annotations] == [9, 676]


def test_numbers_without_object_take_the_class_of_the_class_map(tmp_path: Path) -> None:
    numbers = np.zeros(HW, int)
    numbers[0:10, 0:10], numbers[20:30, 20:30] = 1, 2
    classes = np.where(numbers == 1, 20, np.where(numbers == 2, 1, 0))
    maps = {"SegmentationObject/a.png": _palette_png(numbers), "SegmentationClass/a.png": _palette_png(classes)}
    maps["JPEGImages/a.jpg"] = picture(*HW)
    dataset = registry.read(_put(tmp_path / "maps", maps), "voc")
    (image,) = dataset.images
    assert [dataset.class_names[one.category] for one in image.annotations] == ["tvmonitor", "aeroplane"]
    assert image.image_hw == HW
    assert_stable(dataset, tmp_path / "out", "voc")
    alone = _put(tmp_path / "alone", {"SegmentationObject/a.png": maps["SegmentationObject/a.png"]})
    with pytest.raises(BadAnnotation, match="expected an object for each number"):
        list(registry.read(alone, "voc").images)


def test_everything_a_sample_holds_comes_back_but_what_overlaps(tmp_path: Path) -> None:
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "voc")
    old, new = by_name(dataset), by_name(again)
    assert again.class_names == dataset.class_names
    assert new.keys() == old.keys()
    assert ious(old["a.jpg"], new["a.jpg"]) == [1.0, 1.0, 1.0]
    lost, whole = ious(old["sub folder/b.png"], new["sub folder/b.png"])[::-1]
    assert whole == 1.0
    rows = {(row["kind"], row["outcome"]): row for row in losses.rows()}
    assert rows["mask", "approximated"]["mean_iou"] == pytest.approx(lost)
    assert lost < 1
    assert {key for key in rows if key[1] != "kept"} == {
        ("mask", "approximated"), ("class id", "dropped"), ("supercategory", "dropped"),
    }  # fmt: skip
    for name, image in old.items():
        for a, b in zip(image.annotations, new[name].annotations, strict=True):
            assert (a.category, a.box_xyxy, a.crowd, a.group, a.attributes) == (
                b.category, b.box_xyxy, b.crowd, b.group, b.attributes,
            )  # fmt: skip
        assert new[name].split == image.split
    assert_stable(again, tmp_path / "again", "voc")


def test_maps_are_palette_pngs_with_vocs_colours(tmp_path: Path) -> None:
    there_and_back(sample(tmp_path / "in"), tmp_path / "out", "voc")
    image = Image.open(tmp_path / "out/SegmentationObject/a.png")
    assert image.mode == "P"
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    palette = np.array(image.getpalette()).reshape(-1, 3)
    found = id_maps.colour_map()
    for index, colour in known.items():
        assert tuple(found[index]) == colour
    assert palette[:3].tolist() == found[:3].tolist()
    classes = np.asarray(Image.open(tmp_path / "out/SegmentationClass/a.png"))
    numbers = np.asarray(image)
    assert {(n, c) for n, c in zip(numbers.ravel().tolist(), classes.ravel().tolist(), strict=True)} == {
        (0, 0), (1, 1), (2, 2), (4, 2),
    }  # fmt: skip


def test_more_objects_than_a_map_holds_are_reported_and_stay_boxes(tmp_path: Path) -> None:
    squares = [polygons([rectangle(2 * x, 2 * y, 2 * x + 2, 2 * y + 2)]) for y in range(20) for x in range(15)]
    image = AnnotatedImage("a.jpg", image_hw=(40, 40), annotations=tuple(Annotation(0, shape=s) for s in squares))
    dataset = Dataset((Category("cell"),), [image])
    again, losses = there_and_back(dataset, tmp_path / "out", "voc")
    (found,) = again.images
    assert [one.shape is not None for one in found.annotations] == [True] * 254 + [False] * 46
    dropped = {row["kind"]: row["count"] for row in losses.rows() if row["outcome"] == "dropped"}
    assert dropped == {"mask": 46, "image file": 1}


def test_hidden_and_empty_masks_are_dropped_and_leave_their_box(tmp_path: Path) -> None:
    one = polygons([rectangle(5, 5, 20, 20)])
    dot = polygons([rectangle(1.6, 1.6, 2.4, 2.4)])
    shapes = (Annotation(0, shape=one), Annotation(0, shape=one), Annotation(0, shape=dot))
    dataset = Dataset((Category("cell"),), [AnnotatedImage("a.jpg", image_hw=HW, annotations=shapes)])
    again, losses = there_and_back(dataset, tmp_path / "out", "voc")
    (found,) = again.images
    assert [a.shape is None for a in found.annotations] == [True, False, True]
    assert [a.box_xyxy for a in found.annotations] == [(5.0, 5.0, 20.0, 20.0), None, (1.6, 1.6, 2.4, 2.4)]
    assert sum(row["count"] for row in losses.rows() if (row["kind"], row["outcome"]) == ("mask", "dropped")) == 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_the_size_in_the_xml_tells_which_raster_was_used(tmp_path: Path, orientation: int) -> None:
    raw_hw = (40, 50)
    upright_hw = (50, 40) if orientation == 6 else raw_hw
    files = {"JPEGImages/a.jpg": picture(*raw_hw, orientation=orientation)}
    upright = _put(
        tmp_path / "u", {**files, "Annotations/a.xml": _xml("a", _object("car", (1, 1, 4, 2)), hw=upright_hw)}
    )
    (image,) = registry.read(upright, "voc").images
    assert (image.image_hw, image.annotations[0].box_xyxy) == (upright_hw, (0.0, 0.0, 4.0, 2.0))
    if orientation == 6:  # to be turned clockwise: the raw left edge is the upright top
        raw = _put(tmp_path / "r", {**files, "Annotations/a.xml": _xml("a", _object("car", (1, 1, 4, 2)), hw=raw_hw)})
        dataset = registry.read(raw, "voc")
        (image,) = dataset.images
        assert (image.image_hw, image.annotations[0].box_xyxy) == (upright_hw, (38.0, 0.0, 40.0, 4.0))
        assert_stable(dataset, tmp_path / "again", "voc")


def test_exif_masks_and_void_on_the_raw_raster_are_turned(tmp_path: Path) -> None:
    numbers = np.zeros((40, 50), int)
    numbers[0, 0:4], numbers[39, 49] = 1, 255
    files = {
        "JPEGImages/a.jpg": picture(40, 50, orientation=6),
        "Annotations/a.xml": _xml("a", _object("car", (1, 1, 4, 1)), hw=(40, 50)),
        "SegmentationObject/a.png": _palette_png(numbers),
    }
    dataset = registry.read(_put(tmp_path / "in", files), "voc")
    (image,) = dataset.images
    assert np.argwhere(mask_of(image.annotations[0], (50, 40))).tolist() == [[y, 39] for y in range(4)]
    assert_stable(dataset, tmp_path / "out", "voc")
    written = np.asarray(Image.open(tmp_path / "out/SegmentationObject/a.png"))
    assert np.argwhere(written == 255).tolist() == [[49, 0]]


def test_segmentation_lists_rule_over_main_lists_and_both_come_back(tmp_path: Path) -> None:
    numbers = np.zeros(HW, int)
    numbers[5, 5] = 1
    files: dict[str, str | bytes] = {f"Annotations/{i}.xml": _xml(i, _object("car", (6, 6, 6, 6))) for i in "abcd"}
    files["SegmentationObject/a.png"] = _palette_png(numbers)
    files |= {"ImageSets/Main/val.txt": "a\nb\n", "ImageSets/Segmentation/train.txt": "a\r\n"}
    files |= {"ImageSets/Main/default.txt": "c\n", "ImageSets/Main/holdout.txt": "d\n"}
    dataset = registry.read(_put(tmp_path / "in", files), "voc")
    assert [image.split for image in dataset.images] == ["train", "val", None, "holdout"]
    again, _ = there_and_back(dataset, tmp_path / "out", "voc")
    assert list(again.images) == list(dataset.images)
    assert (tmp_path / "out/ImageSets/Main/val.txt").read_text() == "a\nb\n"
    assert (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text() == "a\n"


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"Annotations/a.xml": "<annotation>\n<object>"}, "xml", "a.xml: image a: line 2"),
        ({"Annotations/a.xml": '<!DOCTYPE a [<!ENTITY x "y">]><annotation/>'}, "xml", "DTD"),
        ({"Annotations/a.xml": _xml("a", _object("car", (9, 1, 4, 5)))}, "box", "object 1: expected xmin <= xmax"),
        ({"Annotations/a.xml": _xml("a", _object("car", ("nan", 1, 4, 5)))}, "box", "xmin as a finite number"),
        ({"Annotations/a.xml": _xml("a", _object("", (1, 1, 4, 5)))}, "object", "object 1: expected a name"),
        ({"Annotations/a.xml": _xml("a", "<object><name>car</name></object>")}, "box", "bndbox or a mask"),
        ({"Annotations/a.xml": _xml("a", hw=(10, 10))}, "size", "expected the image's size 50x40, found 10x10"),
        ({"Annotations/a.xml": _xml("a", hw=(10**9, 10))}, "size", "sides of 1 to"),
        ({"SegmentationObject/a.png": _palette_png(np.zeros((4, 5)))}, "size", "expected SegmentationObject"),
        ({"SegmentationObject/a.png": b"\x89PNG\r\n\x1a\n"}, "mask", "png ends inside its header"),
        ({"ImageSets/Main/train.txt": "a\nmissing\n"}, "annotation", "train.txt: id missing"),
        ({"JPEGImages/lonely.jpg": picture(*HW)}, "annotation", "image lonely.jpg"),
        ({"Annotations/a.jpg.xml": _xml("a", suffix="jpg")}, "image", "expected one image 'a.jpg', found two"),
        ({"labelmap.txt": "dog:1,2,3::"}, "class", "expected a class of labelmap.txt, found 'car'"),
    ],
)
def test_faults_name_file_and_item_and_are_counted_once(
    tmp_path: Path, files: dict[str, str | bytes], kind: str, message: str
) -> None:
    good = {"Annotations/a.xml": _xml("a", _object("car", (1, 1, 2, 2))), "JPEGImages/a.jpg": picture(*HW)}
    root = _put(tmp_path, {**good, "Annotations/b.xml": _xml("b"), **files})
    with pytest.raises(BadAnnotation) as caught:
        list(registry.read(root, "voc").images)
    assert message in str(caught.value)
    dataset = registry.read(root, "voc", on_error="skip")
    for _ in range(2):
        assert any(image.name == "b.jpg" for image in dataset.images)
        assert dataset.faults.counts == {kind: 1}
        assert message in dataset.faults.messages[0]


def test_a_pixel_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    bomb = bytearray(_palette_png(np.zeros((4, 5))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    root = _put(tmp_path, {"SegmentationObject/a.png": bytes(bomb)})
    with pytest.raises(BadAnnotation, match="60000x60000 pixels, expected at most"):
        list(registry.read(root, "voc").images)


def test_a_broken_label_map_names_its_line(tmp_path: Path) -> None:
    root = _put(tmp_path, {"Annotations/a.xml": _xml("a"), "labelmap.txt": "# x\nbackground:0,0,0::\ncar:1,2::\n"})
    with pytest.raises(BadAnnotation, match=r"labelmap.txt: line 3: expected a colour"):
        registry.read(root, "voc")


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    root = _put(tmp_path / "labels", {"Annotations/a.xml": _xml("a", hw=(0, 0))})
    (image,) = registry.read(root, "voc").images
    assert (image.uri, image.image_hw) == (None, None)
    pictures = _put(tmp_path / "pictures", {"a.jpg": picture(*HW)})
    (image,) = registry.read(root, "voc", images=pictures).images
    assert (image.uri, image.image_hw) == (f"{pictures}/a.jpg", HW)


def test_names_that_no_list_can_hold_are_reported(tmp_path: Path) -> None:
    names = ["../evil.jpg", "a\nb.jpg", " a.jpg", "a.jpg", "a.png", "a.jpg"]
    dataset = Dataset((Category("x"),), [AnnotatedImage(name, image_hw=HW) for name in names])
    again, losses = there_and_back(dataset, tmp_path / "out", "voc")
    assert sorted(image.name for image in again.images) == ["a.jpg", "a.png"]
    assert {row["kind"]: row["count"] for row in losses.rows() if row["outcome"] == "dropped"} == {
        "image": 4, "image file": 2,
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_class_names_that_files_cannot_hold_are_reported(tmp_path: Path) -> None:
    names = ["#1", "a:b", "a\x00b", "background", "ü & <b>"]
    dataset = Dataset(tuple(map(Category, names)), [AnnotatedImage("a.jpg", image_hw=HW, annotations=tuple(
        Annotation(i, (0, 0, 1, 1)) for i in range(5)
    ))])  # fmt: skip
    again, losses = there_and_back(dataset, tmp_path / "out", "voc")
    assert again.class_names == ("_#1", "a:b", "a\ufffdb", "_background", "ü & <b>")
    assert [one.category for image in again.images for one in image.annotations] == [0, 1, 2, 3, 4]
    changed = [row for row in losses.rows() if row["kind"] == "class" and row["outcome"] == "approximated"]
    assert len(changed) == 3


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["1", "true", "null", " a ", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
sides = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-30)


@settings(max_examples=60, deadline=None)
@given(st.lists(sides, min_size=2, max_size=2), st.lists(sides, min_size=2, max_size=2), values, st.booleans())
@example([0.1, 45.70000076293945], [1e-7, 123456.78901234567], "5", True)
def test_boxes_and_attributes_come_back_to_the_last_bit(x: list, y: list, value: object, flag: bool) -> None:
    box = (min(x), min(y), max(x), max(y))
    attributes = {"difficult": flag, "pose": value, "any name": value, "occluded": value}
    annotation = Annotation(0, box, score=0.25, attributes=attributes)
    root = voc_xml.Element("annotation")
    voc_xml.add_thing(root, "car", annotation, box, None)
    text = voc_xml.document(root)
    (element,) = safe_xml.parse(text, "u").findall("object")
    assert voc_xml.thing_of(element).annotation == annotation


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_sets_give_images_or_rayseg_errors(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    source = tmp_path_factory.getbasetemp() / "voc-fuzz"
    if not source.exists():
        _hand_made(source)
        (source / "labelmap.txt").write_text("car:1,2,3::\nperson:::\nboat:::\n")
    fuzz(source, (".xml", ".png", ".txt"), seed, lambda uri: registry.read(uri, "voc", on_error="skip"))


def test_rle_masks_of_another_size_are_reported(tmp_path: Path) -> None:
    wrong = Annotation(0, shape=rle(np.ones((3, 3))))
    dataset = Dataset((Category("x"),), [AnnotatedImage("a.jpg", image_hw=HW, annotations=(wrong,))])
    _, losses = there_and_back(dataset, tmp_path / "out", "voc")
    assert [row["reason"] for row in losses.rows() if row["kind"] == "mask"] == [
        "expected an RLE of 40 x 50 pixels as its image has, found 3 x 3"
    ]
    assert voc.detect("u", ["x/Annotations/y.xml"])
