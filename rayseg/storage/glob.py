"""Glob patterns over URIs: `*` and `?` within one name, `[a-c]` and `[!a-c]`, `**` across folders."""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKEN = re.compile(
    r"(?P<folders>(?<![^/])\*\*/)|(?P<rest>\*\*)|(?P<set>\[!?\]?[^\]/]*\])|(?P<literal>[^*?\[]+|.)", re.S
)
_MAGIC = re.compile(r"[*?\[]")


class Glob:
    """One pattern. `decode` turns its literal text into what names are spelled in: percent-decoding for `file://`.

    prefix     the pattern up to its first `*`, `?` or `[`; the whole of it if it has none
    max_depth  folders below the last "/" of `prefix` that a match can lie in; None for any number
    """

    def __init__(self, pattern: str, decode: Callable[[str], str]) -> None:
        magic = _MAGIC.search(pattern)
        self.is_literal = magic is None
        self.prefix = pattern[: magic.start()] if magic else pattern
        self.max_depth = None if "**" in pattern else pattern.count("/") - self.prefix.count("/")
        self._regex = re.compile("".join(_translate(token, decode) for token in _TOKEN.finditer(pattern)), re.S)

    def matches(self, name: str) -> bool:
        return self._regex.fullmatch(name) is not None


def _translate(token: re.Match[str], decode: Callable[[str], str]) -> str:
    text = token[0]
    if token["folders"]:
        return "(?:.*/)?"
    if token["rest"]:
        return ".*"
    if token["set"]:
        negated = text[1] == "!"
        members = re.escape(text[2 if negated else 1 : -1]).replace(r"\-", "-")
        return f"(?!/)[{'^' if negated else ''}{members}]"
    return {"*": "[^/]*", "?": "[^/]"}.get(text) or re.escape(decode(text))
