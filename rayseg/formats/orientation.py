"""Which raster annotations were drawn on, and turning them from one to the other.

A photo whose EXIF orientation is not 1 has two rasters: the *raw* one as stored, and the *upright* one that viewers show.
The record speaks of the upright one; files of annotations may mean either. One rule decides, first to last:

1. who reads may say so (`rule` with no size to contradict it, the readers' `drawn_on`);
2. where the file records the image's size, the raster of that size was used. Orientations 5 to 8 swap the sides, so the
   size tells the two apart unless the image is square. A size of neither raster is a fault of the file;
3. else what the tool shows decides:

| format | tool's rule | why |
|---|---|---|
| labelme | upright; raw for embedded `imageData` | its loader applies EXIF to the file, but shows embedded bytes as stored |
| cvat | upright | it turns images on upload (since 2.1, pull request 4529) and records the size as shown |
| via | upright | it shows what the browser shows: `image-orientation: from-image`, the default since 2020 |
| coco, voc, yolo and all others | upright | what common loaders give: OpenCV's `imread`, ultralytics, this package |

rayseg writes upright coordinates and upright sizes, so what it writes reads back by the same rule; only beside an image that
labelme embeds they are those of the raw raster, as labelme shows that.

In numbers, for a raw raster of W x H pixels (continuous coordinates, TIFF 6.0 and CIPA DC-008 tag 274): orientation 2
mirrors left and right, 3 turns by 180 degrees, 4 mirrors top and bottom, 5 transposes, 6 is to be turned clockwise, 7 is
transposed along the other diagonal, 8 is to be turned counter-clockwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from rayseg import storage
from rayseg.annotations import Annotation, Box, Ellipse, Points, Polygons, Polyline, Shape
from rayseg.errors import ImageError, StorageError
from rayseg.formats.crops import crop_of, mask_of
from rayseg.images.headers import Header, header

Raster = Literal["upright", "raw"]

_PREFIX_BYTES = 1 << 16
_MAX_BYTES = 1 << 30
_WEBP_HAS_EXIF = 0x08  # VP8X flags, RFC 9649 section 2.7

# orientation: (sides swapped, x runs backwards, y runs backwards), applied to raw coordinates in this order:
# mirror along raw x and y as said, then swap x and y
_MOVES = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def raster(uri: str | None) -> Header | None:
    """The header of the image at `uri`, read from its first bytes; None where it is missing or no readable image.

    The whole file is read only where its orientation may stand at its end (PNG, some WebP, AVIF and TIFF).
    Raises the StorageError of a store that cannot be asked at present, as that says nothing about the image.
    """
    if not uri or "\0" in uri:
        return None
    try:
        start = storage.read_range(uri, 0, _PREFIX_BYTES)
        if len(start) < _PREFIX_BYTES or not _needs_all(start):
            return header(start)
        return header(storage.read(uri, max_bytes=_MAX_BYTES))
    except StorageError as error:
        if storage.is_transient(error):
            raise
        return None
    except ImageError:
        return None


def drawn_on(found: Header, recorded_hw: tuple[int, int] | None, rule: Raster = "upright") -> Raster | None:
    """The raster that annotations beside a recorded size (H, W) were drawn on; None where that is the size of neither.

    `rule` decides where both fit, and where no size is recorded.
    """
    raw_hw = (found.height, found.width)
    if recorded_hw is None or recorded_hw == raw_hw == found.image_hw:
        return rule
    if recorded_hw == found.image_hw:
        return "upright"
    return "raw" if recorded_hw == raw_hw else None


def upright(
    annotations: Iterable[Annotation],
    found: Header | None,
    recorded_hw: tuple[int, int] | None = None,
    rule: Raster = "upright",
) -> tuple[tuple[Annotation, ...], tuple[int, int] | None]:
    """Annotations as a file has them, turned upright where they were drawn on the raw raster; and the upright (H, W).

    Without a header they are taken to be upright and of the recorded size. Raises ValueError, saying both sizes, where
    the recorded one is that of neither raster.
    """
    if found is None:
        return tuple(annotations), recorded_hw
    used = drawn_on(found, recorded_hw, rule)
    if used is None:
        expected = f"{found.width}x{found.height}"
        if found.orientation >= 5:
            expected += f" or, upright, {found.height}x{found.width}"
        assert recorded_hw is not None
        raise ValueError(f"expected the image's size {expected}, found {recorded_hw[1]}x{recorded_hw[0]}")
    if used == "raw":
        return tuple(to_upright(annotation, found) for annotation in annotations), found.image_hw
    return tuple(annotations), found.image_hw


def to_upright(annotation: Annotation, found: Header) -> Annotation:
    """The annotation in pixels of the upright image, where it was in those of the raw raster.

    Raises ValueError where a `Mask` is not of the raw raster's size.
    """
    return annotation if found.orientation == 1 else _turned(annotation, _Turn(found))


def points_upright(points_xy: np.ndarray, found: Header) -> np.ndarray:
    """Points (K, 2) float64 of the raw raster in pixels of the upright image."""
    return _Turn(found).points(points_xy)


def to_raw(annotation: Annotation, found: Header) -> Annotation:
    """The inverse of `to_upright`. Raises ValueError where a `Mask` is not of the upright image's size."""
    return annotation if found.orientation == 1 else _turned(annotation, _Turn(found, back=True))


class _Turn:
    """The map from one raster to the other: `back` from the upright to the raw one."""

    def __init__(self, found: Header, *, back: bool = False) -> None:
        self.swaps, self.mirrors_x, self.mirrors_y = _MOVES[found.orientation]
        self.back = back
        self.raw_wh = np.array([found.width, found.height], np.float64)
        raw_hw = (found.height, found.width)
        self.from_hw, self.to_hw = (found.image_hw, raw_hw) if back else (raw_hw, found.image_hw)

    @property
    def is_reflection(self) -> bool:
        return self.swaps ^ self.mirrors_x ^ self.mirrors_y

    def points(self, points: np.ndarray) -> np.ndarray:
        """(K, 2) float64 of x, y."""
        moved = np.array(points, np.float64).reshape(-1, 2)
        if self.back and self.swaps:
            moved = moved[:, ::-1]
        moved = np.where([self.mirrors_x, self.mirrors_y], self.raw_wh - moved, moved)
        return np.ascontiguousarray(moved[:, ::-1] if self.swaps and not self.back else moved)

    def box(self, box_xyxy: Box) -> Box:
        corners = self.points(np.array(box_xyxy, np.float64).reshape(2, 2))
        x1, y1, x2, y2 = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
        return x1, y1, x2, y2

    def pixels(self, mask: np.ndarray) -> np.ndarray:
        """(H, W) of one raster to that of the other."""
        if self.back and self.swaps:
            mask = mask.T
        mask = mask[:: -1 if self.mirrors_y else 1, :: -1 if self.mirrors_x else 1]
        return mask.T if self.swaps and not self.back else mask


def _turned(annotation: Annotation, turn: _Turn) -> Annotation:
    box = None if annotation.box_xyxy is None else turn.box(annotation.box_xyxy)
    shape = None if annotation.shape is None else _turned_shape(annotation.shape, turn)
    return dataclasses.replace(annotation, box_xyxy=box, shape=shape)


def _turned_shape(shape: Shape, turn: _Turn) -> Shape:
    if isinstance(shape, Polygons):
        return Polygons(tuple(tuple(turn.points(ring) for ring in part) for part in shape.parts))
    if isinstance(shape, Polyline | Points):
        return type(shape)(turn.points(shape.points))
    if isinstance(shape, Ellipse):
        return _turned_ellipse(shape, turn)
    if tuple(shape.image_hw) != turn.from_hw:
        raise ValueError(f"expected a mask of {turn.from_hw} (H, W), found {tuple(shape.image_hw)}")
    left, top, pixels = crop_of(shape)
    height, width = pixels.shape
    new_left, new_top, _, _ = turn.box((left, top, left + width, top + height))
    return mask_of(int(new_left), int(new_top), turn.pixels(pixels), turn.to_hw)


def _turned_ellipse(ellipse: Ellipse, turn: _Turn) -> Ellipse:
    """A quarter turn of an ellipse is its radii swapped, a reflection its angle the other way: both are exact."""
    (centre,) = turn.points(np.array([ellipse.centre_xy])).tolist()
    radii = ellipse.radii_xy[::-1] if turn.swaps else ellipse.radii_xy
    angle = 0.0 - ellipse.angle if turn.is_reflection else ellipse.angle
    return Ellipse((centre[0], centre[1]), (radii[0], radii[1]), angle)


def _needs_all(start: bytes) -> bool:
    """Whether the first bytes are not enough to know size and orientation."""
    try:
        found = header(start)
    except ImageError as error:
        return error.kind in ("truncated", "corrupt")
    if found.format == "webp":
        return start[12:16] == b"VP8X" and bool(start[20] & _WEBP_HAS_EXIF)
    return found.format in ("png", "avif")
