"""PASCAL VOC 2012: XML boxes, `SegmentationObject` and `SegmentationClass` maps, lists of images as splits.

`voc_layout` says where things lie and what the lists mean, `voc_xml` what an XML's elements are. After the development
kit's documentation (Everingham and Winn, "The PASCAL Visual Object Classes Challenge 2012 Development Kit", 2012):
palette PNGs whose index is the object's number, or its class's; 255 is void, the border that is nobody's.

Reading
- An `object` and the map's number k belong together where the object says so (rayseg's note), else where it is the k-th
  and at least half of k's tight box lies within its box, else by the best overlap of boxes, from 0.5 on. An object that
  finds none is a box; a number that finds none is an annotation of the class that SegmentationClass has there.
- An image without an XML is read from its maps. One in a list or in JPEGImages that has neither is a fault.
- Classes: those of labelmap.txt; without it VOC's twenty where no other name occurs, which all XMLs are looked at for;
  else the names found, sorted.
- Void pixels come back: they stand under extras["voc"]["void"] as an RLE.

Writing
- An id is the image's name without its suffix, or all of it where another image has taken that. The image is copied, byte
  for byte, where it can be read. Every image stands in Main's list of its split (`default` without one), those with
  masks in Segmentation's; `trainval` is the two together.
- Maps hold one object a pixel and 254 objects: what overlaps or is beyond loses pixels, and is reported.
- labelmap.txt names the classes; index i + 1 in class maps is class i, so VOC's twenty keep VOC's indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rayseg import storage
from rayseg.annotations import Category, Dataset
from rayseg.errors import StorageError
from rayseg.formats import safe_xml, voc_layout, voc_xml
from rayseg.formats.faults import Faults
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink
from rayseg.formats.voc_layout import Layout
from rayseg.formats.voc_reading import XML_BYTES_MAX, Classes, VocImages
from rayseg.formats.voc_writing import Writer


def detect(uri: str, names: Sequence[str]) -> bool:
    """Whether VOC's folders are there, at the top or up to two levels below it."""
    return bool(voc_layout.roots(names))


def read(uri: str, *, images: str | None = None, faults: Faults) -> Dataset:
    """The data set below `uri`, which may also be the folder above VOC2012; `images` stands for JPEGImages.

    Without a labelmap.txt all XMLs are looked at for classes first. Raises `BadAnnotation` where there is no VOC data
    set, `UsageError` where there are several.
    """
    layout = voc_layout.layout_of(uri, images)
    classes = _classes(layout)
    return Dataset(classes.categories, VocImages(layout, classes, faults), info={"voc": {}}, faults=faults)


def write(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """An image at a time, then the lists, then labelmap.txt; see the rules above."""
    writer = Writer(dataset, sink, losses)
    for image in dataset.images:
        writer.put(image)
    writer.finish()


def _classes(layout: Layout) -> Classes:
    map_uri = layout.at("labelmap.txt")
    if storage.exists(map_uri):
        return Classes(*voc_layout.label_map(map_uri))
    standard = voc_layout.standard_categories()
    places = {i + 1: i for i in range(len(standard))}
    found = set(_names(layout))
    if found <= set(voc_layout.CLASSES):
        return Classes(standard, places)
    return Classes(tuple(Category(name) for name in sorted(found)), {})


def _names(layout: Layout) -> Iterator[str]:
    """The classes of all objects; an XML that is broken has none, and is complained of when its image is read."""
    for image_id in layout.xmls:
        uri = layout.at(f"Annotations/{image_id}.xml")
        try:
            root = safe_xml.parse(storage.read(uri, max_bytes=XML_BYTES_MAX), uri)
        except StorageError as error:
            if storage.is_transient(error):
                raise
            continue
        for element in root.findall("object"):
            if name := voc_xml.text_of(element, "name"):
                yield name
