"""Where the files of a COCO data set lie, and what their names say: splits, the folders of the images.

    annotations/instances_train2017.json   split "train"; also without the folder, and without the year
    annotations/instances_default.json     no split, as CVAT and datumaro name it; also instances.json
    train/_annotations.coco.json           split "train"
    train.json  a.json                     splits "train" and "a" where there are more such files than one

In a folder that has `instances*.json` no other file counts: captions, keypoints and panoptic segmentations lie beside them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import quote, unquote

from rayseg import storage
from rayseg.errors import ObjectNotFound
from rayseg.formats import data_paths
from rayseg.formats.json_values import first_keys
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

Kind = Literal["instances", "results"]

_PREFIX = "instances"
_NO_SPLIT = "default"
_NESTED = "_annotations.coco"
_YEAR = re.compile(r"(?<=[A-Za-z])(19|20)\d\d$")
_YEARS = (2017, 2014)  # of COCO's own folders
_KNOWN_SPLITS = {"train", "trainval", "val", "valid", "validation", "minival", "test", "testdev", "test-dev"}
_SNIFFED_BYTES = 1 << 16
_SNIFFED_FILES = 4
_KEYS = {"images", "annotations", "categories"}
_PROBED_NAMES, _LISTED_NAMES = 5, 2000


def kind_of(uri: str) -> Kind | None:
    """What the first bytes of a JSON file look like: an instances file, a list of results, or neither."""
    data = storage.read_range(uri, 0, _SNIFFED_BYTES)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        return "results" if b'"image_id"' in data[:4096] else None
    return "instances" if _KEYS & set(first_keys(data)) else None


def looks_like(uri: str, names: Sequence[str]) -> bool:
    """Whether one of the first JSON files at their usual places below `uri` is of COCO."""
    if len(names) == 1 and storage.exists(uri):
        return uri.endswith(".json") and kind_of(uri) is not None
    found = [name for name in names if _is_usual(name)]
    uris = [data_paths.at(uri, name) for name in found]
    if not uris and len(names) >= _LISTED_NAMES:  # there are more names, the wanted ones may be among them
        uris = _matching(uri, "annotations/*.json")
    uris.sort(key=lambda one: not _stem(one).startswith(_PREFIX))
    return any(kind_of(one) for one in uris[:_SNIFFED_FILES])


def annotation_files(uri: str) -> list[str]:
    """The annotation files of the data set at `uri`, which may be one of them. Empty where there is none."""
    if storage.exists(uri):
        return [uri]
    for pattern in ("annotations/*.json", "*.json", f"*/{_NESTED}.json"):
        found = _matching(uri, pattern)
        instances = [one for one in found if _stem(one) == _PREFIX or _stem(one).startswith(f"{_PREFIX}_")]
        found = instances or [one for one in found if kind_of(one) == "instances"]
        if found:
            return found
    return []


def files_beside(uri: str) -> list[str]:
    """The instances files in the folder of `uri`."""
    return [one for one in _matching(data_paths.folder_of(uri), "*.json") if one != uri and kind_of(one) == "instances"]


def split_of(uri: str, *, alone: bool = True) -> str | None:
    """The split that a file's name says; of a file that is not `alone` in its data set, any name is one."""
    stem = _stem(uri)
    if stem == _NESTED:
        return data_paths.folder_of(uri).rpartition("/")[2] or None
    if stem.startswith(f"{_PREFIX}_"):
        token = stem[len(_PREFIX) + 1 :]
        if token == _NO_SPLIT:
            return None
        return unquote(_YEAR.sub("", token) or token)
    plain = _YEAR.sub("", stem)
    if plain.lower() in _KNOWN_SPLITS:
        return plain
    return None if alone or stem == _PREFIX else stem


def name_for(split: str | None) -> str:
    """Where the file of a split is written."""
    token = _NO_SPLIT if split is None else quote(split, safe=" ")
    if split == _NO_SPLIT:
        token = f"%{ord(split[0]):x}{split[1:]}"
    return f"annotations/{_PREFIX}_{token}.json"


def results_name(name: str) -> str:
    """Where the results beside a written instances file go: not named like it, as tools look for such names anywhere."""
    return f"results/{_stem(name).removeprefix(f'{_PREFIX}_')}.json"


def image_folder(uri: str, split: str | None, images: str | None, names: Iterable[str]) -> str | None:
    """The folder that holds one of `names`, the first few images of the file at `uri`; None where none does.

    Looked for below `images` where that is given, else beside the file and one level above, also in folders that are
    named like the file or its split.
    """
    stem = _stem(uri)
    tokens = ["", stem.removeprefix(f"{_PREFIX}_")]
    tokens += [split, *(f"{split}{year}" for year in _YEARS)] if split else []
    folder = data_paths.folder_of(_absolute(uri))
    bases = [images] if images is not None else [folder, data_paths.folder_of(folder)]
    bases += [storage.join(base, "images") for base in reversed(bases)]
    places = [storage.join(base, token) if token else base for token in tokens for base in bases]
    for name in list(names)[:_PROBED_NAMES]:
        for place in dict.fromkeys(places):
            if storage.exists(data_paths.at(place, name)):
                return place
    return None


def _is_usual(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return name.endswith(".json") and (
        folder in ("", "annotations") or ("/" not in folder and last == f"{_NESTED}.json")
    )


def _stem(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".json")


def _matching(folder: str, pattern: str) -> list[str]:
    literal = re.sub(r"[*?\[]", r"[\g<0>]", folder.rstrip("/"))
    try:
        return [entry.uri for page in storage.glob_pages(f"{literal}/{pattern}") for entry in page]
    except ObjectNotFound:
        return []


def _absolute(uri: str) -> str:
    return os.path.abspath(path_of(uri)) if scheme_of(uri) == "" else uri
