"""Where the items of a huge JSON file's arrays lie, found in one pass, so that they can be decoded one by one later.

A compiled scanner looks only at brackets, strings and the integers under a few wanted keys; nothing of an item is kept but
its place. What is wrong inside an item comes out when it is decoded. The rest of the file, outside the arrays asked for, is
decoded as it is.

Shapes: N items of an array, W wanted keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from rayseg.formats.json_stream import NotJson
from rayseg.kernels.json_scan import ENDED, FAULT, INTEGER, SCANNING, past_space, scan_items, value_end

READ_BYTES = 8 << 20
ITEM_BYTES_MAX = 256 << 20  # a longer item is taken for a broken file
TOP = ""  # the name of the array that is the whole file
_ROWS_AT_ONCE = 1 << 16
_BOM = b"\xef\xbb\xbf"
_VALUE_STARTS = b'{["-0123456789tfnNI'


@dataclass(slots=True)
class Items:
    """The items of one array: `starts`, `ends` (N,) int64 are byte offsets in the file.

    values  (N, W) int64, the integers under the wanted keys
    odd     rows where one of them is missing or no plain integer: what the keys hold, None for a key or item that is not
    """

    starts: np.ndarray
    ends: np.ndarray
    values: np.ndarray
    odd: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(slots=True)
class Scan:
    """A file's `arrays` that were asked for, and its other keys with their values."""

    arrays: dict[str, Items]
    others: dict[str, Any]


def scan(file: BinaryIO, uri: str, wanted: Mapping[str, Sequence[str]]) -> Scan:
    """Go through `file` once. `wanted` names arrays of its outermost object, and the keys of their items to look up.

    A file that is an array itself is scanned as the wanted array `TOP`. Raises `NotJson`, naming `uri` and the line, for
    what is not JSON outside the items, and where one of the arrays is there twice or is no array.
    """
    text = _Bytes(file, uri)
    is_array = text.next_byte() == b"[" and TOP in wanted
    found = Scan({TOP: text.items(wanted[TOP])}, {}) if is_array else _object(text, wanted)
    if text.next_byte():
        raise text.fault(f"expected its end, found {text.next_byte()!r}")
    return found


def decoded(raw: bytes) -> Any:
    """The value of one item's bytes. Raises `ValueError` that says what is wrong with it."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def line_of(file: BinaryIO, offset: int) -> int:
    """The line, from 1, that the byte `offset` of a seekable file stands in."""
    file.seek(0)
    line, left = 1, offset
    while left > 0 and (data := file.read(min(left, READ_BYTES))):
        line += data.count(b"\n")
        left -= len(data)
    return line


def _object(text: _Bytes, wanted: Mapping[str, Sequence[str]]) -> Scan:
    found = Scan({}, {})
    text.expect(b"{", "an object")
    while text.next_byte() != b"}":
        name = text.value()
        if not isinstance(name, str):
            raise text.fault(f"expected a key in double quotes, found {str(name)[:80]}")
        text.expect(b":", "a colon after the key")
        if name in found.arrays:
            raise text.fault(f"expected one {name!r}, found a second")
        if name in wanted and name != TOP:
            found.arrays[name] = text.items(wanted[name])
        else:
            found.others[name] = text.value()
        if text.next_byte() != b"}":
            text.expect(b",", "a comma or the end of the object")
    text.expect(b"}", "the end of the object")
    return found


class _Bytes:
    """A file being read: the part in memory, the position in it, how much went before."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file, self._uri = file, uri
        self._buffer = np.empty(max(READ_BYTES, len(_BOM)), np.uint8)
        self._position = self._before = self._lines = 0  # in the buffer, in the file, lines before the buffer
        head = file.read(len(_BOM))
        if head == _BOM:
            self._before, head = len(head), b""
        self._size = len(head)
        self._buffer[: len(head)] = np.frombuffer(head, np.uint8)

    def next_byte(self) -> bytes:
        """The next byte that is not white space, left where it is; b"" at the end."""
        while True:
            self._position = int(past_space(self._buffer, self._position, self._size))
            if self._position < self._size:
                return self._buffer[self._position : self._position + 1].tobytes()
            if not self._more():
                return b""

    def expect(self, byte: bytes, what: str) -> None:
        """Pass over `byte`, or raise."""
        found = self.next_byte()
        if found != byte:
            raise self.fault(f"expected {what}, found {found!r}" if found else f"ends where {what} should be")
        self._position += 1

    def value(self) -> Any:
        """Decode the value that comes next."""
        if not self.next_byte():
            raise self.fault("ends where a value should be")
        while (end := int(value_end(self._buffer, self._position, self._size))) < 0 and self._more():
            pass
        raw = self._buffer[self._position : end if end >= 0 else self._size].tobytes()
        value = self._decoded(raw)
        self._position += len(raw)
        return value

    def items(self, keys: Sequence[str]) -> Items:
        """The places of the items of the array that comes next."""
        if self.next_byte() != b"[":
            raise self.fault("expected an array")
        self._position += 1
        pieces = list(self._item_blocks(keys, self.next_byte() == b"]"))
        rows, odd = 0, {}
        for piece in pieces:
            odd.update({rows + row: values for row, values in piece.odd.items()})
            rows += len(piece)
        pieces.append(Items(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, len(keys)), np.int64)))
        starts, ends = (
            np.concatenate([piece.starts for piece in pieces]),
            np.concatenate([piece.ends for piece in pieces]),
        )
        return Items(starts, ends, np.concatenate([piece.values for piece in pieces]), odd)

    def fault(self, message: str) -> NotJson:
        """An error at the present position."""
        line = self._lines + self._buffer[: self._position].tobytes().count(b"\n") + 1
        return NotJson(self._uri, f"line {line}: not the expected JSON: {message}")

    def _item_blocks(self, keys: Sequence[str], empty: bool) -> Iterator[Items]:
        names = [key.encode() for key in keys]
        flat = np.frombuffer(b"".join(names), np.uint8)
        key_offsets = np.concatenate([[0], np.cumsum([len(name) for name in names])]).astype(np.int64)
        starts, ends = np.empty(_ROWS_AT_ONCE, np.int64), np.empty(_ROWS_AT_ONCE, np.int64)
        values = np.empty((_ROWS_AT_ONCE, len(keys)), np.int64)
        kinds = np.empty((_ROWS_AT_ONCE, len(keys)), np.uint8)
        first, state = True, SCANNING
        if empty:
            self._position += 1
            return
        while state != ENDED:
            count, position, state = scan_items(
                self._buffer, self._position, self._size, first, flat, key_offsets, starts, ends, values, kinds
            )
            self._position, first = int(position), first and not count
            if count:
                yield self._block(keys, starts[:count], ends[:count], values[:count], kinds[:count])
            if state == FAULT:
                raise self._item_fault(first)
            if state == SCANNING and not self._more():
                raise self._item_fault(first)

    def _block(
        self, keys: Sequence[str], starts: np.ndarray, ends: np.ndarray, values: np.ndarray, kinds: np.ndarray
    ) -> Items:
        odd = {}
        for row in np.flatnonzero((kinds != INTEGER).any(axis=1)).tolist():
            item = self._decoded(self._buffer[starts[row] : ends[row]].tobytes(), int(starts[row]))
            odd[row] = tuple(item.get(key) if isinstance(item, dict) else None for key in keys)
        return Items(starts + self._before, ends + self._before, values.copy(), odd)

    def _item_fault(self, first: bool) -> NotJson:
        """What is wrong where the scanner could not go on: punctuation, or an item without an end."""
        found = self.next_byte()
        if not first:
            if found and found != b",":
                return self.fault(f"expected a comma or the end of the array, found {found!r}")
            self._position += len(found)
            found = self.next_byte()
        if not found:
            return self.fault("ends in the middle of an array")
        if found in _VALUE_STARTS:
            try:
                self._decoded(self._buffer[self._position : self._size].tobytes())
            except NotJson as error:
                return error
        return self.fault(f"expected an item of an array, found {found!r}")

    def _decoded(self, raw: bytes, position: int | None = None) -> Any:
        position = self._position if position is None else position
        try:
            return decoded(raw)
        except json.JSONDecodeError as error:
            self._position = position + len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))
            raise self.fault(error.msg[0].lower() + error.msg[1:]) from None
        except UnicodeDecodeError as error:
            self._position = position + error.start
            raise self.fault("holds bytes that are not UTF-8") from None
        except ValueError as error:
            self._position = position
            raise self.fault(str(error)) from None

    def _more(self) -> bool:
        """Read on, forgetting what was passed over; False at the end of the file. Doubles while one item is long."""
        left = self._size - self._position
        if left > ITEM_BYTES_MAX:
            return False
        self._lines += self._buffer[: self._position].tobytes().count(b"\n")
        grown = self._buffer if 2 * left <= len(self._buffer) else np.empty(2 * len(self._buffer), np.uint8)
        grown[:left] = self._buffer[self._position : self._size].copy()
        self._before += self._position
        self._buffer, self._position, self._size = grown, 0, left
        data = self._file.read(len(grown) - left)
        grown[left : left + len(data)] = np.frombuffer(data, np.uint8)
        self._size += len(data)
        return bool(data)
