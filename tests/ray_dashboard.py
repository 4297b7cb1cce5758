"""A server that answers as a Ray dashboard does, as far as it is asked before a job is sent."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

NODE = {"node_id": "a" * 56, "node_ip": "198.51.100.7", "resources_total": {"CPU": 4.0, "memory": 8e9}}


class Dashboard:
    """`answers` are JSON values by path, or whole (status, type, body), or a list of these, one after the other.

    `asked` are the requests.
    """

    def __init__(
        self, ray_version: str, python_version: str = "3.12.3", nodes: list[dict[str, Any]] | None = None
    ) -> None:
        rows = [NODE] if nodes is None else nodes
        self.token: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.posted: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {
            "/api/version": {"version": "4", "ray_version": ray_version, "session_name": "session_of_another_machine"},
            "/api/v0/cluster_metadata": {"result": True, "data": {"pythonVersion": python_version}},
            "/api/v0/nodes": {"result": True, "data": {"result": {"result": rows}}},
        }
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                dashboard._answer(self)

            do_PUT = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.asked.append((request.command, path))
        if request.command == "POST":
            self.posted.append(json.loads(body))
        status, kind, text = self._found(path, request.headers.get("Authorization"))
        data = text.encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _found(self, path: str, authorization: str | None) -> tuple[int, str, str]:
        if self.token is not None and authorization != f"Bearer {self.token}":
            missing = not authorization
            words = (
                "Unauthorized: Missing authentication token" if missing else "Forbidden: Invalid authentication token"
            )
            return (401 if missing else 403), "text/plain", words
        found = {} if path.startswith("/api/packages/") else self.answers.get(path)
        if isinstance(found, list):
            found = found.pop(0)
        if found is None:
            return 404, "text/plain", f"{path} does not exist"
        return found if isinstance(found, tuple) else (200, "application/json", json.dumps(found))
