"""Text from outside, made fit for a terminal or a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, with control characters and broken surrogates spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
