"""The ground truth: a data set of any format, read once, its masks made as the COCO API makes them.

Polygons become pixels by the COCO API's own rule (`coco_polygons`), because its numbers are to come out to the last bit;
masks with holes, which COCO has no polygons for, and ellipses by pixel centres. Only RLE is held, never pixels.
"""

from __future__ import annotations

import gc
import math
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayseg import kernels
from rayseg.annotations import AnnotatedImage, Annotation, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.errors import UsageError
from rayseg.evaluation.collecting import no_collecting
from rayseg.evaluation.columns import CROWD, UNMEASURED, Columns, Rows
from rayseg.evaluation.names import ClassNames, ImageNames
from rayseg.evaluation.rasters import rings_to_rles, with_masks
from rayseg.evaluation.spool import SHARD_IMAGES, Spool
from rayseg.formats.faults import Faults
from rayseg.formats.orientation import raster
from rayseg.formats.shapes import box_of, rle_of
from rayseg.kernels import check_rle

_NAN = float("nan")
NO_BOX = (_NAN, _NAN, _NAN, _NAN)
Rings = Sequence[np.ndarray]


@dataclass(slots=True)
class Truth:
    """What was read.

    image_hws  (I, 2) int64 height and width of each image by rank, 0 where it is not known
    has_masks  whether any truth has a mask
    counts     `images`, `empty_images`, `truths`, `crowds`
    """

    classes: ClassNames
    images: ImageNames
    spool: Spool
    image_hws: np.ndarray
    has_masks: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        return -(-len(self.images) // SHARD_IMAGES)


def read_truth(dataset: Dataset, faults: Faults, *, split: str | None = None, threads: int | None = None) -> Truth:
    """All truths of `dataset`, of its images of `split` where given.

    Raises `UsageError` where there is no image, `BadAnnotation` through `faults` for what cannot be measured.
    """
    classes = ClassNames(dataset.class_names, [category.source_id for category in dataset.categories])
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="rayseg-truth") as pool:
        reader = _Reader(faults, pool)
        with no_collecting():
            for image in dataset.images:
                if split is None or image.split == split:
                    reader.add(image)
            reader.finish()
    if not len(reader.images):
        of_split = f" of split {split!r}" if split else ""
        raise UsageError(f"the ground truth has no images{of_split}: there is nothing to evaluate on")
    hws = np.array(reader.image_hws, np.int64).reshape(-1, 2)
    return Truth(classes, reader.images, reader.spool, hws, reader.has_masks, reader.counts)


class _Reader:
    def __init__(self, faults: Faults, pool: ThreadPoolExecutor) -> None:
        self.images, self.spool = ImageNames(), Spool()
        self.image_hws: list[tuple[int, int]] = []
        self.has_masks = False
        self.counts = {"images": 0, "empty_images": 0, "truths": 0, "crowds": 0}
        self._faults, self._pool = faults, pool
        self._waiting: deque[Future[Columns]] = deque()
        self._rows, self._rings = Rows(), dict[int, Rings]()

    def add(self, image: AnnotatedImage) -> None:
        source_id = image.extras.get("coco", {}).get("id")
        known = source_id if isinstance(source_id, int | str) else None
        rank = self.images.add(image.name, image.uri, known)
        if rank < 0:
            self._faults.add(image.name, "image", f"image {image.name}", "is in the ground truth already")
            return
        hw = _size_of(image)
        self.image_hws.append(hw or (0, 0))
        before = len(self._rows)
        for number, annotation in enumerate(image.annotations):
            try:
                self._add(annotation, rank, hw, number)
            except ValueError as error:
                kind = "box" if annotation.shape is None else "mask"
                self._faults.add(image.uri or image.name, kind, f"annotation {number}", str(error))
        self.counts["images"] += 1
        self.counts["empty_images"] += len(self._rows) == before
        if (rank + 1) % SHARD_IMAGES == 0:
            self._flush()

    def finish(self) -> None:
        self._flush()
        while self._waiting:
            self.spool.add(self._waiting.popleft().result())

    def _flush(self) -> None:
        """Have the masks of the rows so far made in another thread."""
        first = (len(self.image_hws) - 1) // SHARD_IMAGES * SHARD_IMAGES
        hws = self.image_hws[first:]
        self._waiting.append(self._pool.submit(with_masks, self._rows, self._rings, hws, first))
        self._rows, self._rings = Rows(), {}
        gc.collect(1)
        while len(self._waiting) > 4:
            self.spool.add(self._waiting.popleft().result())

    def _add(self, annotation: Annotation, rank: int, hw: tuple[int, int] | None, number: int) -> None:
        """One truth. Raises `ValueError` for one that cannot be measured."""
        shape = annotation.shape
        rings, rle = None, b""
        if isinstance(shape, Polygons):
            rings = coco_rings(shape)
            if hw is None:
                raise ValueError(_UNKNOWN_SIZE)
        if shape is not None:
            self.has_masks = True
            rle = checked_mask(annotation, hw) if rings is None else b""
        box = annotation.box_xyxy or _tight_box(annotation, rle)
        given = annotation.extras.get("coco", _NOTHING).get("area")
        area = float(given) if isinstance(given, int | float) else _NAN
        if rings is not None:
            self._rings[len(self._rows)] = rings
        flags = (_CROWD if annotation.crowd else 0) | (_UNMEASURED if shape is None else 0)
        self._rows.add(rank, annotation.category, box, rle, area=area, flags=flags, item=number)
        self.counts["truths"] += 1
        self.counts["crowds"] += annotation.crowd


_CROWD, _UNMEASURED = int(CROWD), int(UNMEASURED)
_NOTHING: dict[str, Any] = {}
_UNKNOWN_SIZE = "the size of its image is not known: give the folder of the images"


def coco_rings(shape: Polygons) -> Rings | None:
    """The rings of polygons without holes; None for others, which COCO cannot write. Raises `ValueError` for broken ones."""
    if any(len(part) != 1 for part in shape.parts):
        return None
    rings = [part[0] for part in shape.parts]
    if not rings or any(len(ring) < 3 or not math.isfinite(ring.sum()) for ring in rings):
        raise ValueError("expected rings of at least 3 points of finite numbers")
    return rings


def checked_mask(annotation: Annotation, image_hw: tuple[int, int] | None) -> bytes:
    """The compressed RLE of an annotation with a shape, as the COCO API makes it where it can.

    Raises `ValueError` for lines and points, an image of unknown size, an RLE of another size or one that does not decode.
    """
    shape = annotation.shape
    if isinstance(shape, Polyline | Points):
        raise ValueError("lines and points have no area that could be matched")
    if image_hw is None:
        raise ValueError(_UNKNOWN_SIZE)
    if isinstance(shape, Mask):
        if shape.image_hw != image_hw:
            raise ValueError(f"expected an RLE of {list(image_hw)} as its image has, found size {list(shape.image_hw)}")
        reason = check_rle(shape.counts, image_hw).reason
        if reason is not None:
            raise ValueError(f"its RLE {reason}")
        return shape.counts
    if isinstance(shape, Polygons):
        rings = coco_rings(shape)
        if rings is not None:
            return rings_to_rles([rings], [image_hw])[0]
        return kernels.from_polygons([shape.parts], image_hw).strings()[0]
    return rle_of(annotation, image_hw).strings()[0]


def _size_of(image: AnnotatedImage) -> tuple[int, int] | None:
    """An image's size as it is given, else that of its RLEs, else, where polygons need one, from the image's header."""
    if image.image_hw is not None:
        return image.image_hw
    sizes = {one.shape.image_hw for one in image.annotations if isinstance(one.shape, Mask)}
    if len(sizes) == 1:
        return sizes.pop()
    if any(isinstance(one.shape, Polygons | Ellipse) for one in image.annotations):
        found = raster(image.uri)
        return found.image_hw if found else None
    return None


def _tight_box(annotation: Annotation, rle: bytes) -> tuple[float, float, float, float]:
    """Corners of the shape's box; zeros for an empty mask, which still counts as a truth, as for the COCO API."""
    box = box_of(annotation)
    if box is not None:
        return box
    if rle:
        return (0.0, 0.0, 0.0, 0.0)
    raise ValueError("expected a box or a mask")
