"""The frame of a report: a header, links to its sections, the sections. One file, no network, light or dark as one likes.

A content security policy forbids the page to load anything and to run any script but its own, which sorts tables, shows and
hides outlines and switches the theme. Whoever puts text from outside on a page escapes it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from rayseg.views.page import asset

_SCRIPT, _STYLE = "evaluation_report.js", "evaluation_report.css"


def page(title: str, header: str, sections: Mapping[str, tuple[str, str]], above: str = "") -> bytes:
    """The page; `sections` are name and content by key, empty ones left out. `above` stands before them."""
    full = {key: section for key, section in sections.items() if section[1]}
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(name)}</h2>{content}</section>'
        for key, (name, content) in full.items()
    )
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, (name, _) in full.items())
    return (
        f"{_head(title)}{header}"
        f'<nav aria-label="Sections">{links}<button type="button" id="theme" hidden>Theme: automatic</button></nav>'
        f'<main id="main">{above}{body}</main><script>{asset(_SCRIPT)}</script></body></html>\n'
    ).encode()


def plot(plots: Mapping[str, str], name: str, note: str) -> str:
    """The plot of that name with a note below, "" where there is none."""
    if name not in plots:
        return ""
    return f'<figure class="plot"><div class="wide">{plots[name]}</div><figcaption>{note}</figcaption></figure>'


def _head(title: str) -> str:
    digest = base64.b64encode(hashlib.sha256(asset(_SCRIPT).encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{asset(_STYLE)}</style></head><body>\n"
        '<a class="skip" href="#main">Skip to the numbers</a>'
    )
