"""A TCP proxy on loopback that spoils HTTP requests to a real server, one fault per request, in a given order."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections import deque
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal[
    "slow_down",  # 503 SlowDown, the request never reaches the server
    "throttled",  # 429 without a body
    "refused",  # connection reset, the request never reaches the server
    "lost_answer",  # the server carries the request out, its answer is lost in a reset
    "short_body",  # half of the answer's body, then the connection closes
    "silence",  # no answer for as long as the client waits
]

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyProxy:
    """`faults` are used up one per request, after which everything passes; `requests` are the lines seen."""

    def __init__(self, target_url: str) -> None:
        self.faults: deque[Fault] = deque()
        self.requests: list[str] = []
        target = urlsplit(target_url)
        self._target = (target.hostname or "", target.port or 80)
        self._closing = threading.Event()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        """One request per connection."""
        request = _receive(client)
        if not request:
            return
        self.requests.append(request.split(b"\r\n", 1)[0].decode("latin-1"))
        fault = self.faults.popleft() if self.faults else None
        if fault == "slow_down":
            client.sendall(_answer(b"503 Slow Down", _SLOW_DOWN))
        elif fault == "throttled":
            client.sendall(_answer(b"429 Too Many Requests", b""))
        elif fault == "silence":
            self._closing.wait(30)
        elif fault == "refused":
            _reset(client)
        else:
            self._pass_on(client, request, fault)

    def _pass_on(self, client: socket.socket, request: bytes, fault: Fault | None) -> None:
        with socket.create_connection(self._target) as server:
            server.sendall(request)
            answer = _receive(server, is_head=request.startswith(b"HEAD"))
        head, _, body = answer.partition(b"\r\n\r\n")
        if fault == "lost_answer":
            _reset(client)
        elif fault == "short_body":
            client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
        else:
            client.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)


def _receive(peer: socket.socket, is_head: bool = False) -> bytes:
    """One HTTP message whose length is given by Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = peer.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = 0 if is_head or not lengths else int(lengths[0]) - len(body)
    while missing > 0 and (chunk := peer.recv(65536)):
        data += chunk
        missing -= len(chunk)
    return data


def _answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)


def _reset(peer: socket.socket) -> None:
    """Close with RST instead of FIN."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
