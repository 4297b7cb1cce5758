"""labelme: one JSON per image beside it, `shapes` drawn on the image as labelme shows it.

Reading goes through every `*.json` below a folder (or one file); images without a JSON are not labelled yet and left out.
- Polygons, rectangles, circles and masks of one label and one `group_id` are parts of one object, as labelme's own
  converters take them: one annotation, its parts polygons, or one mask where some part is none. Lines and points are not
  joined. A shape's flags, its `description` and what other tools keep under `attributes` and `difficult` become
  attributes, the flag `iscrowd` the crowd flag, `score` the score; other keys ride along.
- `imagePath` is relative to the JSON, with slashes of either kind, and must stay below the folder. `imageData` is taken as
  the image where it is given. The split is the first folder where that is named like one (train, val, test ...).
- Classes stand in the order of `labels.txt` (labelme's `--labels`), then as they come.

Writing puts `labels.txt`, and beside each image its JSON. An image that came embedded is embedded again; others are
copied, byte for byte, where they can be read, as labelme does not open a JSON without its image.
- labelme has no holes, and no ellipses but circles: these become `mask` shapes of the same pixels. Several parts share a
  `group_id`. What labelme has no place for (the holes' outlines, a number that groups objects, a box beside a shape, the
  split of an image, other formats' extras) stands under the key `rayseg`, which labelme keeps as it is; see `exact_notes`
  for how it is read.
- It cannot hold colours and supercategories of classes.

Which raster of a rotated photo is meant is `rayseg.formats.orientation`'s rule; `drawn_on` overrides it.
Sources for the format: labelme's `_label_file.py`, `_shape` and `utils/shape.py`, versions 3 to 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rayseg import storage
from rayseg.annotations import Category, Dataset
from rayseg.errors import StorageError
from rayseg.formats import data_paths, json_values
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.labelme_reading import LabelmeImages, labels_of
from rayseg.formats.labelme_writing import HELD, Writer
from rayseg.formats.listing import below
from rayseg.formats.losses import Losses
from rayseg.formats.orientation import Raster
from rayseg.formats.sink import Sink

_HEAD_BYTES = 1 << 16
_PROBED_FILES = 5
_KEYS = {"shapes", "imageData", "imagePath"}
LABELS_FILE = "labels.txt"
_NOT_CLASSES = ("__ignore__", "_background_")  # how labelme's converters want the list to begin


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether one of the first JSON files has labelme's keys."""
    found = [name for name in names if name.lower().endswith(".json")][:_PROBED_FILES]
    alone = len(names) == 1 and uri.lower().endswith(".json")
    return any(_has_keys(uri if alone else data_paths.at(uri, name)) for name in found)


def read(uri: str, *, images: str | None = None, faults: Faults, drawn_on: Raster | None = None) -> Dataset:
    """The data set of the JSON files below `uri`, or of one; classes are found by going through all of them once.

    Raises `BadAnnotation` where there is no JSON file.
    """
    alone = storage.exists(uri)
    root = data_paths.folder_of(uri) if alone else uri
    names = [name for name in below(uri) if name.lower().endswith(".json")]
    files = [(name, uri if alone else data_paths.at(root, name)) for name in names]
    if not files:
        raise BadAnnotation(uri, "expected labelme's JSON files, found none")
    labels = dict.fromkeys([] if alone else _listed_labels(root))
    for _, at in files:
        labels.update(dict.fromkeys(labels_of(at)))
    categories = tuple(Category(name) for name in labels)
    return Dataset(categories, LabelmeImages(root, files, images, list(labels), faults, drawn_on), faults=faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """`labels.txt`, then an image and its JSON at a time; see the rules above."""
    listed = {i: name for i, name in enumerate(dataset.class_names) if _can_be_listed(name)}
    lines = "".join(f"{name}\n" for name in (*_NOT_CLASSES, *listed.values()))
    sink.put(LABELS_FILE, lines.encode(), last=True)
    writer = Writer(dataset.class_names, sink, losses)
    for image in dataset.images:
        writer.put(image)
    kept = [category for i, category in enumerate(dataset.categories) if i in listed or i in writer.categories]
    HELD.dataset(dataclasses.replace(dataset, categories=tuple(kept)), losses)
    if len(kept) < len(dataset.categories):
        losses.dropped(
            "class", "nothing is of it, and a list of labels cannot hold its name", len(dataset.categories) - len(kept)
        )


def _can_be_listed(name: str) -> bool:
    """Whether a line of the list can be read back as the name."""
    return bool(name) and "\n" not in name and not name.endswith("\r") and name.isprintable()


def _has_keys(uri: str) -> bool:
    try:
        return bool(_KEYS & set(json_values.first_keys(storage.read_range(uri, 0, _HEAD_BYTES))))
    except StorageError:
        return False


def _listed_labels(root: str) -> list[str]:
    uri = data_paths.at(root, LABELS_FILE)
    if not storage.exists(uri):
        return []
    lines = storage.read(uri, max_bytes=1 << 24).decode("utf-8-sig", "replace").split("\n")
    lines = [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]
    for name in _NOT_CLASSES:
        if lines[:1] == [name]:
            lines.pop(0)
    return lines
