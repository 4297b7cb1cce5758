"""An endpoint without Ray for the tests of the page and the client: the rectangles answer, batches are what a test says.

`Endpoint` runs on a thread of its own, on a free port of loopback. `refusals` are answered first, one per request.
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

from rayseg import images
from rayseg.errors import ImageError
from rayseg.models.predictor import Predictor, load
from rayseg.models.thresholds import Thresholds
from rayseg.serve import page_routes
from rayseg.serve.answers import json_body, overlay_body, selected
from rayseg.serve.options import PredictOptions, class_ids
from rayseg.serve.problems import MEDIA_TYPE, Problem

TIMES = {"queue": 0.001, "decode": 0.002, "forward": 0.003, "finish": 0.004}


@dataclass
class Endpoint:
    """Set the fields while it runs. `seen` has each request's method, path and query."""

    token: str | None = None
    refusals: list[Response] = field(default_factory=list)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: tuple[str, ...] = ("rectangles",)
    change: Callable[[dict[str, Any]], object] = lambda document: None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tokens_seen: list[str | None] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Endpoint:
        config = uvicorn.Config(application(self), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        started = threading.Event()
        self._server.startup = _announced(self._server.startup, started)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert started.wait(30)
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


def _announced(startup: Any, started: threading.Event) -> Any:
    async def announced(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        started.set()

    return announced


def problem(status: int, detail: str, **headers: str) -> Response:
    """A problem document, as the server makes them."""
    document = Problem(status, "made-up", detail).document("request-1")
    return JSONResponse(
        document, status, {name.replace("_", "-"): value for name, value in headers.items()}, MEDIA_TYPE
    )


def application(endpoint: Endpoint) -> FastAPI:
    app = FastAPI()
    predictor = load("rectangles")

    @app.middleware("http")
    async def door(request: Request, go_on: Any) -> Response:
        path = request.url.path
        if path.startswith("/v1/"):
            endpoint.seen.append((request.method, path, dict(request.query_params)))
            given = request.headers.get("authorization")
            endpoint.tokens_seen.append(given)
            if endpoint.token and given != f"Bearer {endpoint.token}":
                return problem(401, "this token is not known")
            if endpoint.refusals:
                return endpoint.refusals.pop(0)
        return await go_on(request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = endpoint.models
        one = {"classes": predictor.class_names, "fingerprint": predictor.fingerprint, "architecture": "rectangles"}
        return {"models": [{"name": name, **one, "default": i == 0} for i, name in enumerate(names)]}

    @app.post("/v1/predict")
    async def predict(request: Request) -> Response:
        return _answer(endpoint, predictor, request, await request.body())

    @app.api_route("/v1/batches", methods=["GET", "POST"])
    async def batches(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse({"batches": list(endpoint.batches.values())})
        made = {**(await request.json()), **BATCH, "id": uuid.uuid4().hex[:8]}
        endpoint.batches[made["id"]] = made
        return JSONResponse(made, 202, {"Location": f"/v1/batches/{made['id']}"})

    @app.api_route("/v1/batches/{name}", methods=["GET", "DELETE"])
    async def batch(request: Request, name: str) -> Response:
        if name not in endpoint.batches:
            return problem(404, f"there is no batch {name}")
        if request.method == "DELETE":
            endpoint.batches[name]["state"] = "cancelled"
            return Response(status_code=204)
        return JSONResponse(endpoint.batches[name])

    app.include_router(page_routes.router())
    return app


BATCH: dict[str, Any] = {
    "state": "queued", "model": "rectangles", "created": "2026-11-25T09:00:00Z", "total": None, "done": 0, "failed": 0,
    "rate": None, "eta_s": None, "error": None,
}  # fmt: skip


def _answer(endpoint: Endpoint, predictor: Predictor, request: Request, body: bytes) -> Response:
    query = request.query_params
    if body.startswith(b'{"uri"'):
        return problem(422, "uri: not below one of the prefixes")
    try:
        pixels = images.decode(body)
    except ImageError as error:
        return problem(422, str(error))
    classes = class_ids(query.get("classes"), predictor.class_names)
    most = query.get("max_detections")
    options = PredictOptions(
        float(query.get("score_threshold", 0.05)), classes=classes, max_detections=int(most or 100)
    )
    predictor.score_threshold = options.thresholds(Thresholds()).score
    instances = selected(predictor.predict([pixels])[0], options)
    if request.headers["accept"] == "image/png":
        return Response(overlay_body(pixels, instances, predictor.class_names), media_type="image/png")
    model = query.get("model", "rectangles")
    document = json.loads(json_body(instances, predictor.class_names, "rle", model, predictor.fingerprint, TIMES))
    endpoint.change(document)
    return JSONResponse(document)
