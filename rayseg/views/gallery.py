"""`gallery.html`: what a label run found, to look at in any browser, from a file, with no server and no network.

One HTML file holds everything: images as base64 JPEGs, masks as SVG outlines over them, the style and a little script
for the filters; without the script all of it still shows. It is bounded: at most `max_images` images of at most
`max_side_px`, so a gallery of a large output is a sample of it. Everything that comes from outside (names, URIs, error
messages) is escaped, and a content security policy forbids the page to load anything at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import pyarrow as pa
from PIL import Image

from rayseg import images, storage
from rayseg.errors import JobError, ObjectNotFound, RaysegError
from rayseg.formats.parts import read_part
from rayseg.kernels import Rles
from rayseg.views.outlines import path_data, resized, trace
from rayseg.views.page import controls, head, plural, tail
from rayseg.views.svg import caption, figure, filter_data, instance, mask_path

MAX_IMAGES = 60
MAX_SIDE_PX = 640

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What was written: where, how long, and how many of the output's images are on it."""

    uri: str
    size_bytes: int
    images: int
    instances: int


def write_gallery(
    out: str,
    target: str,
    *,
    title: str = "rayseg gallery",
    max_images: int = MAX_IMAGES,
    max_side_px: int = MAX_SIDE_PX,
    min_score: float = 0.0,
) -> Gallery:
    """Show the first `max_images` rows of the complete label output `out` in one HTML file at `target`.

    The page starts out with the instances of at least `min_score`; its slider reaches the others too. An image that
    can no longer be read has a card that says so. Raises `JobError` when `out` is not complete, `StorageError` when it
    cannot be read or `target` cannot be written.
    """
    manifest = _manifest(out)
    rows = _first_rows(out, manifest, max_images)
    found = Counter((one["category_id"], one["category"]) for row in rows for one in row["instances"])
    pieces = [head(title), _header(title, out, manifest, rows), controls(found, min_score), '<main id="images">']
    pieces += [_card(row, max_side_px) for row in rows]
    pieces += ["</main>", tail()]
    data = "\n".join(pieces).encode("utf-8")
    storage.write(target, data)
    return Gallery(target, len(data), len(rows), found.total())


def _manifest(out: str) -> dict[str, Any]:
    uri = storage.join(out, "manifest.json")
    try:
        return json.loads(storage.read(uri))
    except ObjectNotFound:
        raise JobError(f"{out}: expected a complete label output, found no manifest.json in it") from None


def _first_rows(out: str, manifest: dict[str, Any], count: int) -> list[Row]:
    """Up to `count` rows in the order of their ordinals, from as few parts as hold them."""
    rows: list[Row] = []
    for part in manifest["parts"]:
        table: pa.Table = read_part(storage.join(out, "data", part["name"]))
        rows += table.slice(0, count - len(rows)).to_pylist()
        if len(rows) == count:
            break
    return sorted(rows, key=lambda row: row["ordinal"])


# ---- the page


def _header(title: str, out: str, manifest: dict[str, Any], rows: list[Row]) -> str:
    counts = ", ".join(f"{manifest[key]:,} {key}" for key in ("labelled", "empty", "failed"))
    return (
        f"<header><h1>{escape(title)}</h1>\n<p>{escape(out)}</p>\n"
        f"<p>{manifest['inputs']:,} images: {counts}; {manifest['instances']:,} instances. "
        f"Here: {len(rows):,} of them.</p></header>"
    )


# ---- one image


def _card(row: Row, max_side_px: int) -> str:
    name = row["uri"].rstrip("/").rpartition("/")[2] or row["uri"]
    if row["error"] is not None:
        error = row["error"]
        return _failed(row, name, f"not labelled: {error['stage']}, {error['kind']}: {error['message']}")
    try:
        picture = Image.fromarray(images.decode(storage.read(row["uri"])))
    except RaysegError as error:
        return _failed(row, name, f"labelled, but the image can no longer be read: {error}")
    if (picture.height, picture.width) != (row["height"], row["width"]):
        return _failed(row, name, f"labelled, but the image has changed: it is now {picture.width} x {picture.height}")
    picture.thumbnail((max_side_px, max_side_px))
    drawing = "\n".join(_drawing(row, (picture.height, picture.width)))
    return (
        f"<figure>{figure(picture, drawing, _alt(row, name))}\n"
        f'<figcaption><span class="name" title="{escape(row["uri"])}">{escape(name)}</span>{_listing(row)}'
        "</figcaption></figure>"
    )


def _failed(row: Row, name: str, message: str) -> str:
    return (
        f'<figure><div class="failed">{escape(message)}</div><figcaption>'
        f'<span class="name" title="{escape(row["uri"])}">{escape(name)}</span></figcaption></figure>'
    )


def _drawing(row: Row, shown_hw: tuple[int, int]) -> Iterator[str]:
    """The masks, the largest first, so that the small ones lie on top and can be pointed at; then their captions."""
    rles = Rles.from_strings([one["rle"] for one in row["instances"]], (row["height"], row["width"]))
    order = sorted(range(len(rles)), key=lambda i: -row["instances"][i]["area"])
    for i in order:
        one = row["instances"][i]
        outline = mask_path(path_data(trace(resized(rles.decode(i), shown_hw))))
        yield instance(outline, one["category_id"], one["score"], _caption(one))
    for i in order:
        one = row["instances"][i]
        x, y, width, height = one["bbox"]
        box, image_hw = (x, y, x + width, y + height), (row["height"], row["width"])
        yield caption(_caption(one), box, image_hw, shown_hw, one["category_id"], one["score"])


def _caption(one: dict[str, Any]) -> str:
    return f"{one['category']} {one['score']:.2f}"


def _listing(row: Row) -> str:
    if not row["instances"]:
        return '<div class="count">nothing found</div>'
    items = "".join(
        f"<li {filter_data(one['category_id'], one['score'])}>{escape(_caption(one))}, {one['area']:,} px</li>"
        for one in sorted(row["instances"], key=lambda one: -one["score"])
    )
    return f"<details><summary>{plural(len(row['instances']), 'instance')}</summary><ol>{items}</ol></details>"


def _alt(row: Row, name: str) -> str:
    counts = Counter(one["category"] for one in row["instances"])
    what = ", ".join(f"{count} {category}" for category, count in counts.most_common()) or "nothing found"
    return f"{name}, {row['width']} x {row['height']} pixels: {what}"
