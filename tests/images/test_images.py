"""What decodes, and to which pixels: formats, orientations, colour modes, against Pillow and known arrays."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rayseg import images
from rayseg.errors import ImageError

H, W = 37, 53
ORIENTATION = 274


def encode(image: Image.Image, image_format: str, orientation: int | None = None, **options) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def photo(h: int = H, w: int = W) -> np.ndarray:
    """(H, W, 3) with gradients, edges, noise and no symmetry."""
    y, x = np.mgrid[:h, :w]
    smooth = np.stack([255 * x / w, 255 * y / h, 127 + 127 * np.sin(x / 5 + y / 9)], axis=-1)
    smooth[h // 5 : h // 3, w // 8 : w // 2] = (250, 20, 40)
    return (smooth + np.random.default_rng(0).normal(0, 9, (h, w, 3))).clip(0, 255).astype(np.uint8)


PHOTO = photo()
RGB = Image.fromarray(PHOTO)
LOSSLESS = [
    ("PNG", {}),
    ("PNG", {"interlace": 1}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"big_tiff": True}),
    ("BMP", {}),
    ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
]


@pytest.mark.parametrize(("image_format", "options"), LOSSLESS)
def test_lossless_formats_return_the_very_pixels(image_format: str, options: dict) -> None:
    data = encode(RGB, image_format, **options)
    pixels = images.decode(data)
    np.testing.assert_array_equal(pixels, PHOTO)
    assert images.header(data) == (image_format.lower(), W, H, 1)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "keep_rgb"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [1, 75, 100])
def test_jpeg_equals_pillow_to_the_bit(mode: str, progressive: bool, quality: int) -> None:
    for subsampling in (0,) if mode == "keep_rgb" else (0, 1, 2):
        options = {"keep_rgb": True} if mode == "keep_rgb" else {}
        image = RGB if mode == "keep_rgb" else RGB.convert(mode)
        data = encode(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, **options)
        np.testing.assert_array_equal(images.decode(data), pillow(data))


def test_without_torchvisions_decoder_pillow_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encode(RGB, "JPEG", orientation) for orientation in (1, 6)]
    files += [encode(RGB.convert(mode), "JPEG", progressive=True) for mode in ("L", "CMYK")]
    files += [data[:-1] for data in files[:2]]
    fast = [images.decode(data) for data in files]
    monkeypatch.setattr(images, "_torchvision_jpeg", lambda: None)
    for data, expected in zip(files, fast, strict=True):
        np.testing.assert_array_equal(images.decode(data), expected)
    with pytest.raises(ImageError, match="before its last pixel"):
        images.decode(files[0][:-100])


@given(h=st.integers(1, 40), w=st.integers(1, 40), seed=st.integers(0, 99), orientation=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_jpeg_of_any_size_and_orientation_equals_pillow(h: int, w: int, seed: int, orientation: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", orientation)
    np.testing.assert_array_equal(images.decode(data), pillow(data))


@pytest.mark.parametrize(("image_format", "options"), [("WEBP", {}), ("AVIF", {}), ("GIF", {})])
def test_lossy_formats_equal_pillow(image_format: str, options: dict) -> None:
    data = encode(RGB, image_format, **options)
    np.testing.assert_array_equal(images.decode(data), pillow(data))
    assert images.header(data) == (image_format.lower(), W, H, 1)


# Orientation ---------------------------------------------------------------------------------------------------------

STORED = {  # how a camera stores the upright picture under each orientation (CIPA DC-008, 4.6.4, table of rows/columns)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 5),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"big_tiff": True}, 0),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 5),
    ],
)
def test_every_orientation_comes_out_upright(
    image_format: str, options: dict, tolerance: int, orientation: int
) -> None:
    stored = np.ascontiguousarray(STORED[orientation](PHOTO))
    data = encode(Image.fromarray(stored), image_format, orientation, **options)
    pixels, declared = images.decode(data), images.header(data)
    assert pixels.shape == PHOTO.shape and pixels.flags.c_contiguous and pixels.flags.writeable
    assert np.abs(pixels.astype(int) - PHOTO).max() <= tolerance
    assert (declared.width, declared.height) == stored.shape[1::-1]
    assert declared.image_hw == (H, W) and declared.orientation == orientation


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_invalid_orientations_are_ignored(image_format: str, orientation: int) -> None:
    data = encode(RGB, image_format, orientation)
    assert images.header(data).orientation == 1
    assert images.decode(data).shape == PHOTO.shape


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 90]
)
def test_damaged_exif_counts_as_upright(exif: bytes) -> None:
    assert images.decode(encode(RGB, "JPEG", exif=exif)).shape == PHOTO.shape


def test_large_images_turn_like_small_ones() -> None:
    tall = photo(300, 411)  # several tiles in each direction, none of them whole at the border
    for orientation, store in STORED.items():
        data = encode(Image.fromarray(np.ascontiguousarray(store(tall))), "BMP")
        png = encode(Image.open(io.BytesIO(data)), "PNG", orientation)
        np.testing.assert_array_equal(images.decode(png), tall)


# Colour --------------------------------------------------------------------------------------------------------------


def test_alpha_is_dropped_and_the_colour_beneath_kept() -> None:
    alpha = Image.linear_gradient("L").resize((W, H))
    rgba = RGB.copy()
    rgba.putalpha(alpha)
    for data in (encode(rgba, "PNG"), encode(rgba, "TIFF"), encode(rgba, "WEBP", lossless=True, exact=True)):
        np.testing.assert_array_equal(images.decode(data), PHOTO)


def cv2_rgb(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


def test_gray_alpha_and_one_bit_repeat_their_gray() -> None:
    gray = np.asarray(RGB.convert("L"))
    with_alpha = Image.merge("LA", (RGB.convert("L"), Image.linear_gradient("L").resize((W, H))))
    for image in (RGB.convert("L"), with_alpha):
        np.testing.assert_array_equal(images.decode(encode(image, "PNG")), np.repeat(gray[..., None], 3, -1))
    bits = gray > 127
    for image_format in ("PNG", "TIFF", "BMP"):
        pixels = images.decode(encode(Image.fromarray(bits), image_format))
        np.testing.assert_array_equal(pixels, np.repeat(bits[..., None] * np.uint8(255), 3, -1))


@pytest.mark.parametrize(
    ("image_format", "transparency"), [("PNG", None), ("PNG", 3), ("PNG", bytes(range(64))), ("GIF", None), ("GIF", 3)]
)
def test_palettes_give_their_colours(image_format: str, transparency: int | bytes | None) -> None:
    palette_image = RGB.quantize(64)
    expected = np.array(palette_image.convert("RGB"))
    data = encode(palette_image, image_format, transparency=transparency)
    np.testing.assert_array_equal(images.decode(data), expected)


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
    expected = np.repeat((values // 256).astype(np.uint8)[..., None], 3, -1)
    for data in (encode(Image.fromarray(values), "PNG"), encode(Image.fromarray(values), "TIFF")):
        np.testing.assert_array_equal(images.decode(data), expected)
        np.testing.assert_array_equal(images.decode(data), cv2_rgb(data))
    ok, colour = cv2.imencode(".png", np.stack([values, values[::-1], values[:, ::-1]], axis=-1))
    assert ok
    np.testing.assert_array_equal(images.decode(colour.tobytes()), cv2_rgb(colour.tobytes()))
    ok, big_endian = cv2.imencode(".tiff", values)
    assert ok
    np.testing.assert_array_equal(images.decode(big_endian.tobytes()), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0.0, 1.0, 128.4, 255.0], [0, 1, 128, 255]),
        ([-10.0, 0.0, 10.0, 30.0], [0, 64, 128, 255]),
        ([0.0, 30000.0, 45000.0, 60000.0], [0, 128, 191, 255]),
        ([np.nan, 0.0, 0.5, 1.0], [0, 0, 128, 255]),
        ([-np.inf, 0.0, 1.0, np.inf], [0, 0, 255, 255]),
        ([np.nan] * 4, [0] * 4),
        ([7000.0] * 4, [0] * 4),
    ],
)
def test_float_gray_is_brought_to_eight_bits(values: list[float], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert images.decode(data)[0].tolist() == [[v] * 3 for v in expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 255], [0, 1, 2, 255]),
        ([-100, 0, 110, 300], [0, 64, 134, 255]),
        ([-(2**31), 0, 2**30, 2**31 - 1], [0, 128, 191, 255]),
    ],
)
def test_integer_gray_is_brought_to_eight_bits(values: list[int], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert images.decode(data)[0].tolist() == [[v] * 3 for v in expected]


def test_cmyk_looks_like_the_picture() -> None:
    jpeg = images.decode(encode(RGB.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(jpeg.astype(int) - PHOTO).max() <= 4
    np.testing.assert_array_equal(images.decode(encode(RGB.convert("CMYK"), "TIFF")), PHOTO)


@pytest.mark.parametrize(
    ("image_format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_the_first_frame_counts(image_format: str, options: dict) -> None:
    frames = [RGB, RGB.transpose(Image.Transpose.ROTATE_180), Image.new("RGB", RGB.size)]
    animated = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(images.decode(animated), images.decode(encode(RGB, image_format, **options)))


# As part of a program ------------------------------------------------------------------------------------------------


def test_threads_agree_with_one_thread() -> None:
    files = [encode(RGB, "JPEG", orientation) for orientation in range(1, 9)] * 4
    files += [encode(RGB, f) for f in ("PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000")] * 4
    files += [encode(RGB, "JPEG")[:-1]] * 4
    alone = [images.decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(images.decode, files), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_is_printed_for_images_that_decode(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for data in (
        encode(RGB.quantize(64), "PNG", transparency=bytes(range(64))),
        encode(RGB, "TIFF", 6),
        encode(RGB, "JPEG")[:-2],
        encode(RGB, "JPEG") + b"trailing bytes",
        encode(RGB.convert("L"), "PNG", transparency=7),
    ):
        images.decode(data)
    assert capfd.readouterr().err == ""
    assert not recwarn.list


def test_importing_is_cheap_and_headers_need_no_decoder() -> None:
    code = (
        "import sys, rayseg.images as i; i.header(bytes.fromhex(sys.argv[1]));"
        "assert not {'torch', 'torchvision', 'PIL', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, encode(RGB, "JPEG").hex()], check=True, timeout=60)
