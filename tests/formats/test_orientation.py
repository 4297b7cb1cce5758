"""Turning annotations between rasters, against Pillow's own turning of pixels, and the rule of each tool."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_samples import mask_of, picture, polygons, rectangle, rle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rayseg.annotations import Annotation, Ellipse, Points, Polyline
from rayseg.formats import cvat, labelme, orientation, via
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.images.headers import Header

ORIENTATIONS = range(1, 9)
WIDE = (20, 32)  # (H, W) as stored
SQUARE = (24, 24)


def upright_pixels(raw: np.ndarray, turn: int) -> np.ndarray:
    """What Pillow shows of a raster that is stored with an orientation."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(raw).save(file, "PNG", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(file)))


def found(turn: int, hw: tuple[int, int] = WIDE) -> Header:
    return Header("jpeg", hw[1], hw[0], turn)


def patch(hw: tuple[int, int]) -> np.ndarray:
    """A rectangle that lies in no axis or centre of symmetry."""
    raw = np.zeros(hw, np.uint8)
    raw[2:7, 4:15] = 1
    return raw


def corners(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


# ---- transforms


@pytest.mark.parametrize("turn", ORIENTATIONS)
@pytest.mark.parametrize("hw", [WIDE, SQUARE])
def test_every_shape_turns_as_pillow_turns_pixels(turn: int, hw: tuple[int, int]):
    raw = np.random.default_rng(turn).integers(0, 2, hw).astype(np.uint8)
    upright = upright_pixels(raw, turn)
    header = found(turn, hw)
    assert header.image_hw == upright.shape
    mask = Annotation(0, None, rle(raw))
    assert orientation.to_upright(mask, header).shape == rle(upright)
    rows, columns = np.nonzero(raw)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    for kind in (Points, Polyline):
        turned = orientation.to_upright(Annotation(0, None, kind(centres)), header).shape
        assert isinstance(turned, kind)
        painted = np.zeros_like(upright)
        painted[turned.points[:, 1].astype(int), turned.points[:, 0].astype(int)] = 1
        assert np.array_equal(painted, upright)
    x1, y1, x2, y2 = box = corners(patch(hw))
    boxed = orientation.to_upright(Annotation(0, box, polygons([rectangle(x1, y1, x2, y2)])), header)
    assert boxed.box_xyxy == corners(upright_pixels(patch(hw), turn))
    assert np.array_equal(mask_of(boxed, upright.shape), upright_pixels(patch(hw), turn))


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_ellipses_turn_with_their_pixels(turn: int):
    leaning = Annotation(0, None, Ellipse((11.3, 8.2), (8.7, 3.1), 25.0))
    turned = orientation.to_upright(leaning, found(turn))
    assert np.array_equal(mask_of(turned, found(turn).image_hw), upright_pixels(mask_of(leaning, WIDE), turn))


@settings(deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.lists(st.tuples(*[st.integers(-5, 40)] * 2), min_size=3, max_size=6))
def test_there_and_back_is_the_same(turn: int, points: list[tuple[int, int]]):
    drawn = Annotation(0, (1.0, 2.0, 5.0, 9.0), polygons([np.array(points, np.float64)]), group=3, attributes={"a": 1})
    assert orientation.to_raw(orientation.to_upright(drawn, found(turn)), found(turn)) == drawn
    round_one = Annotation(0, None, Ellipse((4.0, 5.0), (3.0, 2.0), 20.0))
    assert orientation.to_upright(orientation.to_raw(round_one, found(turn)), found(turn)) == round_one


def test_masks_of_another_size_are_refused():
    for turn_back in (orientation.to_upright, orientation.to_raw):
        with pytest.raises(ValueError, match="expected a mask of"):
            turn_back(Annotation(0, None, rle(np.ones((3, 4)))), found(6))


def test_real_photos_point_at_the_same_colours(shared_data: Path):
    files = sorted((shared_data / "odd_images" / "exif_orientation_all8").glob("*.jpg"))
    turns = set()
    for file in files:
        header = orientation.raster(str(file))
        assert header is not None
        turns.add(header.orientation)
        with Image.open(file) as image:
            raw = np.asarray(image.convert("RGB"))
            upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert header.image_hw == upright.shape[:2]
        rows, columns = (axis.ravel() for axis in np.mgrid[5 : raw.shape[0] : 37, 3 : raw.shape[1] : 41])
        drawn = Annotation(0, None, Points(np.stack([columns + 0.5, rows + 0.5], axis=1)))
        turned = orientation.to_upright(drawn, header).shape
        assert isinstance(turned, Points)
        x, y = turned.points.astype(int).T
        assert np.array_equal(upright[y, x], raw[rows, columns])
    assert len(files) == 18 and turns == set(ORIENTATIONS)


# ---- headers


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_first_bytes_say_size_and_orientation(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(picture(20, 30, suffix, orientation=6))
    header = orientation.raster(str(path))
    assert header is not None and (header.height, header.width, header.orientation) == (20, 30, 6)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_orientation_behind_the_pixels_is_found(tmp_path: Path, suffix: str):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 8
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, suffix, exif=exif, lossless=True)
    data = file.getvalue()
    if suffix == "png":  # take the chunk out and put it before the end
        at = data.index(b"eXIf") - 4
        length = struct.unpack(">I", data[at : at + 4])[0] + 12
        chunk, data = data[at : at + length], data[:at] + data[at + length :]
        data = data[:-12] + chunk + data[-12:]
    assert len(data) > 1 << 17 and data.rindex(b"eXIf" if suffix == "png" else b"EXIF") > 1 << 16
    (tmp_path / "a").write_bytes(data)
    header = orientation.raster(str(tmp_path / "a"))
    assert header is not None and header.orientation == 8


def test_what_is_no_image_has_no_header(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for uri in (None, "", str(tmp_path / "absent.jpg"), str(tmp_path), str(tmp_path / "text.jpg"), "a\0b"):
        assert orientation.raster(uri) is None
    assert orientation.raster(str(tmp_path / "cut.png")) is None


# ---- the rule


def test_the_recorded_size_decides_and_the_tool_where_it_cannot():
    turned, half = found(6), found(3)
    assert orientation.drawn_on(turned, (32, 20)) == "upright"
    assert orientation.drawn_on(turned, (20, 32), "upright") == "raw"
    assert orientation.drawn_on(turned, (32, 20), "raw") == "upright"
    assert orientation.drawn_on(turned, (21, 32)) is None
    for rule in ("upright", "raw"):
        assert orientation.drawn_on(half, (20, 32), rule) == rule
        assert orientation.drawn_on(found(6, SQUARE), SQUARE, rule) == rule
        assert orientation.drawn_on(turned, None, rule) == rule


def test_without_an_image_annotations_are_taken_as_upright():
    drawn = Annotation(0, (1.0, 2.0, 3.0, 4.0))
    assert orientation.upright([drawn], None, (7, 9), "raw") == ((drawn,), (7, 9))
    with pytest.raises(ValueError, match=r"expected the image's size 32x20 or, upright, 20x32, found 9x7"):
        orientation.upright([drawn], found(5), (7, 9))


def labelme_file(folder: Path, box: Any, hw: tuple[int, int], data: bytes | None = None) -> str:
    entry = {"label": "a", "points": [list(box[:2]), list(box[2:])], "shape_type": "rectangle"}
    content = {"shapes": [entry], "imagePath": "a.jpg", "imageHeight": hw[0], "imageWidth": hw[1], "imageData": None}
    if data is not None:
        content["imageData"] = base64.b64encode(data).decode()
    (folder / "a.json").write_text(json.dumps(content))
    return str(folder)


def cvat_file(folder: Path, box: Any, hw: tuple[int, int]) -> str:
    sides = " ".join(f'{name}="{side}"' for name, side in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True))
    meta = "<meta><task><labels><label><name>a</name></label></labels></task></meta>"
    image = f'<image id="0" name="a.jpg" width="{hw[1]}" height="{hw[0]}"><box label="a" {sides}/></image>'
    (folder / "annotations.xml").write_text(f"<annotations>{meta}{image}</annotations>")
    return str(folder)


def via_file(folder: Path, box: Any, hw: tuple[int, int] | None) -> str:
    shape = {"name": "rect", "x": box[0], "y": box[1], "width": box[2] - box[0], "height": box[3] - box[1]}
    region = {"shape_attributes": shape, "region_attributes": {"class": "a"}}
    notes = {} if hw is None else {"rayseg_size": f"{hw[1]}x{hw[0]}"}
    entry = {"filename": "a.jpg", "size": 1, "regions": [region], "file_attributes": notes}
    (folder / "via_region_data.json").write_text(json.dumps({"a.jpg1": entry}))
    return str(folder)


FORMATS = [(labelme, labelme_file), (cvat, cvat_file), (via, via_file)]


def box_read(module: Any, uri: str, **how: Any) -> tuple[Any, Any]:
    (image,) = module.read(uri, faults=Faults(), **how).images
    return image.annotations[0].box_xyxy, image.image_hw


@pytest.mark.parametrize("turn", ORIENTATIONS)
@pytest.mark.parametrize(("module", "write"), FORMATS)
def test_both_views_of_a_rotated_photo_land_right(tmp_path: Path, module: Any, write: Any, turn: int):
    (tmp_path / "a.jpg").write_bytes(picture(*WIDE, orientation=turn))
    raw, upright = patch(WIDE), upright_pixels(patch(WIDE), turn)
    expected = (corners(upright), upright.shape)
    uri = write(tmp_path, corners(upright), upright.shape)
    assert box_read(module, uri) == expected
    uri = write(tmp_path, corners(raw), raw.shape)
    if turn >= 5:  # the size tells
        assert box_read(module, uri) == expected
    assert box_read(module, uri, drawn_on="raw") == expected


@pytest.mark.parametrize(("module", "write"), FORMATS)
def test_a_square_photo_is_taken_as_the_tool_shows_it(tmp_path: Path, module: Any, write: Any):
    (tmp_path / "a.jpg").write_bytes(picture(*SQUARE, orientation=6))
    box = corners(patch(SQUARE))
    uri = write(tmp_path, box, SQUARE)
    assert box_read(module, uri) == (box, SQUARE)
    assert box_read(module, uri, drawn_on="raw") == (corners(upright_pixels(patch(SQUARE), 6)), SQUARE)


@pytest.mark.parametrize(("module", "write"), FORMATS)
def test_a_size_of_neither_raster_is_a_fault(tmp_path: Path, module: Any, write: Any):
    (tmp_path / "a.jpg").write_bytes(picture(*WIDE, orientation=6))
    uri = write(tmp_path, (1, 2, 3, 4), (99, 32))
    with pytest.raises(BadAnnotation, match="expected the image's size 32x20 or, upright, 20x32, found 32x99"):
        list(module.read(uri, faults=Faults()).images)
    dataset = module.read(uri, faults=Faults("skip"))
    assert list(dataset.images) == [] and dataset.faults.counts == {"size": 1}


def test_via_records_no_size_and_means_what_the_browser_shows(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(picture(*WIDE, orientation=8))
    upright = upright_pixels(patch(WIDE), 8)
    assert box_read(via, via_file(tmp_path, corners(upright), None)) == (corners(upright), upright.shape)


def test_labelme_shows_embedded_bytes_as_stored(tmp_path: Path):
    for hw, turn in ((SQUARE, 6), (WIDE, 3), (WIDE, 7)):
        uri = labelme_file(tmp_path, corners(patch(hw)), hw, picture(*hw, orientation=turn))
        upright = upright_pixels(patch(hw), turn)
        assert box_read(labelme, uri) == (corners(upright), upright.shape)


def test_png_chunks_of_the_test_are_sound():
    """The chunk that the test above moves keeps its checksum."""
    data = picture(4, 4, "png", orientation=8)
    at = data.index(b"eXIf")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    assert struct.unpack(">I", data[at + 4 + length : at + 8 + length])[0] == zlib.crc32(data[at : at + 4 + length])
