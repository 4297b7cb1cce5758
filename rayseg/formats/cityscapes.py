"""Cityscapes' gtFine: `_polygons.json`, `_instanceIds.png`, `_labelIds.png` by split and city.

`cityscapes_layout` says where files lie, `cityscapes_labels` what the labels are, `cityscapes_polygons` how objects become
pixels, `cityscapes_numbers` how objects are numbered. The source for all of it is cityscapesScripts.

Which is the truth: `instanceIds`. Polygons lie in layers, and what a later one hides is not there: the map is the visible
result, what training and evaluation read, and the only one of the two that says which pixels an object has. Where there is
no map, the polygons are drawn as cityscapesScripts draws them; where there are only `labelIds`, these are read.

Reading
- A number from 1000 on is one object. A smaller one is all of its label in the image: a group ("cargroup", a crowd) where
  objects of the label are told apart, else a region of a label like `road`, which is an annotation as well. Pixels of 0
  (unlabeled) are nobody's, and objects of a negative id (license plate) are not drawn.
- Polygons, with layers, hidden and deleted objects, ride along and come back as long as the same numbers are there.
- Classes: labels.json, else the standard table. Image names are <city>/<base>_leftImg8bit.png; `images` stands for
  leftImg8bit. Masks are of the upright image; sizes decide for images that are no PNG.

Writing
- One object a pixel: where masks overlap the smaller is kept; groups of one label become one. Each is reported.
- Standard labels are used where names match, others get ids from 34 on, in labels.json: cityscapesScripts does not know
  them, which is reported, nor several objects of a label like `traffic light`, which are numbered all the same.
- polygons.json has a ring through the outermost pixels of each object, and under the key `rayseg`, which other tools pass
  over, what it has no place for: boxes, scores, groups, attributes, the image's own name and URI.
- The city is the image's folder. The image goes to leftImg8bit, byte for byte, where it can be read; where not, its URI is
  noted.
- labelIds has 8 bits and instanceIds 16 while ids are below 66; beyond, packed RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

from rayseg import storage
from rayseg.annotations import Dataset
from rayseg.formats import cityscapes_labels, cityscapes_layout
from rayseg.formats.cityscapes_reading import CityscapesImages
from rayseg.formats.cityscapes_writing import Writer
from rayseg.formats.faults import Faults
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink

_BYTES_MAX = 1 << 24


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether files are named as Cityscapes names them."""
    return cityscapes_layout.looks_so(names)


def read(uri: str, *, images: str | None = None, faults: Faults) -> Dataset:
    """The data set below `uri`, the folder above gtFine or gtFine itself. Raises `BadAnnotation` where there is none."""
    layout = cityscapes_layout.layout_of(uri, images)
    labels = layout.at(cityscapes_labels.FILE)
    if storage.exists(labels):
        table = cityscapes_labels.table_in(storage.read(labels, max_bytes=_BYTES_MAX), labels)
    else:
        table = cityscapes_labels.standard_table()
    return Dataset(table.categories, CityscapesImages(layout, table, faults), info={"cityscapes": {}}, faults=faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """An image at a time, then labels.json; see the rules above."""
    writer = Writer(dataset, sink, losses)
    for image in dataset.images:
        writer.put(image)
    writer.finish()
