"""Which files of a folder of masks belong to which image: `rayseg.formats.masks` draws the layout."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from rayseg.formats import data_paths
from rayseg.formats.listing import below, is_image, stem
from rayseg.formats.masks_tables import CSV_FILE, JSON_FILE

INSTANCES, MASKS, IMAGES = "instances/", "masks/", "images/"
TABLE_FILE = "instances.json"


@dataclass(slots=True)
class Files:
    """The files of one image, below the root: an id map, a table, and objects in a folder."""

    id_map: str | None = None
    table: str | None = None
    objects: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Layout:
    """What is where: the images by name and by name without suffix, and the files that belong to the latter."""

    root: str
    images: str
    image_names: frozenset[str]
    image_of: dict[str, str]
    keys: dict[str, Files]

    @property
    def instance_files(self) -> list[str]:
        """All files of one object each."""
        return [name for files in self.keys.values() for name in files.objects]

    def at(self, name: str) -> str:
        """The URI of a file below the root."""
        return data_paths.at(self.root, name)


def layout_of(uri: str, images: str | None) -> Layout:
    """Lists `uri`, and the folder of images where it lies elsewhere."""
    names = list(below(uri))
    pictures = below(images) if images else (name[len(IMAGES) :] for name in names if name.startswith(IMAGES))
    image_names = frozenset(filter(is_image, pictures))
    image_of = {stem(name): name for name in sorted(image_names, key=str.encode, reverse=True)}
    keys: dict[str, Files] = defaultdict(Files)
    has_folders = any(name.startswith((MASKS, INSTANCES)) for name in names)
    for name in names:
        if name.startswith(INSTANCES):
            _place_object(name, name[len(INSTANCES) :], keys)
        elif name.startswith(MASKS) or (not has_folders and not name.startswith(IMAGES)):
            _place_map(name, name[len(MASKS) if has_folders else 0 :], keys, image_of)
    found = {
        key: keys[key] for key in sorted(keys, key=str.encode) if has_folders or keys[key].id_map or keys[key].objects
    }
    return Layout(uri, images or data_paths.at(uri, "images"), image_names, image_of, found)


def _place_object(name: str, rest: str, keys: dict[str, Files]) -> None:
    folder, _, last = rest.rpartition("/")
    if last == TABLE_FILE:
        keys[folder].table = name
    elif last.endswith(".png") and folder:
        keys[folder].objects.append(name)


def _place_map(name: str, rest: str, keys: dict[str, Files], image_of: dict[str, str]) -> None:
    folder, key = rest.rpartition("/")[0], stem(rest)
    has_table = key in keys and keys[key].table is not None  # ".json" comes before ".png"
    if name.endswith(".png") and folder in image_of and not has_table:
        keys[folder].objects.append(name)
    elif name.endswith(".png"):
        keys[key].id_map = name
    elif name.endswith(".json") and rest not in (JSON_FILE, CSV_FILE):
        keys[stem(rest)].table = name
