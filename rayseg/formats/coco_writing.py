"""From the common record to COCO's JSON: one file per split, written piece by piece.

What COCO has no words for stands under "rayseg": of an annotation `shape` (see `shape_json`), `box` (x1, y1, x2, y2, where
no width gives it exactly), `made`, those of "area" and "bbox" that did not come with it, and `extras` of other formats; of
an image and a category `extras`; of the file `split` and `info`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask, Points, Polygons, Polyline
from rayseg.formats import coco_layout, data_paths, image_files, shapes
from rayseg.formats.coco_index import is_id
from rayseg.formats.coco_records import NAME, OWN
from rayseg.formats.keeping import keep_annotation, keep_extras, keep_values, kind_of
from rayseg.formats.losses import Losses
from rayseg.formats.shape_json import encode_shape
from rayseg.formats.sink import Sink
from rayseg.formats.unheld import tell_of_id
from rayseg.kernels import Rles

_IMAGES = "images"
_COPIED_BYTES = 8 << 20


def write_dataset(dataset: Dataset, sink: Sink, losses: Losses) -> None:
    """All files of the data set; see `rayseg.formats.coco`."""
    categories, category_ids = _categories(dataset.categories, losses)
    info = dataset.info.get(NAME, {})
    foreign = keep_values({key: one for key, one in dataset.info.items() if key != NAME and one}, "extra", losses)
    with ExitStack() as stack:
        files: dict[str | None, _SplitFile] = {}
        for image in dataset.images:
            if image.split not in files:
                files[image.split] = _SplitFile(stack)
            _write_image(image, files[image.split], category_ids, sink, losses)
        for split in [] if files else [key or None for key in info] or [None]:
            files[split] = _SplitFile(stack)
        written = [_info_of(info, split) for split in files]
        for key, said in info.items():
            if said not in written:
                losses.dropped("extra", f"no image is in the split {key!r}, of which it is said")
        for split, file in files.items():
            name, head = coco_layout.name_for(split), dict(_info_of(info, split))
            own: dict[str, Any] = {"info": foreign} if foreign else {}
            if coco_layout.split_of(name) != split:
                own["split"] = split
            head = {**head, OWN: own} if own else head
            file.finish(sink, name, {**head, "categories": categories})


def _info_of(info: Mapping[str, Any], split: str | None) -> Mapping[str, Any]:
    """The file's other keys: those of its split, else of the first."""
    if not info:
        return {"info": {}, "licenses": []}
    found = info.get(split or "", next(iter(info.values())))
    return found if isinstance(found, Mapping) else {}


class _SplitFile:
    """What is known so far of one instances file."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.image_ids, self.annotation_ids = _Ids(), _Ids()
        self._arrays: dict[str, IO[bytes]] = {}

    def add(self, array: str, item: Mapping[str, Any]) -> None:
        """Append `item` to "images", "annotations" or "results"."""
        if array not in self._arrays:
            file = tempfile.TemporaryFile(prefix="rayseg-coco-")  # noqa: SIM115  closed with the stack
            self._arrays[array] = self._stack.enter_context(file)
        file = self._arrays[array]
        file.write((b",\n" if file.tell() else b"") + json.dumps(item, separators=(",", ":")).encode())

    def finish(self, sink: Sink, name: str, head: Mapping[str, Any]) -> None:
        """Put the whole file, and the results beside."""
        results = self._arrays.pop("results", None)
        if results is not None:
            with sink.stream(coco_layout.results_name(name)) as file:
                _copy_array(results, file)
        with sink.stream(name, last=True) as file:
            file.write(json.dumps(head, separators=(",", ":")).encode()[:-1])
            for array in ("images", "annotations"):
                file.write(b',\n"%b":' % array.encode())
                _copy_array(self._arrays.get(array), file)
            file.write(b"}\n")


def _copy_array(items: IO[bytes] | None, file: IO[bytes]) -> None:
    file.write(b"[")
    if items is not None:
        items.seek(0)
        shutil.copyfileobj(items, file, _COPIED_BYTES)
    file.write(b"]")


class _Ids:
    """Ids of one kind in one file, no two the same."""

    def __init__(self) -> None:
        self._used: set[Any] = set()
        self._next = 1

    def take(self, wanted: Any) -> tuple[Any, bool]:
        """`wanted` where it is an id and free, else the next free number; and whether it is what was wanted, if anything."""
        if is_id(wanted) and wanted not in self._used:
            self._used.add(wanted)
            return wanted, True
        while self._next in self._used:
            self._next += 1
        self._used.add(self._next)
        return self._next, not is_id(wanted)


# ---- categories


def _categories(categories: Sequence[Category], losses: Losses) -> tuple[list[dict[str, Any]], list[Any]]:
    """The file's `categories`, and the id of each class."""
    ids, found = _Ids(), []
    wanted = [category.extras.get(NAME, {}).get("id", category.source_id) for category in categories]
    given = [ids.take(one)[0] if is_id(one) else None for one in wanted]  # before any is made up
    for category, one in zip(categories, given, strict=True):
        losses.kept("class")
        category_id = ids.take(None)[0] if one is None else one
        tell_of_id(category.source_id, category_id, losses, "another class has the same")
        value = {**category.extras.get(NAME, {}), "id": category_id, "name": category.name}
        if category.supercategory is not None:
            value["supercategory"] = category.supercategory
            losses.kept("supercategory")
        if category.colour is not None:
            value["color"] = list(category.colour)
            losses.kept("class colour")
        if foreign := keep_extras(category.extras, losses, NAME):
            value[OWN] = {"extras": foreign}
        found.append(value)
    return found, [value["id"] for value in found]


# ---- images


def _write_image(image: AnnotatedImage, file: _SplitFile, ids: Sequence[Any], sink: Sink, losses: Losses) -> None:
    try:
        name = _file_name(image)
    except ValueError as error:
        losses.dropped("image", str(error))
        for annotation in image.annotations:
            losses.dropped(kind_of(annotation), "its image is dropped")
        return
    losses.kept("image")
    masks = (a.shape.image_hw for a in image.annotations if isinstance(a.shape, Mask))
    image_hw = image_files.upright_hw(image) or next(masks, None)
    image_id = _taken(file.image_ids, image.extras.get(NAME, {}).get("id"), losses)
    value = {**image.extras.get(NAME, {}), "id": image_id, "file_name": name}
    if image_hw is not None:
        value.update(height=image_hw[0], width=image_hw[1])
    if attributes := keep_values(image.attributes, "attribute", losses):
        value["attributes"] = attributes
    if foreign := keep_extras(image.extras, losses, NAME):
        value[OWN] = {"extras": foreign}
    file.add("images", value)
    image_files.tell_of_file(image, losses, "COCO")
    if image.data is not None:
        _put_image(image.name, image.data, sink, losses)
    areas = _areas(image.annotations, image_hw)
    for annotation, area in zip(image.annotations, areas, strict=True):
        _write_annotation(annotation, file, image_id, ids[annotation.category], image_hw, area, losses)


def _file_name(image: AnnotatedImage) -> str:
    """The image's name, or the one it came by where that means the same. Raises `ValueError` for one no reader takes."""
    original = image.extras.get(NAME, {}).get("file_name")
    if isinstance(original, str) and image.data is None:
        path = data_paths.inside(original)
        if image.name in (path, f"{image.split}/{path}"):
            return original
    if data_paths.inside(image.name) != image.name:
        raise ValueError(f"expected a plain path as an image's name, found {image.name[:80]!r}")
    return image.name


def _put_image(name: str, data: bytes, sink: Sink, losses: Losses) -> None:
    if data_paths.is_writable(name):
        sink.put(f"{_IMAGES}/{name}", data)
        losses.kept("image file")
    else:
        losses.dropped("image file", "its name is none of a file")


def _taken(ids: _Ids, wanted: Any, losses: Losses) -> Any:
    found, as_wanted = ids.take(wanted)
    if not as_wanted:
        losses.approximated("id", "another in the file has the same id")
    return found


# ---- annotations


def _write_annotation(
    annotation: Annotation, file: _SplitFile, image_id: Any, category_id: Any, image_hw: Any, area: Any, losses: Losses
) -> None:
    own: dict[str, Any] = {}
    try:
        segmentation = _segmentation(annotation, image_hw, own)
    except ValueError as error:
        losses.dropped(kind_of(annotation), str(error))
        return
    keep_annotation(annotation, losses)
    extras = annotation.extras.get(NAME, {})
    if made := [
        key for key, came in (("area", "area" in extras), ("bbox", annotation.box_xyxy is not None)) if not came
    ]:
        own["made"] = made
    value = {"area": area, **extras, "id": _taken(file.annotation_ids, extras.get("id"), losses), "image_id": image_id}
    value.update(category_id=category_id, segmentation=segmentation, bbox=_bbox(annotation, own))
    value["iscrowd"] = int(annotation.crowd)
    if annotation.group is not None:
        value["group_id"] = annotation.group
    if attributes := keep_values(annotation.attributes, "attribute", losses):
        value["attributes"] = attributes
    if foreign := keep_extras(annotation.extras, losses, NAME):
        own["extras"] = foreign
    if annotation.score is not None:
        value["score"] = annotation.score
        keys = ("image_id", "category_id", "bbox", "score", *(("segmentation",) if segmentation else ()))
        file.add("results", {key: value[key] for key in keys})
    file.add("annotations", {**value, OWN: own} if own else value)


def _segmentation(annotation: Annotation, image_hw: tuple[int, int] | None, own: dict[str, Any]) -> Any:
    """COCO's form of the shape; what that leaves out goes into `own`. Raises `ValueError` where there is none."""
    shape = annotation.shape
    if shape is None:
        return []
    if isinstance(shape, Polyline | Points):
        own["shape"] = encode_shape(shape)
        return []
    if isinstance(shape, Polygons) and shape.parts and all(len(part) == 1 and len(part[0]) > 2 for part in shape.parts):
        return [part[0].reshape(-1).tolist() for part in shape.parts]
    if image_hw is None:
        raise ValueError("the size of its image is not known")
    rle = shapes.rle_of(annotation, image_hw)
    if not isinstance(shape, Mask):
        own["shape"] = encode_shape(shape)
    counts = rle.runs()[0].tolist() if annotation.crowd else rle.strings()[0].decode("ascii")
    return {"size": list(image_hw), "counts": counts}


def _areas(annotations: Sequence[Annotation], image_hw: tuple[int, int] | None) -> list[Any]:
    """The area that came with each annotation, else its mask's pixels; 0 where nothing tells it."""
    areas = [annotation.extras.get(NAME, {}).get("area") for annotation in annotations]
    missing = [i for i, area in enumerate(areas) if area is None]
    for i in missing:
        try:
            rle = Rles.empty((0, 0)) if image_hw is None else shapes.rle_of(annotations[i], image_hw)
            areas[i] = int(rle.areas().sum())
        except ValueError:
            areas[i] = 0
    return areas


def _bbox(annotation: Annotation, own: dict[str, Any]) -> list[float]:
    """x, y, width, height such that x + width is the box's right side, to the last bit where a width can do that."""
    try:
        box = shapes.box_of(annotation)
    except ValueError:
        box = None
    if box is None:
        return [0.0, 0.0, 0.0, 0.0]
    x1, y1, x2, y2 = (float(side) for side in box)
    width, height = _span(x1, x2), _span(y1, y2)
    if annotation.box_xyxy is not None and (x1 + width != x2 or y1 + height != y2):
        own["box"] = [x1, y1, x2, y2]
    return [x1, y1, width, height]


def _span(low: float, high: float) -> float:
    """The number of fewest decimals that takes `low` to `high`: 0.2 from 0.1 to 0.30000000000000004."""
    span = high - low
    for decimals in range(18):
        rounded = round(span, decimals)
        if low + rounded == high:
            return rounded
    return span
