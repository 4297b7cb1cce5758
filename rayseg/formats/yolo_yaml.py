"""data.yaml of YOLO: names, and where the images of each split are.

    path   the root, relative to the file; one that leads out of the file's folder, or to nothing, is the folder itself
    train, val, test   a folder, a .txt list of images, or a list of these, below the root; empty where there is none
    names  a list, or a map from class id
    rayseg.splits      (rayseg's own) the splits by their true names, "" for none, where the three keys cannot say it

As ultralytics reads it (`data/utils.py`, check_det_dataset), with two differences: nothing outside the file's folder is
read (a leading "../" is cut off, as there), and names stay text, so that a class `no` is not False. Anchors are refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from rayseg import storage
from rayseg.errors import ObjectNotFound, StorageError
from rayseg.formats import data_paths
from rayseg.formats.faults import BadAnnotation
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

SPLITS = ("train", "val", "test")
_BYTES_MAX = 4 << 20
_DEPTH_MAX = 32
_OWN_KEYS = {"path", "names", "nc", "rayseg", *SPLITS}
_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BASE: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every scalar stays the text it is


class Config(NamedTuple):
    """What a data.yaml says.

    root    URI of the folder that places are relative to
    names   class id to name
    splits  each split, None for none, with its places: folders ("" for the root) or .txt lists
    other   the keys that are not YOLO's own
    """

    root: str
    names: dict[int, str]
    splits: list[tuple[str | None, list[str]]]
    other: dict[str, Any]


def config_of(uri: str) -> Config:
    """Reads the file at `uri`. Raises `BadAnnotation` for what is no data.yaml, with the line where it is no YAML."""
    data = storage.read(uri, max_bytes=_BYTES_MAX)
    texts, values = _loaded(data, uri)
    names = _names(texts.get("names"), uri)
    root = _root(uri, texts.get("path"))
    other = {str(key): _json_like(value) for key, value in values.items() if key not in _OWN_KEYS}
    try:
        json.dumps([names, other], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadAnnotation(uri, "expected text, found half of a surrogate pair") from None
    return Config(root, names, _splits(texts, root, uri), other)


def is_config(uri: str) -> bool:
    """Whether the file is a YAML with names and the places of some split."""
    try:
        texts, _ = _loaded(storage.read(uri, max_bytes=_BYTES_MAX), uri)
        return bool(_names(texts.get("names"), uri)) and any(key in texts for key in SPLITS)
    except StorageError:
        return False


def text_of(names: Mapping[int, str], places: Mapping[str | None, str], other: Mapping[str, Any]) -> bytes:
    """A data.yaml. `places` maps each split, None for none, to its folder.

    ultralytics wants both `train` and `val`: one that is missing is given the images of the other, or else of what is there.
    """
    said = {split: place for split, place in places.items() if split in SPLITS}
    loose = [place for split, place in places.items() if split is None]
    rest = [place for split, place in places.items() if split not in SPLITS]
    content: dict[str, Any] = {}
    for split, instead in (("train", "val"), ("val", "train")):
        own = ([said[split]] if split in said else []) + (loose if split == "train" else [])
        own = own or ([said[instead]] if instead in said else rest)
        content[split] = own[0] if len(own) == 1 else own
    if "test" in said:
        content["test"] = said["test"]
    content |= {"nc": len(names), "names": dict(names)}
    if list(places) != [split for split in SPLITS if split in content]:
        content["rayseg"] = {"splits": {"" if split is None else split: place for split, place in places.items()}}
    content |= {key: value for key, value in other.items() if key not in content}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def place_of(text: str, root: str) -> str:
    """A place or an image as a file names it, as a name below `root`; "" for the root. Raises `ValueError` outside it."""
    text = text.strip()
    base = (os.path.abspath(root) if scheme_of(root) == "" else path_of(root)).rstrip("/") + "/"
    if text.startswith(base):
        text = text[len(base) :]
    text = text.removeprefix("../")
    return "" if text.strip("/") in ("", ".") and not text.startswith("/") else data_paths.inside(text)


def _loaded(data: bytes, uri: str) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The file's mapping, with all scalars as text, and as YAML takes them."""
    try:
        text = data.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=_SAFE):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_MAX or isinstance(event, yaml.AliasEvent):
                what = "an alias" if isinstance(event, yaml.AliasEvent) else f"one nested over {_DEPTH_MAX} deep"
                raise BadAnnotation(uri, f"line {event.start_mark.line + 1}: expected a plain YAML, found {what}")
        texts, values = yaml.load(text, _BASE), yaml.load(text, _SAFE)  # both loaders are safe
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadAnnotation(uri, f"line {line}: expected YAML in UTF-8, found other bytes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise BadAnnotation(uri, f"{where}not YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, LookupError, TypeError, OverflowError) as error:  # a date of month 13, an empty !!int ...
        raise BadAnnotation(uri, f"not YAML: {error}") from None
    if not isinstance(texts, dict) or not isinstance(values, dict):
        raise BadAnnotation(uri, "expected a YAML mapping with names, train and val")
    return texts, values


def _names(value: Any, uri: str) -> dict[int, str]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        raise BadAnnotation(uri, "expected names as a list or a map of classes, found none")
    names = {}
    for key, name in value.items():
        if not isinstance(name, str) or not str(key).isdecimal() or len(str(key)) > 9:
            raise BadAnnotation(
                uri, f"names: expected class ids with a name each, found {str(key)[:40]}: {str(name)[:40]}"
            )
        names[int(key)] = name
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise BadAnnotation(uri, f"names: expected each class once, found {twice[:80]!r} again")
    return dict(sorted(names.items()))


def _root(uri: str, path: Any) -> str:
    folder = data_paths.folder_of(uri)
    if isinstance(path, str):
        try:
            root = data_paths.at(folder, data_paths.inside(path))
            if next(iter(storage.list_pages(root)), None) is not None:
                return root
        except (ValueError, ObjectNotFound):
            pass
    return folder


def _splits(texts: dict[str, Any], root: str, uri: str) -> list[tuple[str | None, list[str]]]:
    own = texts.get("rayseg")
    told = own.get("splits") if isinstance(own, dict) else None
    if not isinstance(told, dict):
        told = {key: texts.get(key) for key in SPLITS}
    found: list[tuple[str | None, list[str]]] = []
    for split, value in told.items():
        places = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise BadAnnotation(uri, f"{split}: expected a folder, a .txt or a list of these, found {str(value)[:80]}")
        try:
            found.append((split or None, [place_of(place, root) for place in places if place.strip()]))
        except ValueError as error:
            raise BadAnnotation(uri, f"{split}: {error}") from None
    return [(split, places) for split, places in found if places]


def _json_like(value: Any) -> Any:
    """The value in what JSON has; dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): _json_like(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_json_like(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
