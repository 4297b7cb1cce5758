"""Which images a YOLO data set has, split by split, and where their label files are.

A label file lies where its image lies, with the last `/images/` of the path replaced by `/labels/` and the suffix by .txt
(ultralytics, `img2label_paths`); here only within the root. Suffixes are those that ultralytics takes for images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from rayseg import storage
from rayseg.errors import ObjectNotFound, StorageError
from rayseg.formats import data_paths
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.listing import below, stem, suffix
from rayseg.formats.shapes import hw_fault
from rayseg.formats.yolo_yaml import Config, place_of

SUFFIXES = frozenset({
    "avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpeg2000", "jpg", "mpo", "png", "tif", "tiff", "webp",
})  # fmt: skip
SIZES_FILE = "image_sizes.jsonl"  # [path, height, width] of images whose file is not here, one a line
_LIST_BYTES = 1 << 28


class Place(NamedTuple):
    """One image: its path below the root, its split, its name within its folder or list, and where its file lies.

    `file` is below the folder of the images; it is the path unless that folder stands for the root's `images`.
    """

    path: str
    split: str | None
    short: str
    file: str


@dataclass(slots=True)
class Places:
    """All images, split by split in the order of their names, with what was found beside them.

    names     of each, unique: below its split's folder; where that is not unique with the split's name before it, or the
              whole path
    labels    paths of the label files that are there
    sizes     (H, W) of images that have no file here
    """

    images: list[Place] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


def label_of(path: str) -> str:
    """The label file of an image's path."""
    before, marker, after = f"/{path}".rpartition("/images/")
    return stem(f"{before}/labels/{after}"[1:] if marker else path) + ".txt"


def places_of(config: Config, images_root: str, faults: Faults) -> Places:
    """Lists everything; tells `faults` of splits without images, bad lines of lists, and labels without an image."""
    places = Places(sizes=_sizes(config.root, faults))
    listed: dict[str, list[str]] = {}

    def files(folder: str, root: str) -> list[str]:
        """Paths of all files in a folder below a root, listed once."""
        uri = data_paths.at(root, folder) if folder else root
        if uri not in listed:
            try:
                listed[uri] = [f"{folder}/{name}" if folder else name for name in below(uri)]
            except ObjectNotFound:
                listed[uri] = []
        return listed[uri]

    seen: set[str] = set()
    for split, split_places in config.splits:
        for place in split_places:
            found = _images_of(place, config.root, images_root, files, places.sizes, faults)
            new = [Place(path, split, short, file) for path, short, file in found if path not in seen]
            seen.update(image.path for image in new)
            places.images += new
            if not found:
                faults.add(config.root, "split", split or "images", f"expected images in {place!r}, found none")
    names = _names(places.images)
    splits = {split: i for i, (split, _) in enumerate(config.splits)}
    order = sorted(range(len(names)), key=lambda i: (splits[places.images[i].split], names[i].encode()))
    places.images, places.names = [places.images[i] for i in order], [names[i] for i in order]
    folders = [place for _, found in config.splits for place in found if not place.endswith(".txt")]
    _find_labels(places, folders, config.root, files, faults)
    return places


def _images_of(
    place: str, root: str, images_root: str, files: Callable[..., list[str]], sizes: Iterable[str], faults: Faults
) -> list[tuple[str, str, str]]:
    """The (path, name, file) of each image of a folder or a list."""
    if place.endswith(".txt"):
        return [(path, short, path) for path, short in _listed(place, root, faults)]
    start, cut = len(place) + 1 if place else 0, ""
    paths = files(place, images_root)
    if not paths and images_root != root and place.startswith("images/"):
        cut = "images/"
        paths = [cut + path for path in files(place.removeprefix(cut), images_root)]
    found = {path for path in paths if suffix(path) in SUFFIXES}
    found.update(path for path in sizes if path.startswith(f"{place}/" if place else ""))
    return [(path, path[start:], path.removeprefix(cut)) for path in found]


def _listed(place: str, root: str, faults: Faults) -> Iterable[tuple[str, str]]:
    uri = data_paths.at(root, place)
    try:
        lines = storage.read(uri, max_bytes=_LIST_BYTES).decode("utf-8-sig").splitlines()
    except ObjectNotFound:
        return
    except UnicodeDecodeError:
        raise BadAnnotation(uri, "expected a list of images in UTF-8, found other bytes") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            path = place_of(line, root)
            if suffix(path) not in SUFFIXES:
                raise ValueError(f"expected an image, found {line.strip()[:80]!r}")
        except ValueError as error:
            faults.add(uri, "image", f"line {number}", str(error))
            continue
        yield path, f"/{path}".rpartition("/images/")[2].removeprefix("/")


def _names(images: list[Place]) -> list[str]:
    for name in (
        lambda image: image.short,
        lambda image: f"{image.split}/{image.short}" if image.split else image.short,
        lambda image: image.path,
    ):
        names = [name(image) for image in images]
        if len(set(names)) == len(names):
            return names
    return [image.path for image in images]


def _find_labels(
    places: Places, folders: list[str], root: str, files: Callable[..., list[str]], faults: Faults
) -> None:
    """Which label files are there; those that belong to a split's folder, but to no image, are faults."""
    wanted = {label_of(image.path) for image in places.images}
    own = tuple(label_of(f"{folder}/x").removesuffix("x.txt") for folder in folders if f"/{folder}/".count("/images/"))
    for folder in sorted({label.partition("/")[0] if "/" in label else "" for label in wanted}, key=str.encode):
        for path in files(folder, root):
            if path in wanted:
                places.labels.add(path)
            elif path.endswith(".txt") and own and path.startswith(own):
                faults.add(data_paths.at(root, path), "image", "file", "expected an image for these labels, found none")


def _sizes(root: str, faults: Faults) -> dict[str, tuple[int, int]]:
    uri, sizes = data_paths.at(root, SIZES_FILE), {}
    try:
        lines = storage.read(uri, max_bytes=_LIST_BYTES).splitlines() if storage.exists(uri) else []
    except StorageError as error:
        if storage.is_transient(error):
            raise
        lines = []
    for number, line in enumerate(lines, 1):
        try:
            path, height, width = json.loads(line)
            if not isinstance(path, str) or type(height) is not int or type(width) is not int:
                raise ValueError("expected [path, height, width]")
            if data_paths.inside(path) != path or hw_fault((height, width)) is not None:
                raise ValueError("expected a path below the data set, and a size")
            path.encode()
        except (ValueError, TypeError, RecursionError) as error:
            faults.add(uri, "size", f"line {number}", f"{error}, found {line[:80]!r}")
            continue
        sizes[path] = (height, width)
    return sizes
