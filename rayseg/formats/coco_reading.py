"""COCO files as one data set: categories made one list, splits one after the other, results joined to their images.

Shapes: N annotations, I images.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.formats import coco_layout, data_paths, orientation
from rayseg.formats.coco_index import CocoFile, Grouping, RawAnnotation, ids_of, is_id, rows_of
from rayseg.formats.coco_records import NAME, OWN, annotation_of, category_of, image_of, with_upright_keypoints
from rayseg.formats.faults import BadAnnotation, Faults, Unusable
from rayseg.formats.json_values import shown
from rayseg.images.headers import Header
from rayseg.storage.entry import scheme_of

_BLOCK_IMAGES = 64  # whose headers and annotations are fetched together
_THREADS = 32


@dataclass(slots=True)
class Part:
    """One annotation file of the data set.

    images     the file whose images its annotations belong to: itself, a ground truth, or None for bare results
    classes    its category ids, and the class each is
    folder     where its images lie, None where that is not known
    """

    file: CocoFile
    images: CocoFile | None
    split: str | None
    folder: str | None = None
    classes: dict[Any, int] = field(default_factory=dict)


def open_part(uri: str, images: str | None, *, alone: bool) -> Part:
    """One file, scanned. Raises `BadAnnotation` for a file that is none of COCO's, `NotJson` for malformed JSON."""
    file = CocoFile(uri)
    if file.is_results:
        return _results_part(file, images)
    if file.images is None:
        keys = (
            ", ".join(map(repr, [*file.others, *(("annotations",) if file.annotations is not None else ())])) or "none"
        )
        raise BadAnnotation(uri, f"expected COCO's 'images' in it, found the keys {keys}")
    own = file.others.get(OWN)
    split = coco_layout.split_of(uri, alone=alone)
    if isinstance(own, dict) and isinstance(own.get("split", split), str | None):
        split = own.get("split", split)
    return Part(file, file, split, _image_folder(file, split, images))


def _results_part(file: CocoFile, images: str | None) -> Part:
    """Results, with the ground truth that `images` names, or the one beside that knows all their images."""
    if images is not None and images.endswith(".json"):
        truth = CocoFile(images)
        if truth.images is None:
            raise BadAnnotation(images, "expected a ground truth with 'images' in it")
        return Part(file, truth, None, _image_folder(truth, coco_layout.split_of(images), None))
    assert file.annotations is not None
    wanted = ids_of(file.annotations, 0)
    truths = [CocoFile(one) for one in coco_layout.files_beside(file.uri)]
    knowing = [one for one in truths if one.images is not None and (rows_of(ids_of(one.images, 0), wanted) >= 0).all()]
    if len(knowing) != 1:
        return Part(file, None, None)
    return Part(file, knowing[0], None, _image_folder(knowing[0], coco_layout.split_of(knowing[0].uri), images))


def _image_folder(file: CocoFile, split: str | None, images: str | None) -> str | None:
    names = []
    for row in range(min(len(file.images or ()), 5)):
        try:
            names.append(image_of(file.image(row), None).name)
        except Unusable:
            continue
    return coco_layout.image_folder(file.uri, split, images, names)


# ---- categories


def joined_categories(parts: Sequence[Part], faults: Faults) -> tuple[Category, ...]:
    """One list of the categories of all parts, by name; fills in each part's `classes`."""
    categories: list[Category] = []
    for part in parts:
        source = part.images or part.file
        values = source.others.get("categories")
        before = {category.name: index for index, category in enumerate(categories)}
        found = _categories(source, values, faults) if isinstance(values, list) else _bare_categories(part.file)
        for source_id, category in found:
            index = before.get(category.name)
            if index is None:
                index = len(categories)
                categories.append(category)
            part.classes[source_id] = index
    return tuple(categories)


def _categories(file: CocoFile, values: list[Any], faults: Faults) -> Iterator[tuple[Any, Category]]:
    known: set[Any] = set()
    for number, value in enumerate(values):
        try:
            category = category_of(value)
            if value["id"] in known:
                raise Unusable("category", f"expected each id once, found {value['id']!r} again")
        except Unusable as error:
            faults.add(file.uri, error.kind, f"categories[{number}]", str(error))
            continue
        known.add(value["id"])
        yield value["id"], category


def _bare_categories(file: CocoFile) -> Iterator[tuple[Any, Category]]:
    """Categories of which only ids are known: the ids are their names."""
    ids = ids_of(file.annotations, 1) if file.annotations is not None else []
    plain = ids.tolist() if isinstance(ids, np.ndarray) else [one for one in ids if is_id(one)]
    for one in sorted(set(plain), key=lambda one: (isinstance(one, str), one)):
        extras = {} if isinstance(one, int) else {NAME: {"id": one}}
        yield one, Category(str(one), one if isinstance(one, int) else None, extras=extras)


# ---- images


class CocoImages:
    """The images of all parts, decoded as they are asked for; `len` counts also those that turn out unusable."""

    def __init__(self, parts: Sequence[Part], faults: Faults) -> None:
        self._parts, self._faults = parts, faults
        self._early = list(faults.messages), faults.counts.copy()  # those of the categories

    def __len__(self) -> int:
        return sum(len(_image_ids(part)) for part in self._parts)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        messages, counts = self._early
        self._faults.messages[:] = messages
        self._faults.counts.clear()
        self._faults.counts.update(counts)
        names: set[int] = set()  # their hashes: the names of a million images would take 100 MB
        for part in self._parts:
            yield from _part_images(part, names, self._faults)


def read_dataset(uris: Sequence[str], images: str | None, faults: Faults) -> Dataset:
    """The data set of the annotation files `uris`."""
    parts = [open_part(uri, images, alone=len(uris) == 1) for uri in uris]
    categories = joined_categories(parts, faults)
    info = {part.split or "": _info(part) for part in parts}
    return Dataset(categories, CocoImages(parts, faults), {NAME: info, **_foreign_info(parts)}, faults)


def _info(part: Part) -> dict[str, Any]:
    source = part.images or part.file
    return {key: value for key, value in source.others.items() if key not in ("categories", OWN)}


def _foreign_info(parts: Sequence[Part]) -> dict[str, Any]:
    own = [(part.images or part.file).others.get(OWN) for part in parts]
    found = next((one["info"] for one in own if isinstance(one, dict) and isinstance(one.get("info"), dict)), {})
    return {key: value for key, value in found.items() if key != NAME and isinstance(value, dict)}


def _image_ids(part: Part) -> list[Any] | np.ndarray:
    """The ids of the part's images (I,); of bare results those that occur, in the order of the file."""
    if part.images is not None:
        return [] if part.images.images is None else ids_of(part.images.images, 0)
    assert part.file.annotations is not None
    ids = ids_of(part.file.annotations, 0)
    if isinstance(ids, np.ndarray):
        return ids[np.sort(np.unique(ids, return_index=True)[1])]
    return list(dict.fromkeys(one for one in ids if is_id(one)))


def _part_images(part: Part, earlier: set[int], faults: Faults) -> Iterator[AnnotatedImage]:
    """The images of one part; their names' hashes are added to `earlier`."""
    items, ids = part.file.annotations, _image_ids(part)
    image_rows = np.empty(0, np.int64) if items is None else rows_of(ids, ids_of(items, 0))
    grouping = Grouping(image_rows, len(ids))
    for number in grouping.orphans.tolist():
        assert items is not None
        found = items.odd[number][0] if number in items.odd else int(items.values[number, 0])
        item, message = f"{part.file.array}[{number}]", f"expected the id of an image, found {shown(found)}"
        faults.add(part.file.uri, "annotation", item, message)
    images = _bare_images(part, ids, earlier, faults)
    while block := list(itertools.islice(images, _BLOCK_IMAGES)):
        rows = [grouping.rows(row) for row, _ in block]
        raws = iter(part.file.read_annotations(list(itertools.chain.from_iterable(rows))) if any(rows) else ())
        headers = _headers([image.uri for _, image in block])
        for (row, image), header, of_image in zip(block, headers, rows, strict=True):
            annotations = tuple(_annotations(part, itertools.islice(raws, len(of_image)), image, faults))
            image_hw = image.image_hw or next(
                (a.shape.image_hw for a in annotations if isinstance(a.shape, Mask)), None
            )
            try:
                if header is not None and orientation.drawn_on(header, image_hw) == "raw":
                    annotations = tuple(with_upright_keypoints(one, header) for one in annotations)
                turned, image_hw = orientation.upright(annotations, header, image_hw)
            except ValueError as error:
                faults.add((part.images or part.file).uri, "image", f"images[{row}]", f"{error}; it is {image.uri}")
                continue
            yield dataclasses.replace(image, annotations=turned, image_hw=image_hw)


def _bare_images(part: Part, ids: Any, earlier: set[int], faults: Faults) -> Iterator[tuple[int, AnnotatedImage]]:
    """The images that can be taken, with their rows and without their annotations."""
    source, here = part.images, set()
    first_rows = rows_of(ids, ids)
    for row in range(len(ids)):
        try:
            if first_rows[row] != row:
                raise Unusable("image", f"expected an id that no other image has, found {shown(_plain(ids[row]))}")
            value = {"id": _plain(ids[row]), "file_name": str(ids[row])} if source is None else source.image(row)
            image = image_of(value, part.split)
            path = image.name
            if hash(path) in earlier:
                image = _in_split(image)
            if hash(image.name) in here or hash(image.name) in earlier:
                raise Unusable("image", f"expected a file_name that no other image has, found {shown(path)}")
        except Unusable as error:
            faults.add((source or part.file).uri, error.kind, f"images[{row}]", str(error))
            continue
        here.add(hash(image.name))
        if part.folder is not None:
            image = dataclasses.replace(image, uri=data_paths.at(part.folder, path))
        yield row, image
    earlier |= here


def _in_split(image: AnnotatedImage) -> AnnotatedImage:
    """The image under its split's name, where another split has an image of its name."""
    extras = {NAME: {"file_name": image.name, **image.extras.get(NAME, {})}}
    return dataclasses.replace(image, name=f"{image.split}/{image.name}", extras={**image.extras, **extras})


def _annotations(
    part: Part, raws: Iterable[RawAnnotation], image: AnnotatedImage, faults: Faults
) -> Iterator[Annotation]:
    image_hw = image.image_hw
    for raw in raws:
        try:
            annotation = annotation_of(raw, part.classes, image_hw)
        except Unusable as error:
            faults.add(part.file.uri, error.kind, f"{part.file.array}[{raw.number}]", str(error))
            continue
        if image_hw is None and isinstance(annotation.shape, Mask):
            image_hw = annotation.shape.image_hw
        yield annotation


def _headers(uris: list[str | None]) -> list[Header | None]:
    """The headers of images; from object storage many at a time."""
    if all(uri is None or scheme_of(uri) in ("", "file") for uri in uris):
        return [orientation.raster(uri) for uri in uris]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="rayseg-header") as pool:
        return list(pool.map(orientation.raster, uris))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.integer) else value
