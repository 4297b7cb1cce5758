"""HTTP connections on which a request's headers must be complete within a time.

uvicorn waits for them for ever, and each connection that waits holds a socket. The time of bodies is limited in `limits`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def connections(headers_timeout_s: float) -> type[asyncio.Protocol]:
    """What uvicorn takes as its `http`: its own protocol, whose connections end where headers take longer."""
    base: Any = AutoHTTPProtocol

    class Connection(base):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()

        def _watch(self) -> None:
            """Start the clock where a request has begun or is due; stop it where its headers are there."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._late is None:
                self._late = self.loop.call_later(headers_timeout_s, self._end)

        def _unwatch(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _end(self) -> None:
            self.transport.write(_TOO_SLOW)
            self.transport.close()

    return Connection
