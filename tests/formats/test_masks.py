"""Masks: exact in either form, class tables and layouts from elsewhere, and id maps of every depth."""

from __future__ import annotations

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
    polygons,
    rectangle,
    ring,
    rle,
    sample,
    there_and_back,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Points
from rayseg.errors import ImageError
from rayseg.formats import id_maps, masks, painting, registry
from rayseg.formats.faults import BadAnnotation
from rayseg.kernels import encode

HW = (12, 20)


def _png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG")
    return file.getvalue()


def _map(*squares: tuple[int, int, int], dtype: type = np.uint8) -> np.ndarray:
    """An id map with 3 x 3 squares (id, x, y)."""
    ids = np.zeros(HW, dtype)
    for number, x, y in squares:
        ids[y : y + 3, x : x + 3] = number
    return ids


def _put(root: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def _found(root: str, **more: str) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """Of each image its name and, of each annotation, the class and the first pixel [y, x]."""
    dataset = registry.read(root, "masks", **more)
    return [
        (image.name, [
            (dataset.class_names[one.category], np.argwhere(mask_of(one, image.image_hw))[0].tolist())
            for one in image.annotations
        ])
        for image in dataset.images
    ]  # fmt: skip


def test_a_sample_comes_back_pixel_by_pixel_and_loses_nothing(tmp_path: Path) -> None:
    dataset = sample(tmp_path / "in")
    again, losses = there_and_back(dataset, tmp_path / "out", "masks")
    assert losses.lossless
    old, new = by_name(dataset), by_name(again)
    assert new.keys() == old.keys()
    for name, image in old.items():
        assert all(iou == 1.0 for iou in ious(image, new[name]))
        assert (new[name].split, new[name].uri, new[name].image_hw) == (image.split, image.uri, image.image_hw)
        for a, b in zip(image.annotations, new[name].annotations, strict=True):
            assert (a.category, a.box_xyxy, a.crowd, a.group, a.attributes) == (
                b.category, b.box_xyxy, b.crowd, b.group, b.attributes,
            )  # fmt: skip
    assert [category.supercategory for category in again.categories] == [None, "outdoor", None]
    assert_stable(again, tmp_path / "again", "masks")


def test_overlaps_and_empty_masks_force_a_folder(tmp_path: Path) -> None:
    there_and_back(sample(tmp_path / "in"), tmp_path / "out", "masks")
    assert sorted(path.name for path in (tmp_path / "out/instances/sub folder/b").iterdir()) == [
        "0001_dog.png", "0002_cat.png", "instances.json",
    ]  # fmt: skip
    assert (tmp_path / "out/masks/a.png").exists()
    dot = polygons([rectangle(1.6, 1.6, 2.4, 2.4)])
    image = AnnotatedImage(
        "a.jpg", image_hw=HW, annotations=(Annotation(0, shape=dot), Annotation(0, shape=rle(_map())))
    )
    again, losses = there_and_back(Dataset((Category("x/y"),), [image]), tmp_path / "empty", "masks")
    (found,) = again.images
    assert [mask_of(one, HW).sum() for one in found.annotations] == [0, 0]
    assert losses.lossless
    assert (tmp_path / "empty/instances/a/0001_x%2Fy.png").exists()
    assert_stable(again, tmp_path / "again", "masks")


@pytest.mark.parametrize(("count", "mode"), [(3, "L"), (300, "I;16"), (70_000, "RGB")])
def test_maps_take_as_many_bits_as_they_need(tmp_path: Path, count: int, mode: str) -> None:
    width = 300
    height = -(-count // width)
    ids = np.minimum(np.arange(height * width).reshape(height, width) + 1, count)
    data = id_maps.gray(ids)
    assert Image.open(io.BytesIO(data)).mode == mode
    np.testing.assert_array_equal(id_maps.read(data), ids)
    if count > 300:
        return
    pixels = encode(np.stack([ids == k for k in range(1, count + 1)]))
    annotations = tuple(Annotation(0, shape=rle(pixels.decode(i))) for i in range(count))
    image = AnnotatedImage("a.jpg", image_hw=(height, width), annotations=annotations)
    again, _ = there_and_back(Dataset((Category("x"),), [image]), tmp_path / "out", "masks")
    assert list(again.images) == [image]
    assert Image.open(tmp_path / "out/masks/a.png").mode == mode


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ('{"1": "cat", "2": "dog"}', "classes.json"),
        ('{"cat": 1, "dog": 2}', "classes.json"),
        ('["cat", "dog"]', "classes.json"),
        ('[{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]', "classes.json"),
        ("id,name\n1,cat\n2,dog\n", "classes.csv"),
        ("Name, Id\ncat,1\ndog,2\n", "classes.csv"),
        ("image,id,class\na.jpg,1,cat\na,2,dog\nb,1,dog\n", "classes.csv"),
    ],
)
def test_class_tables_from_elsewhere(tmp_path: Path, table: str, file: str) -> None:
    ids = _map((2, 1, 1), (1, 8, 4))
    files = {file: table, "masks/a.png": _png(ids), "images/a.jpg": picture(*HW)}
    root = _put(tmp_path / "in", files)
    assert masks.detect(root, sorted(files))
    assert _found(root) == [("a.jpg", [("cat", [4, 8]), ("dog", [1, 1])])]
    dataset = registry.read(root, "masks")
    assert_stable(dataset, tmp_path / "out", "masks")


def test_numbers_of_class_and_count_and_their_ids_come_back(tmp_path: Path) -> None:
    ids = _map((1000, 1, 1), (1001, 5, 1), (2000, 9, 1), (2, 13, 1), dtype=np.uint16)
    files = {"classes.json": '{"1": "cat", "2": "dog"}', "a.png": _png(ids)}
    root = _put(tmp_path / "in", files)
    assert _found(root) == [("a.png", [("dog", [1, 13]), ("cat", [1, 1]), ("cat", [1, 5]), ("dog", [1, 9])])]
    dataset = registry.read(root, "masks")
    (image,) = dataset.images
    assert [one.extras["masks"]["id"] for one in image.annotations] == [2, 1000, 1001, 2000]
    assert_stable(dataset, tmp_path / "out", "masks")
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/masks/a.png")))) == {0, 2, 1000, 1001, 2000}


def test_a_table_beside_a_map_names_its_numbers(tmp_path: Path) -> None:
    files = {
        "classes.json": '["cat", "dog"]',
        "masks/a.png": _png(_map((7, 1, 1), (9, 5, 1))),
        "masks/a.json": '{"9": "cat", "7": "dog"}',
    }
    assert _found(_put(tmp_path, files)) == [("a.png", [("cat", [1, 5]), ("dog", [1, 1])])]


@pytest.mark.parametrize("top", ["instances", "masks"])
def test_folders_of_binary_pngs_name_the_class(tmp_path: Path, top: str) -> None:
    white = _map((255, 1, 1))
    files = {
        "images/a.jpg": picture(*HW),
        f"{top}/a/1_cat.png": _png(white),
        f"{top}/a/dog_2.png": _png(_map((1, 5, 1))),
        f"{top}/a/traffic%20light.png": _png(_map((255, 9, 1)), "RGB"),
    }
    expected = [("a.jpg", [("cat", [1, 1]), ("dog", [1, 5]), ("traffic light", [1, 9])])]
    if top == "instances":
        root = _put(tmp_path / "without", files)
        assert masks.detect(root, sorted(files))
        assert _found(root) == expected
        assert registry.read(root, "masks").class_names == ("cat", "dog", "traffic light")
    files["classes.json"] = '["dog", "cat", "traffic light"]'
    root = _put(tmp_path / "with", files)
    assert _found(root) == expected
    assert_stable(registry.read(root, "masks"), tmp_path / "out", "masks")


def test_images_may_lie_elsewhere_and_have_folders(tmp_path: Path) -> None:
    root = _put(tmp_path / "in", {"classes.json": '["cat"]', "masks/x/a.png": _png(_map((1, 2, 3)))})
    pictures = _put(tmp_path / "pictures", {"x/a.webp": picture(*HW, suffix="webp")})
    (image,) = registry.read(root, "masks", images=pictures).images
    assert (image.name, image.uri) == ("x/a.webp", f"{pictures}/x/a.webp")


def test_exif_a_map_of_the_raw_rasters_size_is_turned(tmp_path: Path) -> None:
    jpeg = picture(*HW, orientation=6)
    for name, hw, pixel in (("raw", HW, [0, 11]), ("upright", HW[::-1], [0, 0])):
        ids = np.zeros(hw, np.uint8)
        ids[0, 0] = 1
        root = _put(tmp_path / name, {"classes.json": '["cat"]', "masks/a.png": _png(ids), "images/a.jpg": jpeg})
        assert _found(root) == [("a.jpg", [("cat", pixel)])]
        assert_stable(registry.read(root, "masks"), tmp_path / f"{name}-out", "masks")


@pytest.mark.parametrize(
    ("pixels", "mode", "expected"),
    [
        (np.array([[0, 1], [2, 255]], np.uint8), None, [0, 1, 2, 255]),
        (np.array([[0, 1], [2, 3]], np.uint8), "P", [0, 1, 2, 3]),
        (np.array([[0, 1], [256, 65535]], np.uint16), None, [0, 1, 256, 65535]),
        (np.array([[[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]], np.uint8), None, [0, 1, 256, 65536]),
        (np.array([[[7, 0, 0, 255], [1, 0, 0, 255]]], np.uint8), None, [7, 1]),
        (np.array([[[7, 0, 0, 1], [0, 0, 0, 0]]], np.uint8), None, [7 + (1 << 24), 0]),
        (np.array([[False, True]]), None, [0, 1]),
    ],
)
def test_numbers_in_pngs_of_every_kind(pixels: np.ndarray, mode: str | None, expected: list[int]) -> None:
    assert id_maps.read(_png(pixels, mode)).ravel().tolist() == expected


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_not_stretched(bits: int) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = {1: b"\x40", 2: bytes([0b00011011]), 4: bytes([0x01, 0x2F])}[bits]
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )
    assert id_maps.read(data).tolist() == [{1: [0, 1, 0, 0], 2: [0, 1, 2, 3], 4: [0, 1, 2, 15]}[bits]]
    broken = bytearray(data)
    broken[data.index(b"IDAT") + 5] ^= 1
    with pytest.raises(ImageError, match="fails its checksum"):
        id_maps.read(bytes(broken))


def test_bombs_and_kinds_that_hold_no_ids_are_refused() -> None:
    bomb = bytearray(_png(_map()))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="60000x60000 pixels, expected at most"):
        id_maps.read(bytes(bomb))
    with pytest.raises(ImageError, match="found jpeg"):
        id_maps.read(picture(*HW))
    with pytest.raises(ImageError, match="colour type 4"):
        id_maps.read(_png(_map(), "LA"))
    with pytest.raises(ValueError, match="ids must be"):
        id_maps.gray(np.array([[1 << 32]]))


GOOD = {
    "classes.json": '["cat", "dog"]',
    "masks/a.png": _png(_map((1, 1, 1))),
    "images/a.jpg": picture(*HW),
    "masks/b.png": _png(_map((2, 1, 1))),
    "images/b.jpg": picture(*HW),
}


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"masks/b.png": _png(_map((3, 1, 1)))}, "class", "masks/b.png: image b: expected one of the classes, found 3"),
        ({"masks/b.png": b"\x89PNG\r\n\x1a\n"}, "mask", "masks/b.png: image b: png ends inside its header"),
        ({"masks/b.png": _png(np.zeros((3, 3), np.uint8))}, "size", "found 3x3"),
        ({"masks/c.png": _png(_map())}, "image", "masks/c.png: image c: expected an image 'c' for the mask"),
        ({"images/c.jpg": picture(*HW)}, "annotation", "image c.jpg: expected a mask"),
        ({"masks/b.json": "{\n"}, "table", "masks/b.json: image b: line 2"),
        ({"masks/b.json": "[]"}, "table", "expected an object"),
        ({"masks/b.json": '{"instances": 1}'}, "table", "expected instances as a list"),
        ({"masks/b.json": '{"instances": [{"id": 5, "class": 1}]}'}, "instance", "expected pixels of 5, found none"),
        ({"masks/b.json": '{"instances": [{"class": 1, "box": [1, NaN, 2, 2]}]}'}, "instance", "a side of the box"),
        ({"masks/b.json": '{"instances": [{"class": 1, "box": [5, 1, 2, 2]}]}'}, "instance", "positive width"),
        ({"masks/b.json": '{"instances": [{"class": "cow", "id": 2}]}'}, "instance", "found 'cow'"),
        ({"masks/b.json": '{"image": "../b.jpg", "instances": []}'}, "image", "expected the name of an image"),
        ({"masks/b.json": '{"image": "a.jpg", "instances": []}'}, "image", "expected one image 'a.jpg', found two"),
        ({"masks/b.json": '{"height": 5, "width": 5, "instances": []}'}, "size", "as the table says"),
    ],
)
def test_faults_name_file_and_item_and_are_counted_once(tmp_path: Path, files: dict, kind: str, message: str) -> None:
    root = _put(tmp_path, GOOD | files)
    with pytest.raises(BadAnnotation) as caught:
        list(registry.read(root, "masks").images)
    assert message in str(caught.value)
    dataset = registry.read(root, "masks", on_error="skip")
    for _ in range(2):
        assert "a.jpg" in [image.name for image in dataset.images]
        assert dataset.faults.counts[kind] == 1
        assert message in dataset.faults.messages[0]


@pytest.mark.parametrize(
    ("file", "table", "message"),
    [
        ("classes.json", "{", "classes.json: line 1"),
        ("classes.json", "3", "expected classes as an object or a list"),
        ("classes.json", '{"cat": -1}', "the number of class 'cat'"),
        ("classes.json", '{"x": "cat"}', "a number as key"),
        (
            "classes.json",
            '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]',
            "classes[1]: expected an id and a name",
        ),
        ("classes.json", '["\\ud800"]', "surrogate"),
        ("classes.csv", "a,b\n", "line 1: expected the columns id and name"),
        ("classes.csv", "id,name\n1,cat\nx,dog\n", "line 3: id"),
        ("classes.csv", b"id,name\n1,\xff\n", "line 2: expected CSV in UTF-8"),
    ],
)
def test_broken_class_tables_say_where(tmp_path: Path, file: str, table: str | bytes, message: str) -> None:
    with pytest.raises(BadAnnotation) as caught:
        registry.read(_put(tmp_path, {file: table, "masks/a.png": _png(_map())}), "masks")
    assert message in str(caught.value)


def test_what_is_no_such_data_set(tmp_path: Path) -> None:
    with pytest.raises(BadAnnotation, match="found neither"):
        registry.read(_put(tmp_path / "a", {"masks/a.png": _png(_map())}), "masks")
    with pytest.raises(BadAnnotation, match="found none"):
        registry.read(_put(tmp_path / "b", {"classes.json": "[]"}), "masks")
    assert not masks.detect("u", ["classes.json", "a.txt"])
    assert not masks.detect("u", ["masks/a.png"])


def test_embedded_images_are_written_and_names_with_one_stem_kept_apart(tmp_path: Path) -> None:
    one = (Annotation(0, shape=rle(_map((1, 2, 2)))),)
    names = ["a.jpg", "a.png", "a/1_x.jpg", "../c.jpg", "a.jpg"]
    images = [AnnotatedImage(name, image_hw=HW, data=picture(*HW), annotations=one) for name in names]
    again, losses = there_and_back(Dataset((Category("x"),), images), tmp_path / "out", "masks")
    assert sorted(image.name for image in again.images) == ["a.jpg", "a.png", "a/1_x.jpg"]
    for image in again.images:
        assert Path(str(image.uri)).read_bytes() == picture(*HW)
        assert image.annotations == one
    assert {row["kind"]: row["count"] for row in losses.rows() if row["outcome"] == "dropped"} == {
        "image": 2,
        "mask": 2,
    }


@pytest.mark.parametrize("uri", ["", "../x.jpg", "a\0b", 3])
def test_a_table_names_images_by_absolute_uris_alone(tmp_path: Path, uri: object) -> None:
    table = json.dumps({"image": "b.jpg", "uri": uri, "instances": []})
    (image,) = registry.read(_put(tmp_path, {"classes.json": "[]", "masks/b.json": table}), "masks").images
    assert image.uri is None


def test_a_relative_path_is_written_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    again, _ = there_and_back(Dataset((), [AnnotatedImage("a.jpg", uri="pictures/a.jpg")]), tmp_path / "out", "masks")
    assert [image.uri for image in again.images] == [f"{tmp_path}/pictures/a.jpg"]


def test_lines_and_masks_without_a_size_are_reported(tmp_path: Path) -> None:
    annotations = (
        Annotation(0, shape=Points(ring((1, 1)))),
        Annotation(0, (1.0, 1.0, 4.0, 4.0), Points(ring((1, 1)))),
        Annotation(0, (0.0, 0.0, 3.0, 3.0), polygons([rectangle(0, 0, 3, 3)])),
    )
    images = [
        AnnotatedImage("a.jpg", image_hw=HW, annotations=annotations),
        AnnotatedImage("b.jpg", annotations=annotations[2:]),
    ]
    again, losses = there_and_back(Dataset((Category("x"),), images), tmp_path / "out", "masks")
    first, second = again.images
    assert [one.box_xyxy for one in first.annotations] == [(1.0, 1.0, 4.0, 4.0), (0.0, 0.0, 3.0, 3.0)]
    assert [(one.box_xyxy, one.shape) for one in second.annotations] == [((0.0, 0.0, 3.0, 3.0), None)]
    assert {row["kind"]: row["count"] for row in losses.rows() if row["outcome"] == "dropped"} == {
        "points": 2,
        "mask": 1,
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 5), st.integers(1, 5)), max_size=5))
def test_painting_against_pixels(rectangles: list) -> None:
    stack = np.zeros((len(rectangles), 13, 11), np.uint8)
    for i, (x, y, width, height) in enumerate(rectangles):
        stack[i, y : y + height, x : x + width] = 1
    ids = np.arange(len(rectangles)) * 3 + 2
    painted = painting.paint(encode(stack), ids)
    expected = np.zeros((13, 11), int)
    for i in sorted(range(len(ids)), key=lambda i: -int(stack[i].sum())):
        expected[stack[i] > 0] = ids[i]
    np.testing.assert_array_equal(painted.ids, expected)
    whole = stack.sum(axis=(1, 2))
    seen = np.array([(expected == number).sum() for number in ids])
    np.testing.assert_allclose(painted.ious, np.where(whole > 0, seen / np.maximum(whole, 1), 1))
    assert painted.disjoint == bool((stack.sum(axis=0) <= 1).all())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_sets_give_images_or_rayseg_errors(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    source = tmp_path_factory.getbasetemp() / "masks-fuzz"
    if not source.exists():
        registry.write(sample(tmp_path_factory.mktemp("pictures")), str(source), "masks")
        _put(source, {"instances/c/1_cat.png": _png(_map((1, 1, 1))), "masks/d.json": json.dumps({"1": "cat"})})
    fuzz(source, (".json", ".png"), seed, lambda uri: registry.read(uri, "masks", on_error="skip"))


def test_classes_keep_their_numbers_where_they_can(tmp_path: Path) -> None:
    numbers = (7, None, 7, -1, 0, 1, 1 << 32)
    categories = tuple(Category(f"c{i}", number) for i, number in enumerate(numbers))
    image = AnnotatedImage(
        "a.jpg", image_hw=(9, 9), annotations=(Annotation(4, shape=polygons([rectangle(1, 1, 5, 5)])),)
    )
    again, losses = there_and_back(Dataset(categories, [image]), tmp_path / "out", "masks")
    assert [one.category for one in by_name(again)["a.jpg"].annotations] == [4]
    assert [one.source_id for one in again.categories] == [7, 2, 3, 4, 0, 1, 5]
    assert losses.kept_counts["class id"] == 3
    (((kind, _), tally),) = losses.approximations.items()
    assert (kind, tally.count) == ("class id", 3)
