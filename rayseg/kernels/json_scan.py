"""JSON as bytes: where its values end, which integers stand under wanted keys, rings of numbers read without Python objects.

Nothing here decides whether a text is JSON: what looks like the wanted form is taken, all else is left to a real decoder.
Places are indices into a `buffer` (bytes,) uint8.
"""

from __future__ import annotations

import numpy as np

from rayseg.kernels.compilation import kernel

MISSING, INTEGER, OTHER = 0, 1, 2  # kinds of a wanted key's value
# why `scan_items` stopped: the buffer ended, the array did, the columns are full, it is not JSON
SCANNING, ENDED, FULL, FAULT = 0, 1, 2, 3

_QUOTE, _BACKSLASH, _COMMA, _COLON, _POINT, _MINUS = (np.uint8(ord(char)) for char in '"\\,:.-')
_BRACE, _BRACKET, _BRACKET_END, _ZERO = (np.uint8(ord(char)) for char in "{[]0")
_SPACE, _OPENING, _CLOSING, _DELIMITERS, _SIGNS, _EXPONENT = (
    tuple(np.uint8(ord(char)) for char in chars) for chars in (" \n\r\t", "{[", "}]", ",]}:", "+-", "eE")
)
_POWERS = 10.0 ** np.arange(23)  # those that a float64 holds exactly
_EXACT = 1 << 53
_DIGITS = 18


@kernel
def past_space(buffer, position, size):
    """The first place from `position` on that holds no white space."""
    while position < size:
        byte = buffer[np.uint64(position)]
        if byte not in _SPACE:
            break
        position += 1
    return position


@kernel
def _string_end(buffer, position, size):
    """The place after the string whose opening quote is at `position`; -1 where it does not end."""
    position += 1
    while position < size:
        byte = buffer[np.uint64(position)]
        if byte == _QUOTE:
            return position + 1
        position += 2 if byte == _BACKSLASH else 1
    return -1


@kernel
def value_end(buffer, position, size):
    """The place after the value that begins at `position`; -1 where what is there may go on."""
    if position >= size:
        return -1
    byte = buffer[np.uint64(position)]
    if byte == _QUOTE:
        return _string_end(buffer, position, size)
    if byte not in _OPENING:
        while position < size:  # a number or a word
            byte = buffer[np.uint64(position)]
            if byte <= 32 or byte in _DELIMITERS:
                return position
            position += 1
        return -1
    depth = 0
    while position < size:
        byte = buffer[np.uint64(position)]
        if byte == _QUOTE:
            position = _string_end(buffer, position, size)
            if position < 0:
                return -1
            continue
        if byte in _OPENING:
            depth += 1
        elif byte in _CLOSING:
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return -1


@kernel
def _key_index(buffer, begin, end, keys, key_offsets):
    """Which of the wanted keys stands in `buffer` from `begin` to `end`; -1 for another."""
    for k in range(len(key_offsets) - 1):
        if key_offsets[k + 1] - key_offsets[k] != end - begin:
            continue
        same = True
        for i in range(end - begin):
            if keys[key_offsets[k] + i] != buffer[begin + i]:
                same = False
                break
        if same:
            return k
    return -1


@kernel
def _look_up(buffer, position, size, keys, key_offsets, values, kinds):
    """Pass over the object that begins at `position` and note the wanted integers in it; its end, or -1."""
    kinds[:] = MISSING
    depth = 0
    while position < size:
        byte = buffer[np.uint64(position)]
        if byte == _QUOTE:
            end = _string_end(buffer, position, size)
            if end < 0:
                return -1
            if depth == 1:
                after = past_space(buffer, end, size)
                if after < size and buffer[after] == _COLON:
                    k = _key_index(buffer, position + 1, end - 1, keys, key_offsets)
                    if k >= 0:
                        after = past_space(buffer, after + 1, size)
                        kinds[k], values[k] = _integer(buffer, after, size)
            position = end
            continue
        if byte in _OPENING:
            depth += 1
        elif byte in _CLOSING:
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return -1


@kernel
def _integer(buffer, position, size):
    """The kind of the value at `position` and, if it is an integer of up to 18 digits, that integer."""
    negative = position < size and buffer[position] == _MINUS
    begin = position + 1 if negative else position
    position, value = begin, np.int64(0)
    while position < size and 48 <= buffer[position] <= 57 and position - begin < 19:
        value = 10 * value + (np.int64(buffer[position]) - 48)
        position += 1
    digits = position - begin
    follows = buffer[position] if position < size else _POINT
    ends = follows <= 32 or follows in _DELIMITERS
    if digits == 0 or digits > 18 or not ends:
        return np.uint8(OTHER), np.int64(0)
    return np.uint8(INTEGER), -value if negative else value


@kernel
def scan_items(buffer, position, size, first, keys, key_offsets, starts, ends, values, kinds):
    """Note items from `position` on, until the array ends, the buffer does, or the columns are full.

    Returns their number, the place after the last of them, and the state. Places are relative to the buffer.
    """
    count = 0
    while True:
        at = past_space(buffer, position, size)
        if at >= size:
            return count, position, SCANNING
        if not first:
            if buffer[at] == _BRACKET_END:
                return count, at + 1, ENDED
            if buffer[at] != _COMMA:
                return count, position, FAULT
            at = past_space(buffer, at + 1, size)
            if at >= size:
                return count, position, SCANNING
        if count == len(starts):
            return count, position, FULL
        if buffer[at] == _BRACE:
            end = _look_up(buffer, at, size, keys, key_offsets, values[count], kinds[count])
        else:
            kinds[count, :] = MISSING
            end = value_end(buffer, at, size)
        if end < 0:
            return count, position, SCANNING
        if end == at:
            return count, position, FAULT
        starts[count], ends[count] = at, end
        count += 1
        position, first = end, False


@kernel
def read_rings(buffer, offsets, key):
    """The rings of numbers, `[[x, y, x, y, x, y, ...], ...]`, under `key` (bytes,) uint8 of n objects, JSON texts that
    follow each other in `buffer` from `offsets` (n + 1,).

    Returns for each object where its value begins and ends, relative to it, (n, 2) int64, -1 where it is not of that form
    or a ring has fewer than 6 or an odd number of coordinates; the number of its rings (n,); the offsets of all rings
    (rings + 1,) into all numbers (m,) float64; (k, 3) int64 of those that are not exact: index, begin and end in the
    buffer; and the text (bytes,) uint8 of an array of the objects with 0 in place of what was read. Exact are numbers whose
    digits and power of ten a float64 holds (Clinger 1990, the fast path).
    """
    n = len(offsets) - 1
    cuts, ring_counts = np.full((n, 2), -1, np.int64), np.zeros(n, np.int64)
    numbers, ring_offsets = np.empty(len(buffer) // 2 + 1, np.float64), np.zeros(len(buffer) // 12 + 2, np.int64)
    inexact = np.empty((len(buffer) // 2 + 1, 3), np.int64)
    rest, size = np.empty(len(buffer) + 2 * n + 2, np.uint8), 1
    rest[0] = _BRACKET
    rings, left = 0, 0
    for i in range(n):
        begin = _value_of(buffer, offsets[i], offsets[i + 1], key)
        end = np.int64(-1)
        if begin >= 0:
            end, found, inexact_found = _rings(
                buffer, begin, offsets[i + 1], numbers, ring_offsets, rings, inexact, left
            )
            if end >= 0:
                cuts[i, 0], cuts[i, 1] = begin - offsets[i], end - offsets[i]
                ring_counts[i] = found - rings
                rings, left = found, inexact_found
        size = _put_without(rest, size, buffer, offsets[i], offsets[i + 1], begin, end)
    rest[size - 1 if n > 0 else size] = _BRACKET_END
    size += 0 if n > 0 else 1
    return cuts, ring_counts, ring_offsets[: rings + 1], numbers[: ring_offsets[rings]], inexact[:left], rest[:size]


@kernel
def _put_without(rest, size, buffer, first, last, begin, end):
    """Write `buffer` from `first` to `last` and a comma, with 0 for `begin` to `end` where that is a place. The new size."""
    if end < 0:
        begin = last
    rest[size : size + begin - first] = buffer[first:begin]
    size += begin - first
    if end >= 0:
        rest[size] = _ZERO
        rest[size + 1 : size + 1 + last - end] = buffer[end:last]
        size += 1 + last - end
    rest[size] = _COMMA
    return size + 1


@kernel
def _value_of(buffer, position, size, key):
    """Where the value of `key` begins in the object at `position`; -1 where it has none."""
    whole = np.array([0, len(key)])
    depth = 0
    while position < size:
        byte = buffer[np.uint64(position)]
        if byte == _QUOTE:
            end = _string_end(buffer, position, size)
            if end < 0:
                return -1
            if depth == 1:
                after = past_space(buffer, end, size)
                if (
                    after < size
                    and buffer[after] == _COLON
                    and _key_index(buffer, position + 1, end - 1, key, whole) == 0
                ):
                    return past_space(buffer, after + 1, size)
            position = end
            continue
        if byte in _OPENING:
            depth += 1
        elif byte in _CLOSING:
            depth -= 1
        position += 1
    return -1


@kernel
def _rings(buffer, position, size, numbers, ring_offsets, rings, inexact, left):
    """Read one list of rings. Returns its end, or -1 for anything else, and how many rings and inexact numbers there are."""
    if position >= size or buffer[position] != _BRACKET:
        return -1, rings, left
    byte = np.uint8(_COMMA)
    while byte == _COMMA:
        position = past_space(buffer, position + 1, size)
        if position >= size or buffer[position] != _BRACKET:
            return -1, rings, left
        first = count = ring_offsets[rings]
        while byte == _COMMA:
            position = past_space(buffer, position + 1, size)
            end, numbers[count], exact = _number(buffer, position, size)
            if end < 0:
                return -1, rings, left
            if not exact:
                inexact[left, 0], inexact[left, 1], inexact[left, 2] = count, position, end
                left += 1
            count += 1
            position = past_space(buffer, end, size)
            byte = buffer[position] if position < size else np.uint8(0)
        if byte != _BRACKET_END or count - first < 6 or (count - first) % 2 == 1:
            return -1, rings, left
        rings += 1
        ring_offsets[rings] = count
        position = past_space(buffer, position + 1, size)
        byte = buffer[position] if position < size else np.uint8(0)
    return position + 1 if byte == _BRACKET_END else -1, rings, left


@kernel
def _number(buffer, position, size):
    """Where the JSON number at `position` ends, or -1; its value, 0 unless exact; whether it is."""
    negative = position < size and buffer[position] == _MINUS
    if negative:
        position += 1
    begin = position
    position, mantissa, digits = _digits(buffer, position, size, np.int64(0), 0)
    if digits == 0 or (digits > 1 and buffer[begin] == _ZERO):
        return -1, 0.0, False
    scale = 0
    if position < size and buffer[position] == _POINT:
        whole = digits
        position, mantissa, digits = _digits(buffer, position + 1, size, mantissa, digits)
        scale = digits - whole
        if scale == 0:
            return -1, 0.0, False
    exact = digits <= _DIGITS and mantissa <= _EXACT
    if position < size and buffer[position] in _EXPONENT:
        position += 1
        if position < size and buffer[position] in _SIGNS:
            position += 1
        position, _, exponent_digits = _digits(buffer, position, size, np.int64(0), 0)
        if exponent_digits == 0:
            return -1, 0.0, False
        exact = False
    value = mantissa / _POWERS[scale] if exact else 0.0
    return position, -value if negative else value, exact


@kernel
def _digits(buffer, position, size, value, count):
    """Read digits on to `value`, which has `count` so far and takes up to `_DIGITS`."""
    while position < size:
        digit = np.int64(buffer[np.uint64(position)]) - 48
        if digit < 0 or digit > 9:
            break
        if count < _DIGITS:
            value = 10 * value + digit
        position += 1
        count += 1
    return position, value, count
