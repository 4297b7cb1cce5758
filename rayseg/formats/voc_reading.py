"""Reading VOC, an image at a time: `rayseg.formats.voc` says by which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Category, Mask
from rayseg.formats import data_paths, orientation, safe_xml, shapes, voc_layout, voc_xml
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.instance_notes import extras_in
from rayseg.formats.item_files import BadFile, read_bytes, read_ids
from rayseg.formats.voc_layout import NO_SPLIT, VOID, Layout
from rayseg.formats.voc_ties import tie
from rayseg.formats.voc_xml import Thing
from rayseg.images.headers import Header
from rayseg.kernels import Rles, encode, encode_id_map

XML_BYTES_MAX = 16 << 20


class Classes(NamedTuple):
    """The categories, and which index in class maps is which of them."""

    categories: tuple[Category, ...]
    places: dict[int, int]


class VocImages:
    """The annotated images, by id."""

    def __init__(self, layout: Layout, classes: Classes, faults: Faults) -> None:
        self._layout, self._classes, self._faults = layout, classes, faults
        self._class_of = {category.name: i for i, category in enumerate(classes.categories)}

    def __iter__(self) -> Iterator[AnnotatedImage]:
        self._faults.counts.clear()
        self._faults.messages.clear()
        splits = voc_layout.splits_of(self._layout)
        ids = self._layout.ids
        seen: set[str] = set()
        self._tell_of_images_alone(ids, splits)
        for image_id in ids:
            try:
                image = self._image(image_id, splits)
                if image.name in seen:
                    uri = self._layout.at(f"Annotations/{image_id}.xml")
                    raise BadFile("image", uri, f"expected one image {image.name!r}, found two")
            except BadFile as error:
                self._faults.add(error.uri, error.kind, f"image {image_id}", str(error))
                continue
            seen.add(image.name)
            yield image

    def _tell_of_images_alone(self, ids: list[str], splits: dict[str, dict[str, str]]) -> None:
        known = set(ids)
        for kind, listed in splits.items():
            for image_id, name in listed.items():
                if image_id not in known:
                    message = "expected an annotation for each listed id, found none"
                    self._faults.add(self._layout.lists[kind, name], "annotation", f"id {image_id[:200]}", message)
                    known.add(image_id)
        for name in sorted(self._layout.image_names, key=str.encode):
            if voc_layout.stem(name) not in known and name not in known:
                message = "expected an annotation for each image, found none"
                self._faults.add(self._layout.images, "annotation", f"image {name}", message)

    def _image(self, image_id: str, splits: dict[str, dict[str, str]]) -> AnnotatedImage:
        xml_uri = self._layout.at(f"Annotations/{image_id}.xml")
        root = None
        if image_id in self._layout.xmls:
            try:
                root = safe_xml.parse(read_bytes(xml_uri, XML_BYTES_MAX), xml_uri)
            except BadAnnotation as error:
                raise BadFile("xml", xml_uri, str(error)) from None
            if root.tag != "annotation":
                raise BadFile("xml", xml_uri, f"expected an element annotation, found {root.tag}")
        uri = xml_uri if root is not None else self._layout.at(f"SegmentationObject/{image_id}.png")
        name = self._name(image_id, root)
        there = name in self._layout.image_names
        image_uri = data_paths.at(self._layout.images, name) if there else None
        found = orientation.raster(image_uri)
        numbers = self._ids("SegmentationObject", image_id) if image_id in self._layout.object_maps else None
        recorded_hw = self._recorded_hw(root, numbers, uri, found)
        annotations, extras = self._annotations(image_id, root, numbers, recorded_hw)
        try:
            turned, image_hw = orientation.upright(annotations, found, recorded_hw)
            extras = _upright_void(extras, found, recorded_hw)
        except ValueError as error:
            raise BadFile("size", uri, str(error)) from None
        split = splits["Segmentation"].get(image_id, splits["Main"].get(image_id))
        main = splits["Main"].get(image_id, split)
        if main != split:
            extras["voc"] = {**extras.get("voc", {}), "main": main}
        attributes = {} if root is None else voc_xml.attributes_of(root)
        split = None if split == NO_SPLIT else split
        return AnnotatedImage(name, image_uri, image_hw, turned, split, attributes, extras)

    def _name(self, image_id: str, root: Element | None) -> str:
        """The image's name in JPEGImages: the id with the suffix that the XML or the folder says."""
        folder, slash, last = image_id.rpartition("/")
        said = "" if root is None else voc_xml.text_of(root, "filename")
        if said and "/" not in said and last in (said, voc_layout.stem(said)):
            return folder + slash + said
        return self._layout.image_of.get(image_id, f"{image_id}.jpg")

    def _recorded_hw(
        self, root: Element | None, numbers: np.ndarray | None, uri: str, found: Header | None
    ) -> tuple[int, int] | None:
        """The size that the XML says, else the map's."""
        try:
            hw = None if root is None else voc_xml.size_of(root)
        except ValueError as error:
            raise BadFile("size", uri, str(error)) from None
        if hw is not None and (fault := shapes.hw_fault(hw)) is not None:
            raise BadFile("size", uri, fault)
        if numbers is None:
            return hw
        map_hw = (numbers.shape[0], numbers.shape[1])
        if hw is not None and hw != map_hw:
            raise BadFile("size", uri, f"expected SegmentationObject of {hw} (H, W) as the XML says, found {map_hw}")
        return map_hw

    def _ids(self, folder: str, image_id: str) -> np.ndarray:
        return read_ids(self._layout.at(f"{folder}/{image_id}.png"))

    def _annotations(
        self, image_id: str, root: Element | None, numbers: np.ndarray | None, hw: tuple[int, int] | None
    ) -> tuple[list[Annotation], dict[str, dict]]:
        """What the XML says, with the masks of the map."""
        extras = {} if root is None else {**extras_in(voc_xml.note_of(root)), **voc_xml.extras_of(root)}
        things = [] if root is None else self._things(image_id, root)
        masks: dict[int, Mask] = {}
        alone: list[Annotation] = []
        if numbers is not None and hw is not None:
            if (void := numbers == VOID).any():
                extras["voc"] = {**extras.get("voc", {}), "void": encode(void[None]).strings()[0].decode("ascii")}
            found, rles = encode_id_map(np.where(void, 0, numbers))
            corners = rles.boxes_xywh()
            corners[:, 2:] += corners[:, :2]
            given = [thing and thing.annotation.box_xyxy for thing in things]
            ties = tie(found.tolist(), corners, [thing and thing.instance for thing in things], given)
            for place, number, corner, counts in zip(ties, found, corners.tolist(), rles.strings(), strict=True):
                if place is not None:
                    masks[place] = Mask(counts, hw)
                elif (category := self._class_at(image_id, numbers == number)) is not None:
                    alone.append(Annotation(category, tuple(corner), Mask(counts, hw)))
        return [*self._with_masks(image_id, things, masks), *alone], extras

    def _with_masks(self, image_id: str, things: list[Thing | None], masks: dict[int, Mask]) -> Iterator[Annotation]:
        for place, thing in enumerate(things):
            if thing is None:
                continue
            box = thing.annotation.box_xyxy if thing.has_box else None
            if box is None and place not in masks:
                uri = self._layout.at(f"Annotations/{image_id}.xml")
                self._faults.add(uri, "box", f"object {place + 1}", "expected a bndbox or a mask, found neither")
                continue
            category = self._class_of[thing.name]
            yield dataclasses.replace(thing.annotation, category=category, box_xyxy=box, shape=masks.get(place))

    def _things(self, image_id: str, root: Element) -> list[Thing | None]:
        """The objects, None in the place of one that is broken."""
        uri, things = self._layout.at(f"Annotations/{image_id}.xml"), []
        for i, element in enumerate(root.findall("object")):
            item = f"line {safe_xml.line_of(element)}, object {i + 1}"
            thing = None
            try:
                thing = voc_xml.thing_of(element)
            except ValueError as error:
                self._faults.add(uri, "box" if isinstance(error, voc_xml.BadBox) else "object", item, str(error))
            if thing is not None and thing.name not in self._class_of:
                self._faults.add(uri, "class", item, f"expected a class of labelmap.txt, found {thing.name[:80]!r}")
                thing = None
            things.append(thing)
        return things

    def _class_at(self, image_id: str, pixels: np.ndarray) -> int | None:
        """The class that SegmentationClass has in most of the pixels (H, W) bool; None, and a fault, where it has none."""
        uri = self._layout.at(f"SegmentationObject/{image_id}.png")
        if image_id not in self._layout.class_maps:
            self._faults.add(uri, "mask", f"image {image_id}", "expected an object for each number, found one too many")
            return None
        indices = self._ids("SegmentationClass", image_id)
        if indices.shape != pixels.shape:
            message = f"expected SegmentationClass of {pixels.shape} (H, W), found {indices.shape}"
            raise BadFile("size", uri, message)
        values, counts = np.unique(indices[pixels], return_counts=True)
        place = self._classes.places.get(int(values[counts.argmax()]))
        if place is None:
            self._faults.add(
                uri, "class", f"image {image_id}", f"expected a known class, found {values[counts.argmax()]}"
            )
        return place


def _upright_void(
    extras: dict[str, dict], found: Header | None, recorded_hw: tuple[int, int] | None
) -> dict[str, dict]:
    void = extras.get("voc", {}).get("void")
    if void is None or recorded_hw is None:
        return extras
    one = Annotation(0, shape=Mask(void.encode("ascii"), recorded_hw))
    ((turned,), _) = orientation.upright([one], found, recorded_hw)
    assert isinstance(turned.shape, Mask)
    return {**extras, "voc": {**extras["voc"], "void": turned.shape.counts.decode("ascii")}}


def void_of(image: AnnotatedImage, image_hw: tuple[int, int]) -> np.ndarray | None:
    """The void pixels (H, W) bool that were read with the image; None where there are none."""
    void = image.extras.get("voc", {}).get("void")
    if not isinstance(void, str):
        return None
    rles = Rles.from_strings([void], image_hw)
    return None if rles.check()[0] else rles.decode(0) != 0
