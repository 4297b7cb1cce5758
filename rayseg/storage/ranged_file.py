"""A remote object as a seekable file: each read is a ranged request, with a little read ahead."""

from __future__ import annotations

import io
from collections.abc import Callable

READ_AHEAD_BYTES = 64 * 1024


class RangedFile(io.RawIOBase):
    """Read-only. Opening fetches the end of the object, which tells its size and is where Parquet's footer is.

    `fetch(uri, start, length)` returns bytes, `start` counted from the end if negative, and the object's size.
    One file serves one thread at a time, as any file with a position does.
    """

    def __init__(self, uri: str, fetch: Callable[[str, int, int], tuple[bytes, int]]) -> None:
        self._uri = uri
        self._fetch = fetch
        self._position = 0
        self._window, self._size_bytes = fetch(uri, -READ_AHEAD_BYTES, READ_AHEAD_BYTES)
        self._window_start = self._size_bytes - len(self._window)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._uri}: cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._size_bytes - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        data = self._at(self._position, length)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _at(self, start: int, length: int) -> bytes:
        if self.closed:
            raise ValueError(f"{self._uri}: the file is closed")
        offset = start - self._window_start
        if offset < 0 or offset + length > len(self._window):
            if length >= READ_AHEAD_BYTES:  # big enough to be a request of its own, and not to be kept
                return self._fetch(self._uri, start, length)[0]
            self._window, _ = self._fetch(self._uri, start, READ_AHEAD_BYTES)
            self._window_start, offset = start, 0
        return self._window[offset : offset + length]
