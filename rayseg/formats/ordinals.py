"""Sets of ordinals: as ranges, as the short text in a part's footer, and as a bitmap in memory.

Ranges are (K, 2) int64, half open [start, stop), ascending and apart from each other. The text names the last ordinal
itself, as people write ranges: "0-31,40,64-95".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_SHORT_BYTES = 64  # runs of whole bytes up to this long are set together, longer ones each by a slice
_RANGES_AT_ONCE = 1 << 14  # bounds the scratch memory of one step to a few MB


def to_ranges(ordinals: np.ndarray) -> np.ndarray:
    """(N,) int64 ordinals, strictly ascending and not negative, as ranges. Raises `ValueError` otherwise."""
    ordinals = np.ascontiguousarray(ordinals, dtype=np.int64)
    if not len(ordinals):
        return np.empty((0, 2), np.int64)
    steps = np.diff(ordinals)
    if ordinals[0] < 0 or (steps < 1).any():
        raise ValueError("ordinals must be strictly ascending and not negative")
    breaks = np.flatnonzero(steps > 1)
    starts = ordinals[np.concatenate([[0], breaks + 1])]
    lasts = ordinals[np.concatenate([breaks, [len(ordinals) - 1]])]
    return np.stack([starts, lasts + 1], axis=1)


def encode_ranges(ordinals: np.ndarray) -> str:
    """(N,) int64 ordinals, strictly ascending and not negative, as text. Raises `ValueError` otherwise."""
    ranges = to_ranges(ordinals).tolist()
    return ",".join(str(start) if stop == start + 1 else f"{start}-{stop - 1}" for start, stop in ranges)


def decode_ranges(text: str) -> np.ndarray:
    """Text of `encode_ranges` as (K, 2) int64 ranges. Raises `ValueError` for any other text."""
    if not text:
        return np.empty((0, 2), np.int64)
    words = [word.split("-") for word in text.split(",")]
    if not (text.isascii() and all(len(word) <= 2 and all(map(str.isdigit, word)) for word in words)):
        raise ValueError(f"not ranges of ordinals: {text[:80]!r}")
    ranges = np.array([(int(word[0]), int(word[-1]) + 1) for word in words], np.int64)
    if (ranges[:, 0] >= ranges[:, 1]).any() or (ranges[1:, 0] <= ranges[:-1, 1]).any():
        raise ValueError(f"ranges of ordinals that do not ascend: {text[:80]!r}")
    return ranges


def count_ordinals(ranges: np.ndarray) -> int:
    """How many ordinals `ranges` (K, 2) hold."""
    return int((ranges[:, 1] - ranges[:, 0]).sum())


class OrdinalBitmap:
    """A set of ordinals below `total`, one bit each: 100 million take 12.5 MB."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._bits = np.zeros((total + 7) // 8, np.uint8)  # bit i of byte b is ordinal 8 b + i

    def count(self) -> int:
        """How many ordinals are set."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def overlaps(self, ranges: np.ndarray) -> bool:
        """True when an ordinal of `ranges` (K, 2) is set. Raises `ValueError` for ordinals outside the bitmap."""
        return any(bool((self._bits[index] & mask).any()) for index, mask in self._bytes_of(ranges))

    def add_ranges(self, ranges: np.ndarray) -> bool:
        """Set the ordinals of `ranges` (K, 2); True when one of them was set already.

        Raises `ValueError`, with nothing set, for ordinals outside the bitmap.
        """
        clash = False
        for index, mask in self._bytes_of(ranges):
            clash = clash or bool((self._bits[index] & mask).any())
            if isinstance(index, slice):
                self._bits[index] = mask
            else:
                np.bitwise_or.at(self._bits, index, mask)
        return clash

    def add(self, ordinals: np.ndarray) -> np.ndarray:
        """Set `ordinals` (N,) int64; returns (N,) bool: it was set before, or stands earlier in `ordinals`.

        Raises `ValueError`, with nothing set, for ordinals outside the bitmap.
        """
        ordinals = np.asarray(ordinals, np.int64)
        if len(ordinals):
            self._check(int(ordinals.min()), int(ordinals.max()) + 1)
        index, bit = ordinals >> 3, np.left_shift(1, ordinals & 7).astype(np.uint8)
        repeated = (self._bits[index] & bit) != 0
        first = np.zeros(len(ordinals), bool)
        first[np.unique(ordinals, return_index=True)[1]] = True
        np.bitwise_or.at(self._bits, index, bit)
        return repeated | ~first

    def missing(self, start: int, stop: int) -> np.ndarray:
        """The ordinals in [start, stop) that are not set, (K,) int64 ascending."""
        self._check(start, stop)
        first = start >> 3
        bits = np.unpackbits(self._bits[first : (stop + 7) >> 3], bitorder="little")
        bits = bits[start - 8 * first : stop - 8 * first]
        return np.flatnonzero(bits == 0) + start

    def missing_chunks(self, size: int = 1 << 20) -> Iterator[np.ndarray]:
        """All that is missing, ascending, as (K,) int64 arrays with 0 < K <= `size`."""
        for start in range(0, self.total, size):
            chunk = self.missing(start, min(start + size, self.total))
            if len(chunk):
                yield chunk

    def _check(self, start: int, stop: int) -> None:
        if start < 0 or stop > self.total:
            raise ValueError(f"ordinals {start}-{stop - 1} found, expected 0-{self.total - 1}")

    def _bytes_of(self, ranges: np.ndarray) -> Iterator[tuple[np.ndarray | slice, np.ndarray | np.uint8]]:
        """Bytes that `ranges` touch, and which bits of them: (indices, masks), or a slice of whole bytes and 0xFF."""
        if len(ranges):
            self._check(int(ranges[0, 0]), int(ranges[-1, 1]))
        for k in range(0, len(ranges), _RANGES_AT_ONCE):
            yield from _bytes_of(ranges[k : k + _RANGES_AT_ONCE])


def _bytes_of(ranges: np.ndarray) -> Iterator[tuple[np.ndarray | slice, np.ndarray | np.uint8]]:
    start, last = ranges[:, 0], ranges[:, 1] - 1
    first_byte, last_byte = start >> 3, last >> 3
    head = np.left_shift(0xFF, start & 7) & 0xFF
    tail = np.right_shift(0xFF, 7 - (last & 7))
    one = first_byte == last_byte
    yield first_byte, np.where(one, head & tail, head).astype(np.uint8)
    yield last_byte[~one], tail[~one].astype(np.uint8)
    begin, length = first_byte + 1, last_byte - first_byte - 1  # the whole bytes between
    short = (length > 0) & (length <= _SHORT_BYTES)
    yield _expand(begin[short], length[short]), np.uint8(0xFF)
    for i in np.flatnonzero(length > _SHORT_BYTES).tolist():
        yield slice(int(begin[i]), int(begin[i] + length[i])), np.uint8(0xFF)


def _expand(begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    """[b, b+1, ..., b+n-1] of every (b, n), one after the other."""
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(begin - (ends - length), length)
