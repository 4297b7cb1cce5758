"""Masks as PNG: an id map per image, or a folder of binary PNGs per image where masks overlap. It holds any mask exactly.

    classes.json                       the classes: see `masks_tables`, also for other forms that are read
    masks/<stem>.png                   id map of 8, 16 or 32 bits (see `id_maps`), 0 the background
    masks/<stem>.json                  whose numbers these are, and all that pixels cannot say
    instances/<stem>/<n>_<class>.png   one object, not 0 inside; the class percent-encoded where it has other characters
    instances/<stem>/instances.json    the same table for the folder
    images/<name>                      only images that came embedded; others stay where they are, named by their URI

<stem> is the image's name without suffix, with its folders; or all of the name where another image has that stem. A table:
    {"image": "a.jpg", "uri": ..., "height": 48, "width": 64, "split": "train", "attributes": {...}, "extras": {...},
     "instances": [{"class": 1, "id": 1, "crowd": true, "score": .., "group": .., "box": [x1, y1, x2, y2], ...}]}
where `class` is an id in classes.json, `id` the number in the map (`file` instead in a folder), both missing for a box alone;
`box` only where one was given; coordinates are those of the record.

Writing takes the id map where every mask has pixels and no two share any, else the folder. Shapes become the pixels whose
centres they cover, lines and points are lost.

Reading also takes such folders from elsewhere, without tables: a number's class is what classes.json or .csv say of that
image, of that number, or of number // 1000; a file's class is in its name (`3_cat`, `cat_3`, `cat`); the image is the one
in `images/` (or the folder given as `images`) of the same stem. Folders of one object each may also lie in `masks/`, where
an image has the folder's name. Without `masks/` and `instances/`, the PNGs outside `images/` are the id maps.

Masks are of the upright image; one from elsewhere that has only the raw raster's size was drawn on that.
"""

from __future__ import annotations

from collections.abc import Sequence

from rayseg import storage
from rayseg.annotations import Dataset
from rayseg.formats import data_paths, masks_tables
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.losses import Losses
from rayseg.formats.masks_layout import INSTANCES, layout_of
from rayseg.formats.masks_reading import MaskImages
from rayseg.formats.masks_tables import Table
from rayseg.formats.masks_writing import Writer
from rayseg.formats.sink import Sink


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether there is a class table at the top and a PNG or a table of masks, or a folder of objects."""
    has_table = masks_tables.JSON_FILE in names or masks_tables.CSV_FILE in names
    if has_table and any(name.endswith(".png") or name.startswith(("masks/", INSTANCES)) for name in names):
        return True
    return any(name.startswith(INSTANCES) and name.endswith(".png") and name.count("/") > 1 for name in names)


def read(uri: str, *, images: str | None = None, faults: Faults) -> Dataset:
    """The data set below `uri`; `images` stands for its folder of that name. Raises `BadAnnotation` where there is none."""
    layout = layout_of(uri, images)
    table = _table(uri, layout.instance_files)
    if not layout.keys:
        raise BadAnnotation(uri, "expected masks as PNG in masks/ or instances/, found none")
    info = {**table.info, "masks": {}}
    return Dataset(tuple(table.categories), MaskImages(layout, table, faults), info=info, faults=faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """An image at a time, then classes.json; see the rules above."""
    writer = Writer(dataset, sink, losses)
    for image in dataset.images:
        writer.put(image)
    writer.finish()


def _table(uri: str, instance_files: list[str]) -> Table:
    for name in (masks_tables.JSON_FILE, masks_tables.CSV_FILE):
        if storage.exists(data_paths.at(uri, name)):
            return masks_tables.table_at(data_paths.at(uri, name))
    if not instance_files:
        raise BadAnnotation(uri, f"expected {masks_tables.JSON_FILE} or {masks_tables.CSV_FILE}, found neither")
    return masks_tables.table_of_names(instance_files)
