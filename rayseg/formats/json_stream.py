"""The items of one array of a huge JSON object, one after the other, in bounded memory.

COCO files of a million images are gigabytes of JSON of which planning wants one array. Each item is decoded by the
standard library; only the object's outermost punctuation is read here. What stands in other keys is passed over item by
item and not checked further than that.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from rayseg.errors import StorageError

_READ_BYTES = 1 << 20
_ITEM_CHARS_MAX = 256 << 20  # a longer item is taken for a broken file
_SPACE = " \t\r\n"
_CUT_CHARS = 16  # an error this close to the end of what was read may be an item cut in two
_CUT_NUMBER_CHARS = 2  # a number may go on after what was read, though it ends before "." or "e+" there


class NotJson(StorageError):
    """A file that is not the JSON it should be; the message gives the line."""


def array_items(file: BinaryIO, uri: str, key: str) -> Iterator[Any]:
    """The items of `key`'s array in the JSON object that `file` holds; reading stops where that array ends.

    Raises `NotJson`, naming `uri` and the line, for malformed JSON, and where there is no such key or it has no array.
    """
    text = _Text(file, uri)
    found = []
    text.expect("{", "an object")
    while text.next_char() != "}":
        name = text.value()
        if not isinstance(name, str):
            raise text.fault(f"expected a key in double quotes, found {name!r}")
        found.append(name)
        text.expect(":", "a colon after the key")
        if name == key:
            if text.next_char() != "[":
                raise text.fault(f"expected an array under {key!r}")
            yield from _items(text)
            return
        _pass_over(text)
        if text.next_char() != "}":
            text.expect(",", "a comma or the end of the object")
    raise NotJson(uri, f"no {key!r} in it; found the keys {', '.join(map(repr, found)) or 'none'}")


def _items(text: _Text) -> Iterator[Any]:
    text.expect("[", "an array")
    if text.next_char() != "]":
        yield text.value()
        while text.next_char() == ",":
            text.expect(",", "a comma")
            yield text.value()
    text.expect("]", "a comma or the end of the array")


def _pass_over(text: _Text) -> None:
    if text.next_char() != "[":
        text.value()
        return
    for _ in _items(text):
        pass


class _Text:
    """A text being read: the part in memory, the position in it, the lines that went before."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file, self._uri = file, uri
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder().raw_decode
        self._buffer, self._position, self._lines_before, self._ended = "", 0, 0, False

    def next_char(self) -> str:
        """The next character that is not white space, left where it is; "" at the end."""
        while True:
            while self._position < len(self._buffer):
                char = self._buffer[self._position]
                if char not in _SPACE:
                    return char
                self._position += 1
            if not self._more():
                return ""

    def expect(self, char: str, what: str) -> None:
        """Pass over `char`, or raise."""
        found = self.next_char()
        if found != char:
            raise self.fault(f"expected {what}, found {found!r}" if found else f"ends where {what} should be")
        self._position += 1

    def value(self) -> Any:
        """Decode the value that comes next."""
        self.next_char()
        while True:
            try:
                value, end = self._decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error) or not self._more():
                    self._position = error.pos
                    raise self.fault(error.msg[0].lower() + error.msg[1:]) from None
            except RecursionError:
                raise self.fault("is nested too deeply") from None
            else:
                if len(self._buffer) - end > _CUT_NUMBER_CHARS or not self._more():
                    self._position = end
                    return value

    def fault(self, message: str) -> NotJson:
        """An error at the present position."""
        line = self._lines_before + self._buffer.count("\n", 0, self._position) + 1
        return NotJson(self._uri, f"line {line}: not the expected JSON: {message}")

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        if len(self._buffer) - self._position > _ITEM_CHARS_MAX:
            return False
        return error.pos >= len(self._buffer) - _CUT_CHARS or error.msg.startswith("Unterminated string")

    def _more(self) -> bool:
        """Read on, forgetting what was passed over; False at the end of the file. Doubles while one item is long."""
        if self._ended:
            return False
        self._lines_before += self._buffer.count("\n", 0, self._position)
        self._buffer = self._buffer[self._position :]
        self._position = 0
        data = self._file.read(max(_READ_BYTES, len(self._buffer)))
        self._ended = not data
        try:
            self._buffer += self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            self._position = len(self._buffer)
            self._lines_before += data.count(b"\n", 0, error.start)
            raise self.fault("holds bytes that are not UTF-8") from None
        return True
