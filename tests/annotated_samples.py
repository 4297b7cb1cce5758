"""A small data set with all that annotations can hold, on disk, and what tests of formats ask of every format."""

from __future__ import annotations

import dataclasses
import io
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Polygons
from rayseg.errors import RaysegError
from rayseg.formats import registry, shapes
from rayseg.formats.listing import below
from rayseg.formats.losses import Losses
from rayseg.kernels import encode


def ring(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def polygons(*parts: list[np.ndarray]) -> Polygons:
    return Polygons(tuple(tuple(part) for part in parts))


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return ring((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def rle(mask: np.ndarray) -> Mask:
    return Mask(encode(np.ascontiguousarray(mask, np.uint8)[None]).strings()[0], (mask.shape[0], mask.shape[1]))


def picture(height: int, width: int, suffix: str = "jpg", orientation: int = 1) -> bytes:
    """An encoded image whose raster as stored is of this size."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), exif=exif)
    return file.getvalue()


def images(folder: Path, overlapping: bool = True) -> list[AnnotatedImage]:
    """Holes, parts, crowds, boxes, masks, ellipses, attributes; 48 x 64 pixels and a portrait of 50 x 30."""
    blob = np.zeros((48, 64), np.uint8)
    blob[30:40, 5:15] = blob[20:25, 40:60] = 1
    holed = polygons([rectangle(2, 2, 22, 18), rectangle(8, 6, 12.25, 12)], [rectangle(30.5, 2, 44, 12)])
    first = [
        Annotation(0, (2.0, 2.0, 44.0, 18.0), holed, attributes={"difficult": True, "colour": "red", "n": 3}),
        Annotation(1, (5.0, 20.0, 60.0, 40.0), rle(blob), crowd=True),
        Annotation(2, (46.5, 26.25, 60.0, 44.0)),
        Annotation(1, None, polygons([ring((20, 26), (38, 27), (30, 46))]), group=7),
    ]
    second = [Annotation(2, None, Ellipse((15, 20), (8, 5), 30.0), attributes={"occluded": False})]
    if overlapping:
        second.append(Annotation(0, None, polygons([rectangle(10, 15, 28, 45)])))
    made = []
    for name, hw, found, split in [
        ("a.jpg", (48, 64), first, "train"),
        ("sub folder/b.png", (50, 30), second, "val"),
        ("empty.jpg", (20, 20), [], "train"),
        ("unsplit.jpg", (20, 20), [Annotation(0, (1.0, 2.0, 9.5, 11.0))], None),
    ]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(*hw, suffix=name.rpartition(".")[2]))
        made.append(AnnotatedImage(name, str(path), hw, tuple(found), split))
    return made


def sample(folder: Path, overlapping: bool = True) -> Dataset:
    categories = Category("cat"), Category("traffic light", source_id=10, supercategory="outdoor"), Category("dog")
    return Dataset(categories, images(folder, overlapping))


def placeless(image: AnnotatedImage) -> AnnotatedImage:
    """Without what says where the image lies, which copying changes."""
    return dataclasses.replace(image, uri=None)


def there_and_back(dataset: Dataset, folder: Path, format: str) -> tuple[Dataset, Losses]:
    """Written as `format` and read again, the format being detected."""
    losses = registry.write(dataset, str(folder), format)
    assert registry.format_of(format).detect(str(folder), list(below(str(folder))))
    return registry.read(str(folder), format), losses


def assert_stable(dataset: Dataset, folder: Path, format: str, lost: frozenset[str] = frozenset()) -> None:
    """What was read from a format and written to it reads back record for record, and nothing is lost but the kinds `lost`."""
    again, losses = there_and_back(dataset, folder, format)
    assert [placeless(image) for image in again.images] == [placeless(image) for image in dataset.images]
    assert again.categories == dataset.categories
    assert again.info == dataset.info
    assert {row["kind"] for row in losses.rows() if row["outcome"] != "kept"} == lost, losses.rows()


def by_name(dataset: Dataset) -> dict[str, AnnotatedImage]:
    return {image.name: image for image in dataset.images}


def mask_of(annotation: Annotation, image_hw: tuple[int, int]) -> np.ndarray:
    return shapes.rle_of(annotation, image_hw).decode(0)


def ious(first: AnnotatedImage, second: AnnotatedImage) -> list[float]:
    """IoU of the masks of two images' annotations, pair by pair, by counting pixels."""
    assert first.image_hw is not None
    found = []
    for a, b in zip(first.annotations, second.annotations, strict=True):
        if shapes.has_mask(a):
            left, right = mask_of(a, first.image_hw) != 0, mask_of(b, first.image_hw) != 0
            found.append(float((left & right).sum() / max((left | right).sum(), 1)))
    return found


def damage(data: bytes, seed: int) -> bytes:
    """The bytes with a few changed, cut off, repeated or put in."""
    source = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(source.randint(1, 4)):
        if not damaged:
            break
        place = source.randrange(len(damaged))
        what = source.randrange(5)
        if what == 0:
            damaged[place] = source.randrange(256)
        elif what == 1:
            del damaged[place:]
        elif what == 2:
            damaged[place:place] = source.choice(
                [b"-", b"9" * 20, b"nan", b"<", b'"', b"\0", b"\xff", b"1e999", b"../", b"[" * 99]
            )
        elif what == 3:
            del damaged[place : place + source.randint(1, 20)]
        else:
            damaged[place:place] = damaged[max(0, place - 30) : place]
    return bytes(damaged)


def fuzz(source: Path, suffixes: tuple[str, ...], seed: int, read: Callable[[str], Dataset]) -> None:
    """Damage some files of a copy of `source`; reading it gives images or one of rayseg's own errors."""
    chooser = random.Random(seed)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        victims = set(chooser.sample([path for path in files if path.name.endswith(suffixes)], 2))
        for path in files:
            target = Path(folder, path.relative_to(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            target.write_bytes(damage(data, seed) if path in victims else data)
        try:
            dataset = read(folder)
            for image in dataset.images:
                for annotation in image.annotations:
                    assert shapes.fault(annotation, image.image_hw) is None, annotation
        except RaysegError:
            pass
