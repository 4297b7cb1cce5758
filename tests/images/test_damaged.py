"""What does not decode: every kind of error, limits before decoding, truncation, bit flips, random bytes; and every
file of the collection of odd images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rayseg import images
from rayseg.errors import ImageError

RGB = Image.effect_mandelbrot((31, 23), (-2.2, -1.2, 0.9, 1.2), 90).convert("RGB").rotate(7, fillcolor=(200, 30, 90))
SIGNATURES = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"MM\0+"]
SIGNATURES += [b"RIFF\xff\0\0\0WEBPVP8X", b"\0\0\0\x1cftypavif", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"]


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def kind_of(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageError) as raised:
        images.decode(data, **limits)
    assert str(raised.value)
    return raised.value.kind


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    body = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


SAMPLES = {
    "jpeg": encode(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "jpeg restarts": encode(RGB, "JPEG", restart_marker_blocks=1),
    "jpeg progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "jpeg gray": encode(RGB.convert("L"), "JPEG"),
    "png": encode(RGB, "PNG"),
    "png palette": encode(RGB.quantize(32), "PNG", transparency=3),
    "png 16": encode(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257), "PNG"),
    "png animated": encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]),
    "webp": encode(RGB, "WEBP"),
    "webp lossless": encode(RGB.convert("RGBA"), "WEBP", lossless=True),
    "webp animated": encode(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
    "gif": encode(RGB, "GIF"),
    "gif animated": encode(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)], disposal=2),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff float": encode(RGB.convert("F"), "TIFF"),
    "avif": encode(RGB, "AVIF"),
    "jpeg2000": encode(RGB, "JPEG2000"),
    "jpeg2000 codestream": encode(RGB, "JPEG2000", no_jp2=True),
}
WHOLE = {name: images.decode(data) for name, data in SAMPLES.items()}


# Names of errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\xff", "not_an_image"),
        (b"hello, world", "not_an_image"),
        (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "not_an_image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "not_an_image"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "unsupported_format"),
        (b"8BPS\0\1" + b"\0" * 64, "unsupported_format"),
        (b"\xff\x0a" + b"\0" * 64, "unsupported_format"),
        (SAMPLES["jpeg gray"].replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"), "unsupported_format"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xd9" + b"\0" * 9, "corrupt"),
        (b"GIF89a\1\0\1\0\0\0\0;", "corrupt"),
        (png_header(0, 10), "bad_dimensions"),
        (png_header(10, 10), "truncated"),
    ],
)
def test_each_error_has_its_name(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind
    assert kind in images.ERROR_KINDS


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (Image.DecompressionBombError("could be decompression bomb DOS attack"), "too_many_pixels"),
        (EOFError(), "truncated"),
        (struct.error("unpack requires a buffer of 4 bytes"), "truncated"),
        (RecursionError("maximum recursion depth exceeded"), "corrupt"),
        (KeyError(317), "corrupt"),
        (SyntaxError("not a TIFF file"), "corrupt"),
    ],
)
def test_whatever_a_decoder_raises_becomes_an_image_error(
    raised: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoder(_: io.BytesIO) -> None:
        raise raised

    monkeypatch.setattr(images, "_plugin", lambda _: decoder)
    assert kind_of(SAMPLES["tiff"]) == kind


def test_a_png_that_fails_its_checksum_is_corrupt() -> None:
    for name in ("png", "png palette", "png 16"):
        data = bytearray(SAMPLES[name])
        data[data.index(b"IDAT") + 4 + 40] ^= 1
        assert kind_of(bytes(data)) == "corrupt"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"])
def test_pixels_are_limited_by_the_header(image_format: str) -> None:
    data = encode(Image.new("RGB", (300, 200)), image_format)
    assert images.decode(data, max_pixels=60_000).shape == (200, 300, 3)
    assert kind_of(data, max_pixels=59_999) == "too_many_pixels"
    assert kind_of(data[: -len(data) // 3], max_pixels=59_999) in ("too_many_pixels", "truncated", "corrupt")


@pytest.mark.parametrize(
    "bomb",
    [
        png_header(2**31 - 1, 2**31 - 1),
        png_header(10_001, 10_000),
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\0\x02\x11\0\x03\x11\0",
        b"GIF89a\1\0\1\0\0\0\0,\xff\xff\0\0\xff\xff\xff\xff",  # the frame reaches far beyond the screen
        b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 50_000, -50_000) + b"\0" * 28,
        b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">4I", 70_000, 70_000, 0, 0) + b"\0" * 40,
    ],
)
def test_a_bomb_is_named_before_it_is_touched(bomb: bytes) -> None:
    """None of these has a single pixel in it, so any other answer came from a decoder."""
    assert kind_of(bomb) == "too_many_pixels"


def test_jpeg2000_whose_box_hides_a_larger_codestream_is_refused() -> None:
    data = bytearray(SAMPLES["jpeg2000"])
    at = data.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">2I", data, at, 60_000, 60_000)
    assert kind_of(bytes(data)) == "too_many_pixels"
    assert kind_of(bytes(data), max_pixels=10**10) == "corrupt"


def test_bytes_are_limited() -> None:
    data = SAMPLES["png"]
    assert images.decode(data, max_bytes=len(data)).shape == (23, 31, 3)
    assert kind_of(data, max_bytes=len(data) - 1) == "too_many_bytes"


# Truncation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jpeg", "jpeg restarts", "jpeg cmyk", "jpeg gray"])
def test_a_jpeg_without_its_end_marker_is_whole(name: str) -> None:
    for missing in (1, 2):
        np.testing.assert_array_equal(images.decode(SAMPLES[name][:-missing]), WHOLE[name])
    for missing in (5, 10, 100):
        assert kind_of(SAMPLES[name][:-missing]) == "truncated"


def test_a_progressive_jpeg_without_its_end_marker_may_miss_scans() -> None:
    scans = [
        i for i in range(len(SAMPLES["jpeg progressive"])) if SAMPLES["jpeg progressive"][i:].startswith(b"\xff\xda")
    ]
    assert len(scans) > 3
    for cut in [*scans, len(SAMPLES["jpeg progressive"]) - 2]:
        assert kind_of(SAMPLES["jpeg progressive"][:cut]) == "truncated"


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_file_never_yields_other_pixels(name: str) -> None:
    """Wherever it is cut: either nothing is missing from the picture, or the error says so."""
    data = SAMPLES[name]
    cuts = {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 30, len(data))}
    for cut in sorted(cuts):
        try:
            np.testing.assert_array_equal(images.decode(data[:cut]), WHOLE[name], err_msg=f"{name}[:{cut}]")
        except ImageError as error:
            assert error.kind in ("empty", "not_an_image", "truncated", "corrupt")


def test_truncated_jpegs_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for cut in range(4, len(SAMPLES["jpeg"]), 20):
        kind_of(SAMPLES["jpeg"][:cut])
    assert capfd.readouterr().err == ""


# Any bytes at all ----------------------------------------------------------------------------------------------------


def decode_or_error(data: bytes) -> None:
    try:
        pixels = images.decode(data, max_pixels=1_000_000)
    except ImageError as error:
        assert error.kind in images.ERROR_KINDS
    else:
        assert pixels.shape == (*images.header(data).image_hw, 3)
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous


@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
@example(start=b"GIF89a", rest=b"\1\0\1\0\0\0\0!")
@example(start=b"II*\0", rest=b"\xff\xff\xff\xff")
@example(start=b"MM\0+", rest=b"\0\x08\0\0" + b"\xff" * 8)
@example(start=b"\x89PNG\r\n\x1a\n", rest=b"\xff\xff\xff\xffIHDR")
def test_random_bytes_raise_nothing_but_image_errors(start: bytes, rest: bytes) -> None:
    decode_or_error(start + rest)


@given(
    name=st.sampled_from(sorted(SAMPLES)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=5),
    early=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_flipped_bits_raise_nothing_but_image_errors(name: str, edits: list[tuple[float, int]], early: bool) -> None:
    data = bytearray(SAMPLES[name])
    for place, mask in edits:  # half of the time only near the front, where the structure is
        data[int(place * (min(len(data), 200) if early else len(data)))] ^= mask
    decode_or_error(bytes(data))


# The collection of odd images ----------------------------------------------------------------------------------------

ODD = Path(os.environ.get("RAYSEG_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "odd_images"
with_odd_images = pytest.mark.skipif(not ODD.is_dir(), reason=f"no test data at {ODD}; see RAYSEG_TEST_DATA")

SMALL, LARGE, TURNED = (107, 160), (427, 640), (160, 107)
EXPECTED: dict[str, tuple[int, int] | str] = {
    "1x1.jpg": (1, 1),
    "1x1.png": (1, 1),
    "1x5000.png": (5000, 1),
    "5000x1.png": (1, 5000),
    "UPPER.JPG": LARGE,
    "animated.gif": SMALL,
    "animated.png": SMALL,
    "animated.webp": SMALL,
    "bitflip_middle.jpg": LARGE,  # no decoder can tell: a wrong lower half
    "bomb_header_2e31.png": "too_many_pixels",
    "bomb_header_60000x60000.png": "too_many_pixels",
    "bomb_real_13000x13000_1bit.png": "too_many_pixels",
    "bomb_sof_65500x65500.jpg": "too_many_pixels",
    "bomb_warn_12000x12000.png": "too_many_pixels",
    "cmyk.jpg": LARGE,
    **{f"exif_orientation_{i}.jpg": SMALL if i < 5 else TURNED for i in range(1, 9)},
    "exif_orientation_6.png": TURNED,
    "exif_orientation_99_invalid.jpg": SMALL,
    "float32.tiff": SMALL,
    "gray.jpg": LARGE,
    "gray16.png": SMALL,
    "gray16.tiff": SMALL,
    "html_named.jpg": "not_an_image",
    "jpeg2000.jp2": SMALL,
    "jpeg_named.png": SMALL,
    "la.png": SMALL,
    "lossless_alpha.webp": SMALL,
    "lossy.webp": SMALL,
    "multipage.tiff": SMALL,
    "name with space (1) é 图.jpg": LARGE,
    "no_extension": SMALL,
    "one_byte_missing.jpg": LARGE,  # the byte is half of the end marker
    "onebit.png": SMALL,
    "palette_alpha.png": SMALL,
    "plain.avif": SMALL,
    "plain.bmp": SMALL,
    "png_bad_crc.png": "corrupt",
    "png_named.jpg": LARGE,
    "png_truncated.png": "truncated",
    "progressive.jpg": LARGE,
    "q1.jpg": LARGE,
    "rgba_gradient.png": SMALL,
    "svg_named.png": "unsupported_format",
    "trailing_garbage.jpg": LARGE,
    "truncated_half.jpg": "truncated",
    "truncated_header_only.jpg": "truncated",
    "webp_named.jpg": SMALL,
    "zero_bytes.jpg": "empty",
    "zero_bytes.png": "empty",
    "zero_width_header.png": "bad_dimensions",
}
SAME_PICTURE = sorted(  # one photo in many forms, gray ones and damaged ones aside
    name
    for name, outcome in EXPECTED.items()
    if outcome in (SMALL, LARGE) and not name.startswith(("exif", "gray", "la.", "float", "onebit", "bitflip", "q1"))
)


@with_odd_images
def test_the_table_covers_the_collection() -> None:
    assert {p.name for p in (ODD / "derived").iterdir() if p.is_file()} == set(EXPECTED)


@with_odd_images
@pytest.mark.parametrize("name", EXPECTED)
def test_odd_image(name: str) -> None:
    data, expected = (ODD / "derived" / name).read_bytes(), EXPECTED[name]
    if isinstance(expected, str):
        assert kind_of(data) == expected
    else:
        assert images.decode(data).shape == (*expected, 3)
        assert images.header(data).image_hw == expected


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((20, 20), Image.Resampling.BOX)).astype(float)


@with_odd_images
@pytest.mark.parametrize("name", SAME_PICTURE)
def test_every_form_shows_the_same_picture(name: str) -> None:
    reference = thumbnail(np.asarray(Image.open(ODD / "derived" / "plain.bmp").convert("RGB")))
    assert np.abs(thumbnail(images.decode((ODD / "derived" / name).read_bytes())) - reference).mean() < 3


@with_odd_images
@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_all_eight_orientations_show_the_same_picture(shape: str) -> None:
    files = [(ODD / "exif_orientation_all8" / f"{shape}_{i}.jpg").read_bytes() for i in range(9)]
    upright = [images.decode(data) for data in files]
    reference = thumbnail(upright[1])
    for pixels in upright:
        assert pixels.shape == ((1200, 1800, 3) if shape == "Landscape" else (1800, 1200, 3))
        assert np.abs(thumbnail(pixels) - reference).mean() < 1


@with_odd_images
def test_real_photos_equal_pillow_to_the_bit() -> None:
    photos = sorted((ODD.parent / "coco_small" / "val2017").glob("*.jpg"))[:12]
    photos += sorted((ODD.parent / "kudzu" / "val").glob("*.jpg"))[:4]
    assert len(photos) == 16
    for path in photos:
        expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        assert np.array_equal(images.decode(path.read_bytes()), expected), path.name
