"""What the HTML pages share: one file that holds everything, loads nothing, and is light or dark as its reader likes it.

The style and the little script for the filters are the gallery's. A content security policy forbids the page to load
anything and to run any other script. Whoever puts text from outside on a page escapes it.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from html import escape
from importlib import resources

from PIL import Image

from rayseg.views.colours import class_hex

_JPEG_QUALITY = 85


def head(title: str, *more_styles: str) -> str:
    """Everything down to the body's first link, which leads to `#images`; `more_styles` are files beside this one."""
    digest = base64.b64encode(hashlib.sha256(asset("gallery.js").encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    style = "\n".join(asset(name) for name in ("gallery.css", *more_styles))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f'<style>{style}</style></head><body>\n<a class="skip" href="#images">Skip to the images</a>'
    )


def tail() -> str:
    """The script and the end of the page, which must have `controls`."""
    return f"<script>{asset('gallery.js')}</script>\n</body></html>\n"


def controls(found: Counter[tuple[int, str]], min_score: float, *, scores: bool = True) -> str:
    """The form that filters what is drawn, by class (with the counts `found`) and, with `scores`, by score."""
    boxes = "\n".join(
        f'<label><input type="checkbox" name="class" value="{class_id}" checked>'
        f'<span class="swatch" style="background:{class_hex(class_id)}"></span>{escape(name)} '
        f'<span class="count">{count:,}</span></label>'
        for (class_id, name), count in sorted(found.items())
    )
    return (
        f'<form hidden aria-label="Filters"><fieldset><legend>Classes</legend>{boxes}</fieldset>\n'
        f"<label{'' if scores else ' hidden'}>Least score "
        f'<input type="range" name="score" min="0" max="1" step="0.01" value="{min_score}">'
        '<output name="least"></output></label>\n'
        '<label>Fill <input type="range" name="fill" min="0" max="0.9" step="0.05" value="0.4"></label>\n'
        '<label>Size <input type="range" name="zoom" min="160" max="1200" step="20" value="300"></label>\n'
        '<label><input type="checkbox" name="captions" checked>Names</label>\n'
        '<output name="shown" class="count" aria-live="polite"></output></form>'
    )


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG within a URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def asset(name: str) -> str:
    """The text of a file that lies beside this one."""
    return resources.files("rayseg.views").joinpath(name).read_text(encoding="utf-8")


def plural(count: int, noun: str) -> str:
    """The count with its noun: "1 image", "2,000 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
