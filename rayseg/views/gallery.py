"""`gallery.html`: what a label run found, to look at in any browser, from a file, with no server and no network.

One HTML file holds everything: images as base64 JPEGs, masks as SVG outlines over them, the style and a little script
for the filters; without the script all of it still shows. It is bounded: at most `max_images` images of at most
`max_side_px`, so a gallery of a large output is a sample of it. Everything that comes from outside (names, URIs, error
messages) is escaped, and a content security policy forbids the page to load anything at all.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from rayseg import images, storage
from rayseg.errors import JobError, ObjectNotFound, RaysegError
from rayseg.formats.parts import read_part
from rayseg.kernels import Rles
from rayseg.views.colours import class_hex
from rayseg.views.outlines import path_data, trace

MAX_IMAGES = 60
MAX_SIDE_PX = 640
_JPEG_QUALITY = 85

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
    pieces = [_head(title), _header(title, out, manifest, rows), _controls(found, min_score), '<main id="images">']
    pieces += [_card(row, max_side_px) for row in rows]
    pieces += ["</main>", f"<script>{_asset('gallery.js')}</script>", "</body></html>\n"]
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


def _head(title: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_asset("gallery.js").encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f'<style>{_asset("gallery.css")}</style></head><body>\n<a class="skip" href="#images">Skip to the images</a>'
    )


def _header(title: str, out: str, manifest: dict[str, Any], rows: list[Row]) -> str:
    counts = ", ".join(f"{manifest[key]:,} {key}" for key in ("labelled", "empty", "failed"))
    return (
        f"<header><h1>{escape(title)}</h1>\n<p>{escape(out)}</p>\n"
        f"<p>{manifest['inputs']:,} images: {counts}; {manifest['instances']:,} instances. "
        f"Here: {len(rows):,} of them.</p></header>"
    )


def _controls(found: Counter[tuple[int, str]], min_score: float) -> str:
    boxes = "\n".join(
        f'<label><input type="checkbox" name="class" value="{class_id}" checked>'
        f'<span class="swatch" style="background:{class_hex(class_id)}"></span>{escape(name)} '
        f'<span class="count">{count:,}</span></label>'
        for (class_id, name), count in sorted(found.items())
    )
    return (
        f'<form hidden aria-label="Filters"><fieldset><legend>Classes</legend>{boxes}</fieldset>\n'
        f'<label>Least score <input type="range" name="score" min="0" max="1" step="0.01" value="{min_score}">'
        '<output name="least"></output></label>\n'
        '<label>Fill <input type="range" name="fill" min="0" max="0.9" step="0.05" value="0.4"></label>\n'
        '<label>Size <input type="range" name="zoom" min="160" max="1200" step="20" value="300"></label>\n'
        '<label><input type="checkbox" name="captions" checked>Names</label>\n'
        '<output name="shown" class="count" aria-live="polite"></output></form>'
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
    width, height = picture.size
    drawing = "\n".join(_drawing(row, (height, width)))
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(_alt(row, name))}">'
        f'<image href="{_data_uri(picture)}" width="{width}" height="{height}"/>\n{drawing}</svg>\n'
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
        outline = path_data(trace(_resized(rles.decode(i), shown_hw)))
        yield (
            f'<g class="mask" {_filter_data(one)} style="--class:{class_hex(one["category_id"])}">'
            f'<title>{_caption(one)}</title><path fill-rule="evenodd" d="{outline}"/></g>'
        )
    for i in order:
        yield _caption_above(row["instances"][i], shown_hw, (row["height"], row["width"]))


def _caption_above(one: dict[str, Any], shown_hw: tuple[int, int], image_hw: tuple[int, int]) -> str:
    """The caption at the upper edge of the box, running inwards from whichever side is farther from the border."""
    font_px = max(max(shown_hw) / 24, 6)
    left, top, width, _ = one["bbox"]
    x, y, anchor = left, max(top * shown_hw[0] / image_hw[0] + font_px, font_px), "start"
    if left + width / 2 > image_hw[1] / 2:
        x, anchor = left + width, "end"
    return (
        f'<text {_filter_data(one)} x="{x * shown_hw[1] / image_hw[1]:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-size="{font_px:.1f}">{_caption(one)}</text>'
    )


def _caption(one: dict[str, Any]) -> str:
    return escape(f"{one['category']} {one['score']:.2f}")


def _resized(mask: np.ndarray, shown_hw: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) at `shown_hw`, from the pixel under each new pixel's centre."""
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(shown_hw, mask.shape, strict=True))
    return mask[rows][:, columns]


def _listing(row: Row) -> str:
    if not row["instances"]:
        return '<div class="count">nothing found</div>'
    items = "".join(
        f"<li {_filter_data(one)}>{_caption(one)}, {one['area']:,} px</li>"
        for one in sorted(row["instances"], key=lambda one: -one["score"])
    )
    return f"<details><summary>{_plural(len(row['instances']), 'instance')}</summary><ol>{items}</ol></details>"


def _filter_data(one: dict[str, Any]) -> str:
    return f'data-class="{one["category_id"]}" data-score="{one["score"]:.4f}"'


def _alt(row: Row, name: str) -> str:
    counts = Counter(one["category"] for one in row["instances"])
    what = ", ".join(f"{count} {category}" for category, count in counts.most_common()) or "nothing found"
    return f"{name}, {row['width']} x {row['height']} pixels: {what}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _asset(name: str) -> str:
    return resources.files("rayseg.views").joinpath(name).read_text(encoding="utf-8")
