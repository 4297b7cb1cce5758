"""Reading CVAT's XML image by image: `rayseg.formats.cvat` says by which rules."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Polygons
from rayseg.formats import cvat_labels, data_paths, exact_notes, json_values, orientation, shapes
from rayseg.formats.cvat_shapes import TAGS, Item, geometry, item_of, other_xml
from rayseg.formats.cvat_text import whole
from rayseg.formats.cvat_video import Frame, frames
from rayseg.formats.faults import Faults, Unusable
from rayseg.formats.orientation import Raster
from rayseg.formats.safe_xml import elements, line_of
from rayseg.formats.writable import foreign_extras
from rayseg.images.headers import Header

SHAPE_NOTE, BOX_NOTE, GROUP_NOTE, ATTRIBUTES_NOTE = "rayseg_shape", "rayseg_box", "rayseg_group", "rayseg_attributes"
EXTRAS_NOTE = "rayseg_extras"
_NOTES = {SHAPE_NOTE, BOX_NOTE, GROUP_NOTE, EXTRAS_NOTE}
_KNOWN = frozenset({"label", "source", "occluded", "z_order", "group_id", *_NOTES})
_IMAGE_KNOWN = frozenset({"id", "name", "width", "height", "subset", ATTRIBUTES_NOTE, EXTRAS_NOTE})
_KINDS = {"box": "box", "polygon": "polygon", "mask": "mask", "ellipse": "ellipse"}
_OWN_ATTRIBUTES = (cvat_labels.SCORE, cvat_labels.CROWD, cvat_labels.OBJECT)
IMAGES_FOLDER = "images"


@dataclass(frozen=True, slots=True)
class Source:
    """One XML file: where it lies, the folder its names are below, the folder that is its split, and its meta."""

    uri: str
    root: str
    split: str | None
    meta: cvat_labels.Meta
    is_video: bool


class CvatImages:
    """The images of a data set, an element or a frame at a time."""

    def __init__(
        self,
        sources: Sequence[Source],
        categories: Sequence[Category],
        images: str | None,
        faults: Faults,
        drawn_on: Raster | None,
    ) -> None:
        self._sources, self._images, self._faults = sources, images, faults
        self._drawn_on: Raster | None = drawn_on
        self._classes = {category.name: i for i, category in enumerate(categories)}
        self._specs = [cvat_labels.specs_of(category) for category in categories]

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        seen: set[str] = set()
        for source in self._sources:
            for image in self._frames(source) if source.is_video else self._stills(source):
                if image.name in seen:
                    self._faults.add(
                        source.uri, "image", repr(image.name), "expected images of different names, found it again"
                    )
                    continue
                seen.add(image.name)
                yield image

    def _stills(self, source: Source) -> Iterator[AnnotatedImage]:
        with storage.open(source.uri) as file:
            for element in elements(file, source.uri, "image"):
                line = f"line {line_of(element)}"
                try:
                    image = self._still(element, source)
                except Unusable as error:
                    self._faults.add(source.uri, error.kind, line, str(error))
                    continue
                yield image

    def _still(self, element: Element, source: Source) -> AnnotatedImage:
        try:
            name = data_paths.inside(element.get("name", ""))
        except ValueError as error:
            raise Unusable("image", str(error)) from None
        subset = element.get("subset") or source.split
        name, places = self._places(name, subset, source)
        uri, found = data_paths.first_image(places)
        items = [item_of(child) for child in element]
        annotations, image_hw = self._drawn(items, _recorded_hw(element), found, source)
        extras: dict[str, Any] = {}
        number = element.get("id", "")
        if number.isascii() and number.isdecimal() and len(number) <= 18:
            extras["id"] = int(number)
        others = {key: value for key, value in element.attrib.items() if key not in _IMAGE_KNOWN}
        tags = [[item.xml, item.attributes] for item in items if item.tag == "tag"]
        extras |= ({"xml": others} if others else {}) | ({"tags": tags} if tags else {})
        attributes = _json_object(element.get(ATTRIBUTES_NOTE))
        own = ({"cvat": extras} if extras else {}) | foreign_extras(_json_object(element.get(EXTRAS_NOTE)), "cvat")
        return AnnotatedImage(name, uri, image_hw, annotations, subset, attributes, own)

    def _frames(self, source: Source) -> Iterator[AnnotatedImage]:
        suffix = ""
        for frame in frames(source.uri, source.meta.tasks, self._faults):
            suffix = suffix or self._suffix(frame, source)
            subset = frame.subset or source.split
            name, places = self._places(frame.stem + suffix, subset, source)
            uri, found = data_paths.first_image(places)
            try:
                annotations, image_hw = self._drawn(frame.items, frame.image_hw, found, source)
            except Unusable as error:
                self._faults.add(source.uri, error.kind, f"frame {frame.number}", str(error))
                continue
            yield AnnotatedImage(name, uri, image_hw, annotations, subset, {}, {"cvat": {"id": frame.number}})

    def _suffix(self, frame: Frame, source: Source) -> str:
        """What the files of frames end in, by the first of them; as CVAT names them where there is none."""
        for suffix in (".PNG", ".png", ".jpg", ".jpeg"):
            _, places = self._places(frame.stem + suffix, frame.subset or source.split, source)
            if any(storage.exists(place) for place in places):
                return suffix
        return ".PNG"

    def _places(self, name: str, subset: str | None, source: Source) -> tuple[str, list[str]]:
        """The image's name in the data set, and where its file may be."""
        full = name if source.split is None or name.startswith(f"{source.split}/") else f"{source.split}/{name}"
        in_subset = [f"{subset}/{name}"] if subset and "/" not in subset and subset not in (".", "..") else []
        if self._images is not None:
            names = [full, name, *in_subset, posixpath.basename(name)]
            return full, [data_paths.at(self._images, place) for place in dict.fromkeys(names)]
        names = [*(f"{IMAGES_FOLDER}/{place}" for place in [*in_subset, name]), name]
        return full, [data_paths.at(source.root, place) for place in names]

    def _drawn(
        self, items: Iterable[Item], recorded_hw: tuple[int, int] | None, found: Header | None, source: Source
    ) -> tuple[tuple[Annotation, ...], tuple[int, int] | None]:
        """The annotations of one image, upright, and its size."""
        rule = self._drawn_on or "upright"
        hw = recorded_hw if self._drawn_on is None or found is None else None
        try:
            _, image_hw = orientation.upright((), found, hw, rule)
        except ValueError as error:
            raise Unusable("size", str(error)) from None
        raster_hw = hw or (found and ((found.height, found.width) if rule == "raw" else found.image_hw))
        objects: dict[Any, list[tuple[Annotation, Item]]] = {}
        for i, item in enumerate(items):
            if item.tag not in TAGS:
                continue
            try:
                annotation, mark = self._annotation(item, raster_hw)
            except Unusable as error:
                self._faults.add(source.uri, error.kind, f"line {item.line}, {item.tag}", str(error))
                continue
            objects.setdefault(i if mark is None else mark, []).append((annotation, item))
        drawn = [_joined(members) for members in objects.values()]
        turned, _ = orientation.upright([annotation for annotation, _ in drawn], found, hw, rule)
        return tuple(_exact(annotation, item) for annotation, (_, item) in zip(turned, drawn, strict=True)), image_hw

    def _annotation(self, item: Item, raster_hw: tuple[int, int] | None) -> tuple[Annotation, tuple[int, str] | None]:
        """One element, and what it has in common with the other parts of its object."""
        label = item.xml.get("label", "")
        if label not in self._classes:
            raise Unusable("class", f"expected a label that <meta> declares, found {label[:80]!r}")
        category = self._classes[label]
        try:
            box, shape, extras = geometry(item, raster_hw)
            group = whole(item.xml["group_id"], "group_id") if item.xml.get("group_id") else None
        except ValueError as error:
            raise Unusable(_KINDS.get(item.tag, "points"), str(error)) from None
        fault = shapes.fault(Annotation(category, box, shape), raster_hw)
        if fault is not None:
            raise Unusable(*fault)
        attributes, own = self._attributes(item, category)
        extras |= _plain_extras(item)
        annotation = Annotation(
            category,
            box,
            shape,
            own.get(cvat_labels.CROWD) is True,
            _score(own.get(cvat_labels.SCORE)),
            group or None,
            attributes,
            ({"cvat": extras} if extras else {}) | foreign_extras(_json_object(item.xml.get(EXTRAS_NOTE)), "cvat"),
        )
        mark = own.get(cvat_labels.OBJECT)
        is_part = mark not in (None, "") and isinstance(shape, Polygons) and "rotated" not in extras
        return annotation, (category, str(mark)) if is_part else None

    def _attributes(self, item: Item, category: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Attributes, and those of rayseg's own."""
        attributes: dict[str, Any] = {}
        if (occluded := item.xml.get("occluded", "0").lower()) != "0":
            attributes["occluded"] = occluded in ("1", "true")
        own: dict[str, Any] = {}
        for name, text, is_json in item.attributes:
            if name in _OWN_ATTRIBUTES:
                own[name] = text.lower() == "true" if name == cvat_labels.CROWD else text
            elif name:
                attributes[name] = cvat_labels.value_of(text, self._specs[category].get(name), is_json)
        return attributes, own


def _plain_extras(item: Item) -> dict[str, Any]:
    """What only CVAT understands of an element."""
    extras: dict[str, Any] = {}
    if item.xml.get("source", "manual") != "manual":
        extras["source"] = item.xml["source"]
    if item.xml.get("z_order", "0") != "0":
        extras["z_order"] = item.xml["z_order"]
    others = other_xml(item, _KNOWN)
    return extras | ({"xml": others} if others else {})


def _joined(members: list[tuple[Annotation, Item]]) -> tuple[Annotation, Item]:
    """The parts of one object as one annotation."""
    first, item = members[0]
    if len(members) == 1:
        return first, item
    parts = [part for one, _ in members if isinstance(one.shape, Polygons) for part in one.shape.parts]
    return dataclasses.replace(first, shape=Polygons(tuple(parts))), item


def _exact(annotation: Annotation, item: Item) -> Annotation:
    """The annotation with what is noted beside its first element."""
    xml = item.xml
    if GROUP_NOTE in xml:
        is_number = re.fullmatch(r"-?[0-9]{1,40}", xml[GROUP_NOTE])
        annotation = dataclasses.replace(annotation, group=int(xml[GROUP_NOTE]) if is_number else None)
    if SHAPE_NOTE in xml:
        annotation = exact_notes.with_shape(annotation, json_values.or_none(xml[SHAPE_NOTE]))
    return exact_notes.with_box(annotation, json_values.or_none(xml[BOX_NOTE])) if BOX_NOTE in xml else annotation


def _recorded_hw(element: Element) -> tuple[int, int] | None:
    if element.get("width") is None or element.get("height") is None:
        return None
    try:
        image_hw = (whole(element.get("height"), "height"), whole(element.get("width"), "width"))
    except ValueError as error:
        raise Unusable("size", str(error)) from None
    if (reason := shapes.hw_fault(image_hw)) is not None:
        raise Unusable("size", reason)
    return image_hw


def _score(text: Any) -> float | None:
    try:
        score = float(text)
    except (TypeError, ValueError):
        return None
    return score if 0 <= score <= 1 else None


def _json_object(text: str | None) -> dict[str, Any]:
    value = json_values.or_none(text or "")
    return value if isinstance(value, dict) else {}
