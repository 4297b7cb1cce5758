"""Text and numbers of CVAT's XML, which is written line by line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from rayseg.formats.shapes import COORDINATE_MAX

_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def spoken(text: str) -> str:
    """The text with what XML cannot hold replaced."""
    return _UNSPEAKABLE.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Text between tags, that reads back as it is."""
    return escape(spoken(text), {"\r": "&#13;"})


def tag(name: str, attributes: Mapping[str, str], *, closed: bool = False) -> str:
    """A start tag, or with `closed` an empty element; the values read back as they are."""
    pairs = "".join(f" {key}={quoteattr(spoken(value))}" for key, value in attributes.items())
    return f"<{name}{pairs}{'/' if closed else ''}>"


def plain(value: float) -> str:
    """A number with two decimals, as CVAT writes it, or with as many as it needs."""
    text = f"{value:.2f}"
    return text if float(text) == value else repr(float(value))


def points_text(points: np.ndarray) -> str:
    """(K, 2) as "x,y;x,y"."""
    return ";".join(f"{plain(x)},{plain(y)}" for x, y in points.tolist())


def number(text: str | None, what: str) -> float:
    """A finite number. Raises `ValueError`."""
    try:
        value = float(text if text is not None else "missing")
    except ValueError:
        value = float("nan")
    if not abs(value) <= COORDINATE_MAX:
        found = "none" if text is None else repr(text[:40])
        raise ValueError(f"expected {what} as a finite number, found {found}")
    return value


def whole(text: str | None, what: str) -> int:
    """A whole number from 0. Raises `ValueError`."""
    if text is None or not (text.isascii() and text.strip().isdecimal()) or len(text) > 18:
        found = "none" if text is None else repr(text[:40])
        raise ValueError(f"expected {what} as a whole number, found {found}")
    return int(text)


def points(text: str | None) -> np.ndarray:
    """(K, 2) float64 out of "x,y;x,y". Raises `ValueError`."""
    pairs = [pair.split(",") for pair in (text or "").strip().rstrip(";").split(";")]
    if not text or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"expected points as x,y;x,y, found {(text or '')[:80]!r}")
    try:
        return np.array([[float(x), float(y)] for x, y in pairs])
    except ValueError:
        raise ValueError(f"expected points as x,y;x,y, found {text[:80]!r}") from None
