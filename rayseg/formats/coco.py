"""COCO instance annotations: instances files and result lists.

Read: `instances_*.json` beside each other or under `annotations/`, one split each, or one file by its own URI; see
`coco_layout` for names and for where images are looked for. A list of results takes its images and categories from the
ground truth that `images=` names (a `.json`) or that lies beside and knows all its images; without one, ids stand for
names. Annotations are grouped by image whatever their order; of a file of a million some 40 bytes each are held. `bbox`
is the box as it came; RLEs are made compressed and canonical. Sizes that the file records decide which raster of a
rotated photo was drawn on, so the headers of images that are found are read.

Write: `annotations/instances_<split>.json`, streamed, and `results/<split>.json`, a list for pycocotools' `loadRes`, of
the annotations that have scores. A mask that is not simply polygons becomes an RLE of the same pixels; crowds are written
as run lengths, as COCO does. `area` and `bbox` are those that came, else the mask's. Ids are those that came, as far as
they are unique. What COCO has no words for stands under the key "rayseg", which other tools pass over, so a record comes
back as it was: polygons with holes, ellipses, lines, points, other formats' extras. Images are referenced by name; an
embedded one is written below `images/`.

References: the COCO data format page (cocodataset.org/#format-data), pycocotools' `COCO` and `mask`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from rayseg.annotations import Dataset
from rayseg.formats import coco_layout
from rayseg.formats.coco_reading import read_dataset
from rayseg.formats.coco_writing import write_dataset
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.json_stream import NotJson, array_items
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether a JSON file at a usual place begins with COCO's keys, or with results."""
    return coco_layout.looks_like(uri, names)


def read(uri: str, *, images: str | None, faults: Faults) -> Dataset:
    """The data set at `uri`, a file or a folder. `images` is the folder of its images, or results' ground truth.

    Raises `BadAnnotation` where nothing of COCO is there, `NotJson` for malformed JSON.
    """
    files = coco_layout.annotation_files(uri)
    if not files:
        expected = "annotations/instances_*.json, or other COCO files"
        raise BadAnnotation(uri, f"expected {expected} there or in `annotations/`, found none")
    return read_dataset(files, images, faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """One instances file per split. Holds one image in memory at a time."""
    write_dataset(dataset, sink, losses)


def image_names(file: BinaryIO, uri: str) -> Iterator[str]:
    """`file_name` of each of a COCO file's images, in the file's order and in bounded memory.

    Raises `NotJson`, naming `uri`, for malformed JSON, no `images`, or an image without a `file_name`.
    """
    for index, image in enumerate(array_items(file, uri, "images")):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise NotJson(uri, f"images[{index}]: expected an object with a file_name, found {str(image)[:200]}")
        yield name
