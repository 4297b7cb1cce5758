"""What an image file says about itself: its format, its size as stored, its EXIF orientation. No pixel is decoded.

The first bytes decide the format, never a name. Each format's reader walks just far enough to find the size, because
what a decoder allocates must be known before a decoder is asked. References: ITU T.81 annex B (JPEG), PNG third
edition, RFC 9649 (WebP), GIF89a, TIFF 6.0 with BigTIFF, CIPA DC-008 (EXIF), T.800 annex A.5.1 (JPEG 2000).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rayseg.errors import ImageError

IMAGE_WIDTH, IMAGE_HEIGHT, ORIENTATION = 256, 257, 274  # TIFF tags; the last is EXIF's as well

_FOREIGN = (  # (signature, what it is), recognised so that the error can name it
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# JPEG markers, the second byte
_APP1, _SOS, _EOI = 0xE1, 0xDA, 0xD9
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # no length follows: stuffing, TEM, RST0-7, SOI
_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG, DAC
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_SCALAR_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF field types that hold a size or an orientation
_BMP_INFO_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_MAX_IFD_ENTRIES = 4096


class Header(NamedTuple):
    """What the bytes declare.

    format       one of `rayseg.images.FORMATS`
    width        pixels, as stored, before the orientation is applied
    height       likewise
    orientation  EXIF orientation 1..8 (1 is upright; also where none or an invalid one is given)
    """

    format: str
    width: int
    height: int
    orientation: int

    @property
    def image_hw(self) -> tuple[int, int]:
        """(H, W) of the upright image, the shape `rayseg.images.decode` returns."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def header(data: bytes) -> Header:
    """Format, size as stored and EXIF orientation of an encoded image, read without decoding it.

    Raises ImageError of kind empty, not_an_image, unsupported_format, truncated, corrupt or bad_dimensions.
    """
    image_format = _sniff(data)
    try:
        width, height, orientation = _READERS[image_format](data)
    except (struct.error, IndexError, OverflowError) as error:  # an offset may even be too large for an index
        raise ImageError("truncated", f"{image_format} ends inside its header, after {len(data)} bytes") from error
    if min(width, height) < 1:
        raise ImageError("bad_dimensions", f"{image_format} of {width}x{height} pixels, expected at least 1x1")
    return Header(image_format, width, height, orientation if 1 <= orientation <= 8 else 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk's content in a PNG; the last `end` may lie past the end of `data`."""
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, at + 8 + size
        at += size + 12


def jpeg_is_single_scan(data: bytes) -> bool:
    """Whether one scan holds all there is of a JPEG: sequential, with all its components interleaved."""
    frame, components = 0, 0
    for marker, start, _ in _jpeg_segments(data):
        if marker in _FRAME_HEADERS:
            frame, components = marker, data[start + 5]
        elif marker == _SOS:
            return frame not in _PROGRESSIVE and data[start] == components
    return False


def jpeg2000_has_end(data: bytes) -> bool:
    """Whether the codestream has its end marker, a pair of bytes that packets cannot contain (T.800 annex A.2)."""
    return data.find(b"\xff\xd9", data.find(_J2K_START)) >= 0


def riff_size(data: bytes) -> int:
    """How many bytes a WebP file declares to have."""
    return struct.unpack_from("<I", data, 4)[0] + 8


def _sniff(data: bytes) -> str:
    if not data:
        raise ImageError("empty", "0 bytes, expected an image")
    for signature, image_format in _SIGNATURES:
        if data.startswith(signature):
            return image_format
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _sniff_heif(data)
    raise _foreign(data)


def _sniff_heif(data: bytes) -> str:
    brands = {data[i : i + 4] for i in (8, *range(16, min(int.from_bytes(data[:4], "big"), 128), 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & _HEIF_BRANDS:
        raise ImageError("unsupported_format", "a HEIC image; convert it to JPEG or PNG")
    raise ImageError("not_an_image", f"an ISO media file of brand {data[8:12]!r}, expected an image")


def _foreign(data: bytes) -> ImageError:
    for signature, name in _FOREIGN:
        if data.startswith(signature):
            return ImageError("unsupported_format", f"{name}; convert it to JPEG or PNG")
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return ImageError("unsupported_format", "an SVG drawing has no pixels; render it to PNG")
    if start.startswith((b"<!doctype html", b"<html")):
        return ImageError("not_an_image", "an HTML page, perhaps an error page saved in the image's place")
    return ImageError("not_an_image", f"no known image starts with {data[:12]!r}")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's content up to the first scan header, that one included."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            (size,) = struct.unpack_from(">H", data, at + 2)
            yield marker, at + 4, at + 2 + size
            at += 2 + max(size, 2)
            if marker in (_SOS, _EOI):
                return
    raise IndexError("no scan header")


def _jpeg(data: bytes) -> tuple[int, int, int]:
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, start + 1)
            return width, height, orientation
        if marker == _APP1 and data[start : start + 4] == b"Exif":
            orientation = _exif_orientation(data[start:end])
    raise ImageError("corrupt", "jpeg without a frame header before its pixels")


def _png(data: bytes) -> tuple[int, int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise ImageError("corrupt", f"png starts with a chunk {kind!r}, expected IHDR")
    exif = next((data[start:end] for kind, start, end in png_chunks(data) if kind == b"eXIf"), b"")
    return width, height, _exif_orientation(exif)


def _webp(data: bytes) -> tuple[int, int, int]:
    if len(data) < 30:
        raise IndexError("shorter than any header")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1
        return width, height, _exif_orientation(_riff_chunk(data, b"EXIF"))
    raise ImageError("corrupt", f"webp starts with a chunk {kind!r}, expected VP8, VP8L or VP8X")


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == wanted:
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return b""


def _gif(data: bytes) -> tuple[int, int, int]:
    """The logical screen, grown to hold the first frame where that reaches beyond it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] != 0x2C:  # image descriptor
        if data[at] == 0x3B:
            raise ImageError("corrupt", "gif without a frame")
        if data[at] == 0x21:  # extension: a label, then blocks led by their length up to an empty one
            at += 2
            while data[at]:
                at += data[at] + 1
        at += 1
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height), 1


def _bmp(data: bytes) -> tuple[int, int, int]:
    (info_size,) = struct.unpack_from("<I", data, 14)
    if info_size not in _BMP_INFO_SIZES:
        raise ImageError("corrupt", f"bmp with an info header of {info_size} bytes, which no version has")
    width, height = struct.unpack_from("<HH" if info_size == 12 else "<ii", data, 18)
    return width, abs(height), 1  # a negative height stores the rows from the top down


def _tiff(data: bytes) -> tuple[int, int, int]:
    """The first page."""
    tags = _ifd_scalars(data)
    if not {IMAGE_WIDTH, IMAGE_HEIGHT} <= tags.keys():
        raise ImageError("corrupt", "tiff whose first directory gives no ImageWidth and ImageLength")
    return tags[IMAGE_WIDTH], tags[IMAGE_HEIGHT], tags.get(ORIENTATION, 1)


def _jpeg2000(data: bytes) -> tuple[int, int, int]:
    at = data.find(_J2K_START)  # also what counts inside a JP2 box
    if at < 0:
        raise IndexError("no codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    return right - left, bottom - top, 1


def _avif(data: bytes) -> tuple[int, int, int]:
    """Asked of libavif: its boxes nest deeply, and opening one neither decodes nor allocates pixels.

    Its orientation is that of the container's rotation and mirror, which rule over EXIF's (ISO/IEC 23008-12).
    """
    from PIL.AvifImagePlugin import AvifImageFile

    try:
        image = AvifImageFile(io.BytesIO(data))
        return *image.size, image.getexif().get(ORIENTATION, 1)
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(kind, f"avif: {error}") from error


def _exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 where there is none, or the block is damaged."""
    try:
        return _ifd_scalars(exif[6:] if exif.startswith(b"Exif") else exif).get(ORIENTATION, 1)
    except (struct.error, OverflowError):
        return 1


def _ifd_scalars(tiff: bytes) -> dict[int, int]:
    """Tag to value for the sizes and the orientation in a TIFF's (or EXIF block's) first directory."""
    order = ">" if tiff[:2] == b"MM" else "<"
    big = struct.unpack_from(order + "H", tiff, 2)[0] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), tiff, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), tiff, at)
    first, stride, value_at = (at + 8, 20, 12) if big else (at + 2, 12, 8)
    scalars = {}
    for entry in range(first, first + stride * min(count, _MAX_IFD_ENTRIES), stride):
        tag, field_type = struct.unpack_from(order + "HH", tiff, entry)
        if tag in (IMAGE_WIDTH, IMAGE_HEIGHT, ORIENTATION) and field_type in _SCALAR_CODES:
            (scalars[tag],) = struct.unpack_from(order + _SCALAR_CODES[field_type], tiff, entry + value_at)
    return scalars


_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (_J2K_START, "jpeg2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
)
_READERS: dict[str, Callable[[bytes], tuple[int, int, int]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "avif": _avif,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "jpeg2000": _jpeg2000,
}
FORMATS = tuple(_READERS)
