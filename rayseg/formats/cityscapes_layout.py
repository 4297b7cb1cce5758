"""Where Cityscapes keeps things.

    gtFine/<split>/<city>/<base>_gtFine_polygons.json  _gtFine_instanceIds.png  _gtFine_labelIds.png
    leftImg8bit/<split>/<city>/<base>_leftImg8bit.png

The data set is the folder above, or gtFine itself. Without gtFine, gtCoarse is taken, whose files are named alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rayseg.errors import UsageError
from rayseg.formats import data_paths
from rayseg.formats.faults import BadAnnotation
from rayseg.formats.listing import below

POLYGONS, INSTANCES, LABELS = "polygons.json", "instanceIds.png", "labelIds.png"
IMAGE_ENDING = "_leftImg8bit"
_FILE = re.compile(r"((?:[^/]+/)?)(gt[A-Z][A-Za-z]*)/(.+)_\2_(polygons\.json|instanceIds\.png|labelIds\.png)")
_INSIDE = re.compile(r"()(.+)_(gt[A-Z][A-Za-z]*)_(polygons\.json|instanceIds\.png|labelIds\.png)")
_IMAGE = re.compile(r"(?:.*/)?leftImg8bit/(.+)_leftImg8bit(\.[A-Za-z0-9]+)")


@dataclass(slots=True)
class Files:
    """The files of one image by kind, below the root; and its split, its city and its base."""

    split: str
    city: str
    base: str
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """What is where: `keys` maps <split>/<city>/<base> to files, `image_of` to the image's place in `images`."""

    root: str
    images: str
    keys: dict[str, Files]
    image_of: dict[str, str]

    def at(self, name: str) -> str:
        """The URI of a file below the root."""
        return data_paths.at(self.root, name)


def looks_so(names: Iterable[str]) -> bool:
    """Whether any name is that of a Cityscapes annotation in its place."""
    return any(_FILE.fullmatch(name) or _INSIDE.fullmatch(name) for name in names)


def layout_of(uri: str, images: str | None) -> Layout:
    """Lists `uri`. Raises `BadAnnotation` where it holds no annotations, `UsageError` where several sets of them."""
    names = list(below(uri))
    found: dict[tuple[str, str], dict[str, Files]] = {}
    for name in names:
        match = _FILE.fullmatch(name)
        if match:
            above, kind, rest, what = match.groups()
        elif match := _INSIDE.fullmatch(name):
            above, rest, kind, what = match.groups()
        else:
            continue
        files = found.setdefault((above, kind), {}).setdefault(rest, _files(rest))
        files.names[what] = name
    if not found:
        raise BadAnnotation(
            uri, "expected Cityscapes annotations, found no gtFine/<split>/<city>/*_gtFine_polygons.json"
        )
    above = {above for above, _ in found}
    if len(above) > 1:
        raise UsageError(f"{uri}: holds several data sets ({', '.join(sorted(above))}); name one of them")
    keys = found.get((above.pop(), "gtFine")) or next(iter(found.values()))
    pictures = [f"leftImg8bit/{name}" for name in below(images)] if images else names
    matches = [(match, name) for name in pictures if (match := _IMAGE.fullmatch(name))]
    image_of = {match[1]: name.removeprefix("leftImg8bit/") if images else name for match, name in matches}
    return Layout(uri, images or uri, {key: keys[key] for key in sorted(keys, key=str.encode)}, image_of)


def _files(rest: str) -> Files:
    folders, _, base = rest.rpartition("/")
    split, _, city = folders.partition("/")
    return Files(split, city, base)
