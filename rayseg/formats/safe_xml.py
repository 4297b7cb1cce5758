"""XML from strangers: elements, attributes and text; no DTD, no entities of its own, bounded in size, depth and number.

A document type declaration is refused outright, so there is nothing to expand and nothing outside to fetch. Every error is
a `BadAnnotation` that names the line; each element knows its own (`line_of`). Comments, processing instructions and what
stands between an end tag and the next tag are passed over; names with a prefix stay as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, NoReturn
from xml.etree.ElementTree import Element
from xml.parsers import expat

from rayseg.formats.faults import BadAnnotation

MAX_BYTES = 64 << 20  # of a document for `parse`, of one element for `elements`
MAX_DEPTH = 64
MAX_ELEMENTS = 1_000_000  # likewise
_READ_BYTES = 1 << 18


class _Element(Element):
    line = 0


class _Open(NamedTuple):
    """An element whose end has not come, and the pieces of its text."""

    element: _Element
    texts: list[str]


def parse(data: bytes, uri: str, *, max_bytes: int = MAX_BYTES) -> Element:
    """The document element of `data`. Raises `BadAnnotation` with `uri` and the line."""
    if len(data) > max_bytes:
        raise BadAnnotation(uri, f"{len(data):,} bytes of XML, expected at most {max_bytes:,}")
    tree = _Tree(uri, None)
    tree.feed(data, last=True)
    return tree.finished[0]


def elements(file: BinaryIO, uri: str, tag: str) -> Iterator[Element]:
    """The elements named `tag`, whole and in order, wherever they stand but inside one another; memory holds one or a few.

    Raises `BadAnnotation` with `uri` and the line, also for what is wrong after the last of them.
    """
    tree = _Tree(uri, tag)
    while True:
        data = file.read(_READ_BYTES)
        tree.feed(data, last=not data)
        yield from tree.finished
        tree.finished.clear()
        if not data:
            return


def line_of(element: Element) -> int:
    """The line on which the element starts; 0 for one that was not parsed here."""
    return getattr(element, "line", 0)


class _Tree:
    """Builds elements out of expat's events; with a `tag` only those of that name, as soon as each is whole."""

    def __init__(self, uri: str, tag: str | None) -> None:
        self.finished: list[Element] = []
        self._uri, self._tag = uri, tag
        self._open: list[_Open] = []
        self._depth = self._count = self._held_bytes = 0
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._doctype
        parser.ExternalEntityRefHandler = self._doctype

    def feed(self, data: bytes, *, last: bool) -> None:
        """Take more of the document."""
        self._held_bytes += len(data)
        try:
            self._parser.Parse(data, last)
        except BadAnnotation:
            raise
        except expat.ExpatError as error:
            message = expat.ErrorString(error.code)
            raise BadAnnotation(self._uri, f"line {error.lineno}: not well-formed XML: {message}") from None
        except (LookupError, ValueError) as error:  # an encoding that is unknown, or of several bytes a character
            raise BadAnnotation(self._uri, f"line 1: XML in an encoding that cannot be read: {error}") from None
        if self._held_bytes > MAX_BYTES + _READ_BYTES:
            self._refuse(f"expected elements of at most {MAX_BYTES:,} bytes, found a longer one")

    def _refuse(self, message: str) -> NoReturn:
        raise BadAnnotation(self._uri, f"line {self._parser.CurrentLineNumber}: {message}")

    def _doctype(self, *_: object) -> NoReturn:
        self._refuse("expected XML without a document type, found a DTD or an entity, which are refused")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"expected elements nested at most {MAX_DEPTH} deep, found more")
        if not self._open:
            self._held_bytes = self._count = 0
            if self._tag is not None and name != self._tag:
                return
        self._count += 1
        if self._count > MAX_ELEMENTS:
            self._refuse(f"expected at most {MAX_ELEMENTS:,} elements, found more")
        element = _Element(name, attributes)
        element.line = self._parser.CurrentLineNumber
        if self._open:
            self._open[-1].element.append(element)
        self._open.append(_Open(element, []))

    def _text(self, text: str) -> None:
        if self._open and not len(self._open[-1].element):  # before its first child; what comes later says nothing
            self._open[-1].texts.append(text)

    def _end(self, _: str) -> None:
        self._depth -= 1
        if not self._open:
            self._held_bytes = 0
            return
        element, texts = self._open.pop()
        element.text = "".join(texts) or None
        if not self._open:
            self._held_bytes = 0
            self.finished.append(element)
