"""Where VOC 2012 keeps things, and which images its lists name.

    Annotations/<id>.xml  JPEGImages/<id>.jpg  SegmentationObject/<id>.png  SegmentationClass/<id>.png
    ImageSets/Segmentation/<split>.txt  ImageSets/Main/<split>.txt        one id a line
    labelmap.txt        the classes where they are not VOC's twenty, as CVAT and datumaro write it; before a colour that
                        rayseg chose, because datumaro wants one for all or none, stands a comment that says so

An image's split is the first list that names it, of `train`, `val`, `test` and any others by name, `trainval` last; the
Segmentation lists rule over the Main lists. `default` lists images of no split, as datumaro has it. Lists of one class
(`car_train.txt`, with a flag behind each id) are no splits.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rayseg import storage
from rayseg.annotations import Category
from rayseg.errors import UsageError
from rayseg.formats import data_paths
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.id_maps import colour_map
from rayseg.formats.listing import below, is_image, stem

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
NO_SPLIT = "default"
BOTH = "trainval"
VOID = 255
_CHOSEN = "# chosen by rayseg:"
_PLACE = re.compile(r"((?:[^/]+/){0,2}?)(?:Annotations/.+\.xml|SegmentationObject/.+\.png)")
_FLAGGED = re.compile(rb"\S+\s+(-1|0|1)\s*")
_LIST_BYTES = 1 << 28
_FIRST = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Layout:
    """What is where: ids, sorted by their bytes, and the images of the folder `images` by name and by id."""

    root: str
    images: str
    xmls: frozenset[str]
    object_maps: frozenset[str]
    class_maps: frozenset[str]
    image_names: frozenset[str]
    image_of: dict[str, str]
    lists: dict[tuple[str, str], str]

    @property
    def ids(self) -> list[str]:
        """The ids of annotated images."""
        return sorted(self.xmls | self.object_maps, key=str.encode)

    def at(self, name: str) -> str:
        """The URI of a file below the root."""
        return data_paths.at(self.root, name)


def roots(names: Iterable[str]) -> set[str]:
    """The folders, "" or ending in "/", that hold VOC's own folders."""
    return {match[1] for match in map(_PLACE.fullmatch, names) if match}


def layout_of(uri: str, images: str | None) -> Layout:
    """Lists `uri`. Raises `BadAnnotation` where it holds no VOC folder, `UsageError` where it holds several."""
    names = list(below(uri))
    found = sorted(roots(names), key=len)
    if not found:
        raise BadAnnotation(
            uri, "expected a VOC data set, found neither Annotations/*.xml nor SegmentationObject/*.png"
        )
    if len(found) > 1 and found[0]:
        raise UsageError(f"{uri}: holds several VOC data sets ({', '.join(found)}); name one of them")
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name.startswith(found[0]):
            folder, _, rest = name[len(found[0]) :].partition("/")
            folders[folder].append(rest)
    root = data_paths.at(uri, found[0].rstrip("/")) if found[0] else uri
    pictures = [name for name in (below(images) if images else folders["JPEGImages"]) if is_image(name)]
    return Layout(
        root,
        images or data_paths.at(root, "JPEGImages"),
        _ids(folders["Annotations"], ".xml"),
        _ids(folders["SegmentationObject"], ".png"),
        _ids(folders["SegmentationClass"], ".png"),
        frozenset(pictures),
        {stem(name): name for name in reversed(pictures)},
        _lists(root, folders["ImageSets"]),
    )


def splits_of(layout: Layout) -> dict[str, dict[str, str]]:
    """For "Segmentation" and "Main": id to the name of its list, `NO_SPLIT` included."""
    names = {name for _, name in layout.lists}
    found: dict[str, dict[str, str]] = {"Segmentation": {}, "Main": {}}
    for name in sorted(names, key=_rank):
        for kind, ids in found.items():
            uri = layout.lists.get((kind, name))
            if uri is not None and not _is_of_one_class(uri, name, names):
                for image_id in _lines(uri):
                    ids.setdefault(image_id, name)
    return found


def standard_categories() -> tuple[Category, ...]:
    """VOC's twenty classes with their colours."""
    colours = colour_map()[1:].tolist()
    return tuple(Category(name, colour=(r, g, b)) for name, (r, g, b) in zip(CLASSES, colours, strict=False))


def label_map(uri: str) -> tuple[tuple[Category, ...], dict[int, int]]:
    """The categories of a labelmap.txt ("name:r,g,b:parts:actions" a line, "background" among them), and index in class
    maps to category. Raises `BadAnnotation` with the line."""
    categories: list[Category] = []
    places: dict[int, int] = {}
    index, chosen = 0, False
    for number, line in enumerate(_lines(uri, keep_empty=True), 1):
        if not line or line.startswith("#"):
            chosen = line == _CHOSEN
            continue
        name, colour, *_ = (*line.rsplit(":", 3), "") if line.count(":") >= 3 else (*line.split(":"), "", "")
        if name in (category.name for category in categories):
            raise BadAnnotation(uri, f"line {number}: expected each class once, found {name[:80]!r} again")
        if name != "background":
            places[index] = len(categories)
            categories.append(Category(name, colour=None if chosen else _colour(colour, uri, number)))
        index, chosen = index + 1, False
    return tuple(categories), places


def label_map_text(categories: Sequence[Category], palette: np.ndarray) -> str:
    """The labelmap.txt of categories, whose index in class maps is then their place and one; `palette` (256, 3) uint8."""
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    for i, category in enumerate(categories):
        colour = category.colour or (palette[i + 1].tolist() if i + 1 < VOID else ())
        lines += [*([_CHOSEN] if category.colour is None else []), f"{category.name}:{','.join(map(str, colour))}::"]
    return "".join(f"{line}\n" for line in lines)


def palette_of(categories: Sequence[Category]) -> np.ndarray:
    """(256, 3) uint8: the categories' colours at their place and one, VOC's where they have none; each only once."""
    palette = colour_map()
    given = {category.colour for category in categories if category.colour is not None}
    spare = [row for row in palette[len(categories) + 1 : VOID].tolist() if tuple(row) not in given]
    for i, category in enumerate(categories[: VOID - 1]):
        if category.colour is not None:
            palette[i + 1] = category.colour
        elif tuple(palette[i + 1].tolist()) in given and spare:
            palette[i + 1] = spare.pop()
    return palette


def _ids(names: Iterable[str], ending: str) -> frozenset[str]:
    return frozenset(name[: -len(ending)] for name in names if name.endswith(ending))


def _lists(root: str, names: Iterable[str]) -> dict[tuple[str, str], str]:
    found = {}
    for name in names:
        kind, _, rest = name.partition("/")
        if kind in ("Main", "Segmentation") and rest.endswith(".txt"):
            found[kind, rest[:-4]] = data_paths.at(root, posixpath.join("ImageSets", name))
    return found


def _rank(name: str) -> tuple[int, str]:
    last = {NO_SPLIT: len(_FIRST) + 1, BOTH: len(_FIRST) + 2}
    return (_FIRST.index(name), "") if name in _FIRST else (last.get(name, len(_FIRST)), name)


def _is_of_one_class(uri: str, name: str, names: set[str]) -> bool:
    """Whether a list is one class's: named after another list, with a flag behind its first id."""
    if not any(name.endswith(f"_{other}") for other in names):
        return False
    first = storage.read_range(uri, 0, 4096).lstrip().partition(b"\n")[0]
    return _FLAGGED.fullmatch(first.strip()) is not None


def _lines(uri: str, *, keep_empty: bool = False) -> list[str]:
    try:
        text = storage.read(uri, max_bytes=_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadAnnotation(uri, f"expected a list in UTF-8, found other bytes at {error.start}") from None
    lines = [line.strip() for line in text.replace("\r\n", "\n").split("\n")]
    return lines if keep_empty else [line for line in lines if line]


def _colour(text: str, uri: str, number: int) -> tuple[int, int, int] | None:
    if not text:
        return None
    values = text.split(",")
    if len(values) != 3 or not all(v.strip().isdecimal() and len(v.strip()) < 4 and int(v) < 256 for v in values):
        raise BadAnnotation(uri, f"line {number}: expected a colour as r,g,b of 0 to 255, found {text[:40]!r}")
    return int(values[0]), int(values[1]), int(values[2])
