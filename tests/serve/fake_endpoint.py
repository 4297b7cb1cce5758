"""An endpoint for the tests of the page and the client: the real web application over a replica in this process, without Ray.

Around it stands what a test wants to see or spoil: `refusals` are answered first, one per request below `refused_path`,
`change` alters predictions, and batches are whatever the test says they are. It runs on a thread of its own, on a free port
of loopback.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from serve.online import made_for

from rayseg.client.answers import FINISHED
from rayseg.serve.auth import Tokens, hash_of
from rayseg.serve.ingress import build_app
from rayseg.serve.problems import MEDIA_TYPE, Problem
from rayseg.serve.spec import ServeSpec

TOKEN = "open sesame"
BATCH: dict[str, Any] = {
    "state": "queued", "model": "rectangles", "created": "2026-11-25T09:00:00+00:00", "total": None, "done": 0, "failed": 0,
    "rate": None, "eta_s": None, "error": None,
}  # fmt: skip


@dataclass
class Endpoint:
    """Set the fields while it runs. `seen` has each request's method, path and query, `tokens_seen` its Authorization."""

    wants_token: bool = False
    refusals: list[Response] = field(default_factory=list)
    refused_path: str = "/v1/"
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], object] | None = None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tokens_seen: list[str | None] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Endpoint:
        self._server = uvicorn.Server(
            uvicorn.Config(application(self), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        )
        started = threading.Event()
        self._server.startup = _announced(self._server.startup, started)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert started.wait(60)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def reset(self) -> None:
        """All fields as they were in the beginning."""
        self.__init__(url=self.url)

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(30)


def problem(status: int, detail: str, **headers: str) -> Response:
    """A problem document, as the server makes them."""
    document = Problem(status, "made-up", detail).document("request-1")
    return JSONResponse(
        document, status, {name.replace("_", "-"): value for name, value in headers.items()}, MEDIA_TYPE
    )


def application(endpoint: Endpoint) -> Any:
    """What `endpoint` answers with, as an ASGI application."""
    made = made_for(ServeSpec(models={"rectangles": "rectangles"}))
    doors = {False: made.door, True: build_app(made.service, Tokens({"alice": hash_of(TOKEN)}))}
    batches = _batches(endpoint)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        path = request.url.path
        answer = doors[endpoint.wants_token]
        if path.startswith("/v1/"):
            endpoint.seen.append((request.method, path, dict(request.query_params)))
            endpoint.tokens_seen.append(request.headers.get("authorization"))
            if endpoint.refusals and path.startswith(endpoint.refused_path):
                answer = endpoint.refusals.pop(0)
            elif path.startswith("/v1/batches") and _lets_in(endpoint, request):
                answer = batches
            elif path == "/v1/predict" and endpoint.change:
                send = _Changed(send, endpoint.change)
        await answer(scope, receive, send)

    return app


def _lets_in(endpoint: Endpoint, request: Request) -> bool:
    return not endpoint.wants_token or request.headers.get("authorization") == f"Bearer {TOKEN}"


def _batches(endpoint: Endpoint) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/batches")
    async def listing() -> dict[str, Any]:
        return {"batches": list(endpoint.batches.values())}

    @app.post("/v1/batches")
    async def create(request: Request) -> Response:
        wanted = await request.json()
        for made in endpoint.batches.values():  # asked again, it answers with what is under way
            if (made["images"], made["out"]) == (wanted["images"], wanted["out"]) and made["state"] not in FINISHED:
                break
        else:
            made = {**wanted, **BATCH, "id": uuid.uuid4().hex[:8]}
            endpoint.batches[made["id"]] = made
        return JSONResponse(made, 202, {"Location": f"/v1/batches/{made['id']}"})

    @app.api_route("/v1/batches/{name}", methods=["GET", "DELETE"])
    async def one(request: Request, name: str) -> Response:
        if name not in endpoint.batches:
            return problem(404, f"there is no batch {name}")
        batch = endpoint.batches[name]
        if request.method == "GET":
            return JSONResponse(batch)
        ended = batch["state"] in FINISHED
        if request.query_params.get("forget") == "true":
            if not ended:
                return problem(409, f"batch {name} is under way")
            del endpoint.batches[name]
            return Response(status_code=204)
        if not ended:
            batch["state"] = "cancelled"
        return JSONResponse(batch, 202)

    return app


class _Changed:
    """Sends a prediction on after `change` has had it."""

    def __init__(self, send: Any, change: Callable[[dict[str, Any]], object]) -> None:
        self._send, self._change = send, change
        self._start: dict[str, Any] = {}
        self._body = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self._start["status"] == 200:
            document = json.loads(self._body)
            self._change(document)
            self._body = json.dumps(document).encode()
        headers = [pair for pair in self._start["headers"] if pair[0].lower() != b"content-length"]
        headers.append((b"content-length", str(len(self._body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({**message, "body": self._body})


def _announced(startup: Any, started: threading.Event) -> Any:
    async def announced(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        started.set()

    return announced
