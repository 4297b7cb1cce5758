"""YOLO as ultralytics has it: `data.yaml`, `images/<split>/`, `labels/<split>/`, a row of numbers per object.

`yolo_yaml` says how data.yaml is read, `yolo_places` which images there are, `yolo_rows` what a row is and why numbers
come back exactly. Sources: ultralytics' documentation of the detect and segment data sets, and its `data/utils.py`.

Reading
- An image without a label file has no objects; a label file without an image is a fault. An image that two splits name
  counts for the first. `images` is the folder that stands for the root, or for its `images`.
- All rows of a data set end in a confidence, or none: the first files that have rows decide, rows of the other kind are
  faults. So are classes that names does not have, and coordinates outside 0..1.
- Boxes are taken as boxes and outlines as polygons, also side by side. Data sets for pose (`kpt_shape`) are boxes, their
  keypoints ride along. A folder without a data.yaml, but with classes.txt, images/ and labels/, is read as well.

Writing
- The image is copied, byte for byte, where it can be read; where not, its size goes to image_sizes.jsonl, which only this
  reader knows. It is renamed where its suffix is no image's, or its label file would be another image's.
- One outline a row: holes and parts are joined by bridges; what lies outside the image is cut off.
- Where any annotation has a mask, boxes alone are written as outlines: ultralytics drops all outlines of a data set that
  has both. A set that came from YOLO keeps its boxes.
- Crowd flags, attributes, groups and lines are lost. Scores are written for all or for none, as the first annotation has it.
- Both `train` and `val` are always named, as ultralytics wants them: the one for the other where there is one alone.

Coordinates are of the upright image: ultralytics turns images by EXIF before it looks at labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from rayseg import storage
from rayseg.annotations import Category, Dataset
from rayseg.errors import UsageError
from rayseg.formats import data_paths
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.listing import below, suffix
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink
from rayseg.formats.yolo_reading import YoloImages
from rayseg.formats.yolo_writing import Writer
from rayseg.formats.yolo_yaml import Config, config_of, is_config

_USUAL = "data.yaml"
_CLASSES = "classes.txt"
_PROBED_FILES = 5
_LIST_BYTES = 1 << 24


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether a YAML at the top has names and splits, or the folders are there with classes.txt."""
    if len(names) == 1 and suffix(names[0]) in ("yaml", "yml") and uri.endswith(names[0]):
        return is_config(uri)
    return any(is_config(data_paths.at(uri, name)) for name in _yamls(names)[:_PROBED_FILES]) or _is_bare(names)


def read(uri: str, *, images: str | None = None, faults: Faults) -> Dataset:
    """The data set of a data.yaml, or of the folder it lies in.

    Raises `BadAnnotation` where there is none, `UsageError` where a folder has several.
    """
    config = _config(uri)
    categories = tuple(Category(name, source_id=class_id) for class_id, name in config.names.items())
    return Dataset(categories, YoloImages(config, images, faults), info={"yolo": config.other}, faults=faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """An image and its label file at a time, then data.yaml; see the rules above."""
    writer = Writer(dataset, sink, losses)
    for image in dataset.images:
        writer.put(image)
    writer.finish()


def _config(uri: str) -> Config:
    if suffix(uri) in ("yaml", "yml") and storage.exists(uri):
        return config_of(uri)
    names = list(below(uri))
    yamls = _yamls(names)
    if _USUAL in yamls:
        return config_of(data_paths.at(uri, _USUAL))
    yamls = [name for name in yamls if is_config(data_paths.at(uri, name))] if len(yamls) > 1 else yamls
    if len(yamls) > 1:
        raise UsageError(f"{uri}: holds several data sets ({', '.join(yamls)}); name one of the files")
    if yamls:
        return config_of(data_paths.at(uri, yamls[0]))
    if _is_bare(names):
        return Config(uri, _listed_classes(data_paths.at(uri, _CLASSES)), [(None, ["images"])], {})
    raise BadAnnotation(uri, f"expected a YOLO data set, found neither {_USUAL} nor {_CLASSES} with images and labels")


def _yamls(names: Sequence[str]) -> list[str]:
    return [name for name in names if "/" not in name and suffix(name) in ("yaml", "yml")]


def _is_bare(names: Sequence[str]) -> bool:
    return _CLASSES in names and any(name.startswith("images/") for name in names)


def _listed_classes(uri: str) -> dict[int, str]:
    try:
        lines = storage.read(uri, max_bytes=_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadAnnotation(uri, "expected class names in UTF-8, found other bytes") from None
    return dict(enumerate(line.strip() for line in lines if line.strip()))
