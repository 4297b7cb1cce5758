"""Bytes of an image file to an upright RGB array, or an ImageError that names what is wrong with them.

    header(data)                          format, size and EXIF orientation; decodes nothing
    decode(data, max_pixels, max_bytes)   (H, W, 3) uint8

JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and JPEG 2000, told apart by content. JPEG goes through torchvision, which has
libjpeg-turbo write straight into the (H, W, 3) array (`tests/bench/images.py` measures what that saves), all else
through Pillow; for JPEG the two agree to the bit. Both release the GIL while they decode, and no setting of theirs is
changed. torch is loaded by the first JPEG.

The rules, chosen so that a model sees what Pillow's `exif_transpose(...).convert("RGB")` showed it in training, where
that has an answer (it clips 16-bit and float images to white):
- EXIF orientation is applied in every format that carries it; values outside 1..8 count as 1. In AVIF the container's
  own rotation and mirror rule instead. Orientation in XMP is not read.
- Alpha is dropped, not composited: the colour stored under transparent pixels is what comes out.
- The first frame or page counts. Colour profiles are not applied. CMYK is converted without a profile, JPEG's taken as
  Adobe's inverted kind.
- 16-bit channels keep their high byte. 32-bit integer and float gray: values within 0..1 (float only) are scaled by
  255, within 0..255 kept, all others stretched from their finite minimum..maximum to 0..255; NaN becomes 0, infinities
  the nearer end.

What counts as damaged: pixels that are missing ("truncated") and data that contradict themselves ("corrupt"). A JPEG,
PNG or GIF whose pixels are complete decodes even if its end marker is cut off. PNG carries checksums, and a PNG that
fails one is corrupt. JPEG has none: a flipped bit that still decodes goes unnoticed, as in every common decoder. Of
damaged files libjpeg and libtiff may print a line to stderr, which cannot be turned off per call.
"""

from __future__ import annotations

import functools
import importlib
import io
import logging
import re
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rayseg.errors import ImageError
from rayseg.images.headers import FORMATS, Header, header, jpeg2000_has_end, jpeg_is_single_scan, png_chunks, riff_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from torch import Tensor

__all__ = ["ERROR_KINDS", "FORMATS", "Header", "decode", "header"]

ERROR_KINDS = {
    "empty": "there are no bytes",
    "not_an_image": "the first bytes are of no image format",
    "unsupported_format": "a known format, or a variant of one, that is not decoded",
    "truncated": "the data end before the pixels do",
    "corrupt": "the data contradict themselves or a checksum",
    "bad_dimensions": "a side of zero or negative length",
    "too_many_pixels": "more than `max_pixels` by the header; nothing was decoded",
    "too_many_bytes": "an encoded file larger than `max_bytes`; nothing was decoded",
    "out_of_memory": "the machine had no memory for the pixels",
}

_PLUGINS = {
    "jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "png": ("PIL.PngImagePlugin", "PngImageFile"),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "jpeg2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT")
_SYMPTOMS = (  # words in a decoder's message, and what they say about the bytes
    ("truncated", ("truncated", "incomplete", "end of file", "requires a buffer", "out of range")),
    ("unsupported_format", ("unsupported", "not supported", "not installed", "unknown pixel mode", "unknown mode")),
    ("too_many_pixels", ("decompression bomb",)),  # Pillow's own limit, which GIF and TIFF meet beyond 178 M pixels
    ("out_of_memory", ("out of memory", "allocate memory")),
)
_SPEAKING = (OSError, RuntimeError, SyntaxError, ValueError)  # decoders raise these with a sentence
_MODE_RGB = 3  # torchvision.io.ImageReadMode.RGB
_SOURCE_LINE = re.compile(r"^decode_jpeg, \S+:\d+, ")  # what torchvision puts before libjpeg's message
_END_OF_IMAGE = b"\xff\xd9"
_MORE_SCAN = b"\xaa\x5b\x36\xd5" * 64  # entropy-coded data of no particular meaning, without markers
_TILE = 128  # pixels: source and target tile fit the L2 cache together


def decode(data: bytes, *, max_pixels: int = 100_000_000, max_bytes: int = 256 << 20) -> np.ndarray:
    """The upright image, (H, W, 3) uint8 RGB, C-contiguous and writable, by the rules at the top of this file.

    max_pixels  most pixels the header may declare; checked before anything is allocated
    max_bytes   most bytes of `data`, the encoded file

    Raises ImageError, whatever the bytes; its `kind` is one of ERROR_KINDS.
    """
    if len(data) > max_bytes:
        raise ImageError("too_many_bytes", f"{len(data):,} bytes, expected at most max_bytes={max_bytes:,}")
    declared = header(data)
    if declared.width * declared.height > max_pixels:
        size = f"{declared.width}x{declared.height} pixels"
        raise ImageError("too_many_pixels", f"{declared.format} of {size}, expected at most max_pixels={max_pixels:,}")
    try:
        pixels = _decode_jpeg(data, declared) if declared.format == "jpeg" else _decode_pillow(data, declared)
    except ImageError:
        raise
    except Exception as error:  # decoders raise a dozen types for damaged bytes
        raise _named(declared.format, error) from error
    if pixels.shape[:2] != declared.image_hw:
        raise ImageError("corrupt", f"{declared.format} declares {declared.image_hw} and decodes to {pixels.shape[:2]}")
    return pixels


def _decode_jpeg(data: bytes, declared: Header) -> np.ndarray:
    operator = _torchvision_jpeg()
    try:
        if operator is None:
            return _decode_pillow(data, declared)
        planes = operator(_tensor(data), _MODE_RGB, False)  # (3, H, W), a view of (H, W, 3) memory
    except (RuntimeError, OSError) as error:
        if "truncated" not in str(error):
            raise
        return _decode_jpeg_without_end(data, declared)
    return _upright(planes.permute(1, 2, 0).numpy(), declared.orientation)


@functools.cache
def _torchvision_jpeg() -> Callable[[Tensor, int, bool], Tensor] | None:
    """torchvision's JPEG decoder, or None where this torchvision has none: Pillow gives the same pixels, slower.

    The operator, not its wrapper in torchvision.io, which since 0.29 warns on every call that both will be removed.
    """
    try:
        import torch
        import torchvision.io  # noqa: F401  registers the operator

        return torch.ops.image.decode_jpeg
    except (ImportError, AttributeError):
        return None


def _tensor(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # a copy, because torch warns of read-only memory


def _decode_jpeg_without_end(data: bytes, declared: Header) -> np.ndarray:
    """The pixels of a JPEG that lacks no more than its end marker; Pillow decodes it, which prints no complaints.

    A scan is complete exactly if it does not matter how the file goes on: two continuations must agree. Of a
    progressive file nobody can tell whether more scans were to come.
    """
    scan = data.rstrip(b"\xff")
    if jpeg_is_single_scan(scan):
        pixels = _decode_pillow(scan + _END_OF_IMAGE, declared)
        if np.array_equal(pixels, _decode_pillow(scan + _MORE_SCAN + _END_OF_IMAGE, declared)):
            return pixels
    raise ImageError("truncated", f"jpeg ends after {len(data):,} bytes, before its last pixel")


def _decode_pillow(data: bytes, declared: Header) -> np.ndarray:
    _check_whole(data, declared.format)
    image = _plugin(declared.format)(io.BytesIO(data))
    if sorted(image.size) != sorted(declared.image_hw):  # before it allocates; TIFF's size may be upright already
        raise ImageError("corrupt", f"{declared.format} declares {declared.image_hw}, its decoder finds {image.size}")
    image.load()
    upright_already = declared.format == "tiff"  # the one format that Pillow turns when it loads
    return _upright(_rgb(image), 1 if upright_already else declared.orientation)


@functools.cache
def _plugin(image_format: str) -> Any:
    """Pillow's reader of one format.

    Called directly, because `Image.open` would guess formats again and warn of, or refuse, sizes that `max_pixels`
    allows. Pillow's warnings and log lines of metadata that rayseg does not read would fill a job's log: off.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Tiff|Png)ImagePlugin")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    module, name = _PLUGINS[image_format]
    return getattr(importlib.import_module(module), name)


def _check_whole(data: bytes, image_format: str) -> None:
    """What the decoders leave unchecked, or report without saying what it is."""
    if image_format == "png":
        for kind, start, end in png_chunks(data):
            if kind in _PIXEL_CHUNKS and end + 4 <= len(data):
                (expected,) = struct.unpack_from(">I", data, end)
                if zlib.crc32(memoryview(data)[start - 4 : end]) != expected:
                    raise ImageError("corrupt", f"png chunk {kind.decode()} at byte {start - 8} fails its checksum")
    elif image_format == "webp" and riff_size(data) > len(data):
        raise ImageError("truncated", f"webp of {riff_size(data):,} bytes ends after {len(data):,}")
    elif image_format == "jpeg2000" and not jpeg2000_has_end(data):
        raise ImageError("truncated", f"jpeg2000 has no end of codestream in its {len(data):,} bytes")


def _rgb(image: Image) -> np.ndarray:
    """(H, W, 3) uint8 of a loaded image of any of Pillow's modes."""
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
    elif image.mode in ("I", "F"):
        gray = _eight_bit(np.asarray(image))
    else:
        image.info.pop("transparency", None)  # of no use without alpha, and Pillow warns of some kinds
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return np.repeat(gray[:, :, None], 3, axis=2)


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of int32 or float32 values, by the rule at the top of this file."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    real = values.astype(np.result_type(values, np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        if low >= 0 and high <= 1 and values.dtype.kind == "f":
            real *= 255
        elif low < 0 or high > 255:
            real -= low
            real *= 255 / (high - low or 1)
    return np.nan_to_num(real, nan=0, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation undone, (H, W, 3) to C-contiguous (H, W, 3) or (W, H, 3); CIPA DC-008 section 4.6.4."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return _contiguous(np.flip(pixels, flips))


def _contiguous(view: np.ndarray) -> np.ndarray:
    """A C-contiguous copy of (H, W, 3), tile by tile and plane by plane: 3 to 4 times as fast as numpy's own."""
    copy = np.empty(view.shape, view.dtype)
    for y in range(0, view.shape[0], _TILE):
        for x in range(0, view.shape[1], _TILE):
            tile = np.s_[y : y + _TILE, x : x + _TILE]
            for channel in range(3):
                copy[tile][..., channel] = view[tile][..., channel]
    return copy


def _named(image_format: str, error: Exception) -> ImageError:
    """The ImageError for whatever a decoder raised."""
    message = _SOURCE_LINE.sub("", str(error)).partition("\n")[0]
    if not message or not isinstance(error, _SPEAKING):
        message = f"{type(error).__name__} {message}".rstrip()
    words = message.lower()
    kind = next((kind for kind, symptoms in _SYMPTOMS if any(s in words for s in symptoms)), "corrupt")
    if isinstance(error, MemoryError):
        kind = "out_of_memory"
    elif isinstance(error, (EOFError, IndexError, struct.error)):
        kind = "truncated"
    return ImageError(kind, f"{image_format}: {message}")
