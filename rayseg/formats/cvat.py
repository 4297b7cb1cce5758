"""CVAT for images 1.1 and CVAT for video 1.1: one XML, with the images below `images/`.

Reading takes an `.xml` file, a folder with `annotations.xml`, or one whose subfolders have one each, which are its splits.
- Elements are read as they stand: `box` (turned by its `rotation`: a polygon), `polygon`, `mask`, `ellipse`, `polyline`,
  `points`; `skeleton` and `cuboid` as points. `subset` is the split. `occluded="1"` is the attribute `occluded`;
  `z_order`, `source` and image tags ride along. Labels, their colours and the attributes they declare
  come from `<meta>`; where that has no labels, all that occur are taken.
- `group_id` ties annotations and stays a number. Only polygons that rayseg marked as parts of one object are joined.
- Of a video every frame is an image, `frame_000042.PNG` as CVAT names them, and a track's number an attribute of its
  shapes, `track_id`; see `cvat_video`.
- Memory holds an image or a track at a time.

Writing gives CVAT for images: tracks come out frame by frame, with `track_id` as a declared attribute, so that it comes back
from CVAT.
- A polygon of CVAT's is one ring. Parts of an object are polygons of one `group_id` with one `rayseg_object`, an attribute
  that is declared, so that it comes back from CVAT; an object with holes is a `mask` of the same pixels.
- Score and crowd flag are the declared attributes `rayseg_score` and `rayseg_crowd`. What else CVAT has no place for (the
  holes' outlines, a box beside a shape, attributes of images, supercategories, other formats' extras) stands in XML
  attributes and elements of rayseg's own, which CVAT passes over; see `exact_notes` for how they are read.
- Images are not copied, as CVAT wants annotations alone; embedded ones are written below `images/`.

Which raster of a rotated photo is meant is `rayseg.formats.orientation`'s rule; `drawn_on` overrides it.
Sources for the format: CVAT's "XML annotation format", and its `dataset_manager/formats/cvat.py`.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Sequence

from rayseg import storage
from rayseg.annotations import Category, Dataset
from rayseg.errors import StorageError
from rayseg.formats import cvat_labels, data_paths
from rayseg.formats.cvat_reading import CvatImages, Source
from rayseg.formats.cvat_shapes import TAGS
from rayseg.formats.cvat_writing import ANNOTATIONS_FILE, write_dataset
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.listing import below, suffix
from rayseg.formats.losses import Losses
from rayseg.formats.orientation import Raster
from rayseg.formats.safe_xml import elements
from rayseg.formats.sink import Sink

_HEAD_BYTES = 1 << 16
_PROBED_FILES = 20
_PROLOGUE_ITEMS = 8  # comments and instructions before the root
_ROOT = re.compile(
    rb"<(!DOCTYPE\s+)?annotations[\s/>\[]"
)  # a DTD is recognised, so that reading says why it is refused
_FIRST = re.compile(rb"<(image|track)[\s/>]")


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether there is an XML file, at most one folder down, that begins as CVAT's does."""
    alone = len(names) == 1 and uri.endswith(names[0])
    return any(_is_cvat(uri if alone else data_paths.at(uri, name)) for name in _xml_names(names)[:_PROBED_FILES])


def read(uri: str, *, images: str | None = None, faults: Faults, drawn_on: Raster | None = None) -> Dataset:
    """The data set of one XML file, or of those of a folder. Raises `BadAnnotation` where there is none of CVAT's."""
    sources = _sources(uri)
    categories: dict[str, Category] = {}
    for source in sources:
        found = source.meta.categories or [Category(name) for name in _labels(source)]
        for category in found:
            categories.setdefault(category.name, category)
    chosen = tuple(categories.values())
    rest = sources[0].meta.rest if len(sources) == 1 else []  # of several files none speaks for the whole
    info = {"cvat": {"meta": rest}} if rest else {}
    return Dataset(chosen, CvatImages(sources, chosen, images, faults, drawn_on), info, faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """One `annotations.xml`; see the rules above."""
    write_dataset(dataset, sink, losses)


def _sources(uri: str) -> list[Source]:
    if storage.exists(uri):
        return [_source(uri, data_paths.folder_of(uri), None)]
    names = _xml_names(list(below(uri)))
    names = [ANNOTATIONS_FILE] if ANNOTATIONS_FILE in names else names
    names = [name for name in names if _is_cvat(data_paths.at(uri, name))]
    if not names:
        raise BadAnnotation(uri, "expected an XML file with <annotations> in it, found none")
    folders = [posixpath.dirname(name) for name in names]
    return [
        _source(data_paths.at(uri, name), data_paths.at(uri, folder) if folder else uri, folder or None)
        for name, folder in zip(names, folders, strict=True)
    ]


def _source(uri: str, root: str, split: str | None) -> Source:
    if not _is_cvat(uri):
        raise BadAnnotation(uri, "expected XML that begins with <annotations>, found something else")
    with storage.open(uri) as file:
        element = next(elements(file, uri, "meta"), None)
    try:
        meta = cvat_labels.meta_of(element)
    except ValueError as error:
        raise BadAnnotation(uri, f"meta: {error}") from None
    return Source(uri, root, split, dataclasses.replace(meta), _has_tracks(uri))


def _labels(source: Source) -> list[str]:
    """The labels that occur, as they come."""
    found: dict[str, None] = {}
    with storage.open(source.uri) as file:
        for element in elements(file, source.uri, "track" if source.is_video else "image"):
            for shape in [element] if source.is_video else element:
                if shape.tag in (*TAGS, "track") and shape.get("label"):
                    found[shape.get("label", "")] = None
    return list(found)


def _has_tracks(uri: str) -> bool:
    """Whether a track comes before any image."""
    with storage.open(uri) as file:
        data = b""
        while piece := file.read(1 << 20):
            data = data[-16:] + piece
            if match := _FIRST.search(data):
                return match[1] == b"track"
    return False


def _xml_names(names: Sequence[str]) -> list[str]:
    return [name for name in names if suffix(name) == "xml" and name.count("/") <= 1]


def _is_cvat(uri: str) -> bool:
    try:
        data = storage.read_range(uri, 0, _HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    except StorageError:
        return False
    for start, end in ((b"<?", b"?>"), (b"<!--", b"-->")) * _PROLOGUE_ITEMS:
        if data.startswith(start):
            data = data.partition(end)[2].lstrip()
    return bool(_ROOT.match(data))
