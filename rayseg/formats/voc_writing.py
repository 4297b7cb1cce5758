"""Writing VOC, an image at a time: `rayseg.formats.voc` says by which rules."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Dataset
from rayseg.formats import data_paths, id_maps, image_files, painting, shapes, voc_layout, voc_xml
from rayseg.formats.class_names import distinct
from rayseg.formats.keeping import keep_extras
from rayseg.formats.listing import stem
from rayseg.formats.losses import Losses
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import Held
from rayseg.formats.voc_layout import BOTH, NO_SPLIT, VOID
from rayseg.formats.voc_reading import void_of

_HELD = Held("VOC", "voc", crowd=True, score=True, group=True, attributes=None, image_attributes=True, colours=True)
_MOST = VOID - 1


class Writer:
    """Puts one image after the other, and remembers the lists."""

    def __init__(self, dataset: Dataset, sink: Sink, losses: Losses) -> None:
        self._sink, self._losses = sink, losses
        self._categories = distinct(dataset.categories, losses, "VOC", _as_line)
        self._colours = voc_layout.palette_of(self._categories)
        self._ids: set[str] = set()
        self._names: set[str] = set()
        self._lists: dict[str, dict[str, list[str]]] = {"Main": defaultdict(list), "Segmentation": defaultdict(list)}
        _HELD.dataset(dataset, losses)

    def put(self, image: AnnotatedImage) -> None:
        """One image: its XML, its maps, its file."""
        image_id = self._id(image)
        data = image_files.encoded(image)
        image_hw = image_files.upright_hw(image)
        if image_id is None or image_hw is None:
            reason = "its size is not known" if image_id else "its name is no line of a list, or another image has it"
            self._losses.dropped("image", f"{reason}; so are its annotations", 1)
            for annotation in image.annotations:
                self._losses.dropped("mask" if shapes.has_mask(annotation) else "box", "its image is not written")
            return
        self._ids.add(image_id)
        self._names.add(image.name)
        self._losses.kept("image")
        _HELD.image(dataclasses.replace(image, extras={}), self._losses)
        image = dataclasses.replace(image, extras=self._with_extras(image.extras))
        written, masked = self._annotations(image, image_id, image_hw)
        self._sink.put(f"Annotations/{image_id}.xml", self._xml(image, image_hw, written, masked))
        if data is None:
            self._losses.dropped("image file", "it cannot be read; VOC's loaders look for it in JPEGImages")
        else:
            self._losses.kept("image file")
            self._sink.put(f"JPEGImages/{image.name}", data)
        split = NO_SPLIT if image.split is None else image.split
        if image.split == NO_SPLIT:
            self._losses.dropped("split", f"VOC's list {NO_SPLIT!r} is that of images without a split")
        main = image.extras.get("voc", {}).get("main", split)
        self._lists["Main"][main if isinstance(main, str) else split].append(image_id)
        if masked or main != split:
            self._lists["Segmentation"][split].append(image_id)

    def finish(self) -> None:
        """The lists and the classes."""
        for kind, lists in self._lists.items():
            both = [image_id for name in ("train", "val", BOTH) for image_id in lists.get(name, ())]
            if lists.get("train") and lists.get("val"):
                lists[BOTH] = sorted(both, key=str.encode)
            for name, ids in lists.items():
                if not data_paths.is_writable(f"{name}.txt"):
                    self._losses.dropped("split", "its name cannot be that of a list", len(ids))
                    continue
                content = "".join(f"{image_id}\n" for image_id in ids)
                self._sink.put(f"ImageSets/{kind}/{name}.txt", content.encode(), last=True)
        self._sink.put("labelmap.txt", voc_layout.label_map_text(self._categories, self._colours).encode(), last=True)

    def _id(self, image: AnnotatedImage) -> str | None:
        """The image's id; None where it can have none."""
        name = image.name
        is_line = "\n" not in name and all(map(voc_xml.speakable, name.split("/")))
        if not data_paths.is_writable(name) or not is_line or name in self._names:
            return None
        return next((one for one in (stem(name), name) if one.strip() == one and one not in self._ids), None)

    def _annotations(
        self, image: AnnotatedImage, image_id: str, image_hw: tuple[int, int]
    ) -> tuple[list[tuple[Annotation, int | None]], bool]:
        """The annotations to write with their numbers, and whether there is a map; which is put."""
        places, rles = painting.drawable(image.annotations, image_hw, self._losses, "VOC")
        areas = rles.areas()
        for _ in range(int((areas == 0).sum())):
            self._losses.dropped("mask", "it covers no pixel's centre")
        chosen = np.flatnonzero(areas)[:_MOST]
        if (more := int((areas > 0).sum()) - len(chosen)) > 0:
            self._losses.dropped("mask", f"a map holds {_MOST} objects: these are left as boxes", more)
        by_order = max((places[i] + 1 for i in chosen), default=0) <= _MOST
        numbers = [places[i] + 1 if by_order else k + 1 for k, i in enumerate(chosen)]
        painted = painting.paint(rles.select(chosen), np.array(numbers, np.int64))
        painting.tell_visible(painted, self._losses)
        seen = {places[i]: number for i, number, iou in zip(chosen, numbers, painted.ious, strict=True) if iou > 0}
        void = void_of(image, image_hw)
        if seen or void is not None:
            self._put_maps(image, image_id, painted.ids, {number: place for place, number in seen.items()}, void)
        return self._with_numbers(image, seen), bool(seen) or void is not None

    def _with_numbers(self, image: AnnotatedImage, seen: dict[int, int]) -> list[tuple[Annotation, int | None]]:
        written = []
        for place, annotation in enumerate(image.annotations):
            box, number = shapes.box_of(annotation), seen.get(place)
            is_line = annotation.shape is not None and not shapes.has_mask(annotation)
            if box is None or (is_line and annotation.box_xyxy is None):
                continue
            if not all(abs(side) <= shapes.COORDINATE_MAX for side in box) or box[0] > box[2] or box[1] > box[3]:
                self._losses.dropped("box", "its corners are no numbers, or the wrong way round")
                continue
            if annotation.box_xyxy is not None:
                self._losses.kept("box")
            held = voc_xml.holds(annotation.attributes)
            bare = dataclasses.replace(annotation, extras={})
            _HELD.annotation(bare, self._losses, annotation.attributes.keys() - set(held))
            kept = {name: annotation.attributes[name] for name in held}
            given = box if number is None else annotation.box_xyxy
            extras = self._with_extras(annotation.extras)
            written.append((dataclasses.replace(bare, box_xyxy=given, attributes=kept, extras=extras), number))
        return written

    def _with_extras(self, extras: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """VOC's own extras, and those of other formats that JSON holds."""
        own = {"voc": extras["voc"]} if "voc" in extras else {}
        return own | keep_extras(extras, self._losses, "voc")

    def _put_maps(
        self, image: AnnotatedImage, image_id: str, ids: np.ndarray, place_of: dict[int, int], void: np.ndarray | None
    ) -> None:
        classes = np.zeros(VOID + 1, np.int64)
        for number, place in place_of.items():
            classes[number] = image.annotations[place].category + 1
        ids = ids.copy()
        if void is not None:
            ids[void & (ids == 0)] = VOID
        self._sink.put(f"SegmentationObject/{image_id}.png", id_maps.indexed(ids, id_maps.colour_map()))
        if len(self._categories) > _MOST:
            self._losses.dropped("class map", f"SegmentationClass holds {_MOST} classes")
            return
        classes[VOID] = VOID
        self._sink.put(f"SegmentationClass/{image_id}.png", id_maps.indexed(classes[ids], self._colours))

    def _xml(
        self,
        image: AnnotatedImage,
        image_hw: tuple[int, int],
        written: list[tuple[Annotation, int | None]],
        masked: bool,
    ) -> bytes:
        root = Element("annotation")
        voc_xml.with_xml_attributes(root, image.extras)
        SubElement(root, "filename").text = image.name.rpartition("/")[2]
        voc_xml.add_size(root, image_hw)
        SubElement(root, "segmented").text = str(int(masked))
        voc_xml.add_note(root, voc_xml.extras_note(image.extras))
        voc_xml.add_extras(root, image.extras)
        voc_xml.add_attributes(root, {name: image.attributes[name] for name in voc_xml.holds(image.attributes)})
        for annotation, number in written:
            box = shapes.box_of(annotation)
            assert box is not None
            voc_xml.add_thing(root, self._categories[annotation.category].name, annotation, box, number)
        return voc_xml.document(root)


def _as_line(name: str) -> str:
    """A class name that both XML and a line of labelmap.txt can hold."""
    name = " ".join(voc_xml.spoken(name).split("\n"))
    return f"_{name}" if name.startswith("#") or name == "background" else name
