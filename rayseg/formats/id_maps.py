"""Id maps as PNG: one number per pixel, 0 the background, every other number one object or one class.

How numbers stand in a PNG, when reading and writing:
- up to 8 bits: gray, or a palette's indices (the palette's colours say nothing);
- 16 bits: gray;
- more: packed into RGB as id = R + 256 G + 65536 B, as COCO's panoptic maps have it, and beyond 24 bits into RGBA with
  16777216 A. RGBA whose alpha is 255 everywhere counts as RGB, because image editors write that.
Gray of 2 and 4 bits is not stretched. Gray with alpha and RGB of 16 bits a channel hold no ids and are refused.

Size, kind and checksums are looked at before anything is allocated. H W pixels.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from rayseg.errors import ImageError
from rayseg.images.headers import header, png_chunks

MAX_PIXELS = 100_000_000
_GRAY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6  # colour types, PNG third edition, 11.2.1
_SHRINK = {2: 85, 4: 17}  # Pillow stretches gray of 2 and 4 bits to 0..255
_HEADER_BYTES = 33
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT")


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The ids of a PNG, (H, W) uint8, uint16 or uint32.

    Raises `ImageError`: for what is no PNG or of another kind than above, damaged, or of more than `max_pixels`.
    """
    declared = header(data)
    if declared.format != "png":
        raise ImageError("unsupported_format", f"expected an id map as PNG, found {declared.format}")
    if declared.width * declared.height > max_pixels:
        size = f"{declared.width}x{declared.height} pixels"
        raise ImageError("too_many_pixels", f"id map of {size}, expected at most {max_pixels:,}")
    if len(data) < _HEADER_BYTES:
        raise ImageError("truncated", f"png ends inside its header, after {len(data)} bytes")
    bits, colour_type = data[24], data[25]
    if colour_type not in (_GRAY, _RGB, _PALETTE, _RGBA) or (bits == 16 and colour_type != _GRAY):
        raise ImageError(
            "unsupported_format", f"expected an id map, found a PNG of colour type {colour_type}, {bits} bits"
        )
    _check_sums(data)
    try:
        image = PngImageFile(io.BytesIO(data))
        image.load()
        pixels = np.asarray(image)
    except Exception as error:  # Pillow raises a dozen types for damaged bytes
        raise ImageError("corrupt", f"png: {error or type(error).__name__}") from error
    if pixels.shape[:2] != (declared.height, declared.width):
        raise ImageError("corrupt", f"png declares {declared.height, declared.width}, decodes to {pixels.shape[:2]}")
    if pixels.ndim == 3:
        return _unpacked(pixels)
    if colour_type == _GRAY and bits in _SHRINK:
        return pixels // np.uint8(_SHRINK[bits])
    return pixels.astype(np.uint16 if bits == 16 else np.uint8)


def gray(ids: np.ndarray, *, least_bits: int = 8) -> bytes:
    """The PNG of an id map (H, W) of integers >= 0, in the fewest bits that hold it, 16 for `least_bits` above 8.

    Raises `ValueError` above 32 bits.
    """
    most = int(ids.max(initial=0))
    if most >= 1 << 32 or int(ids.min(initial=0)) < 0:
        raise ValueError(f"ids must be 0 to {(1 << 32) - 1}, found {int(ids.min(initial=0))} to {most}")
    if most < 1 << 16:
        kind = np.uint8 if most < 256 and least_bits <= 8 else np.uint16
        return _png(Image.fromarray(np.ascontiguousarray(ids, kind)))
    packed = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)
    return _png(Image.fromarray(packed if most >= 1 << 24 else np.ascontiguousarray(packed[..., :3])))


def indexed(ids: np.ndarray, colours: np.ndarray) -> bytes:
    """The palette PNG of an id map (H, W) of 0..255 with `colours` (256, 3) uint8."""
    image = Image.fromarray(np.ascontiguousarray(ids, np.uint8)).convert("L")
    image.putpalette(np.ascontiguousarray(colours, np.uint8).tobytes())
    return _png(image)


def binary(mask: np.ndarray) -> bytes:
    """The 1-bit PNG of a mask (H, W), white where it is not 0."""
    return _png(Image.fromarray(np.ascontiguousarray(mask != 0)))


def colour_map() -> np.ndarray:
    """VOC's 256 colours, (256, 3) uint8: an index's bits dealt in turn to red, green, blue, highest bits first.

    As the VOC development kit's `VOClabelcolormap` makes them: 0 black, 1 dark red, 255 the cream of void.
    """
    index, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * level + channel) & 1) << (7 - level)).astype(np.uint8)
    return colours


def _unpacked(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3 or 4) uint8 to (H, W) uint32."""
    wide = pixels.astype(np.uint32)
    ids = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
    if pixels.shape[2] == 4 and not (pixels[..., 3] == 255).all():
        ids |= wide[..., 3] << 24
    return ids


def _check_sums(data: bytes) -> None:
    """Pillow does not check the pixels' checksums."""
    for kind, start, end in png_chunks(data):
        if kind in _PIXEL_CHUNKS:
            if end + 4 > len(data):
                raise ImageError("truncated", f"png ends after {len(data):,} bytes, inside {kind.decode()}")
            (expected,) = struct.unpack_from(">I", data, end)
            if zlib.crc32(memoryview(data)[start - 4 : end]) != expected:
                raise ImageError("corrupt", f"png chunk {kind.decode()} at byte {start - 8} fails its checksum")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
