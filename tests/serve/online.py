"""The web application over replicas in this process, without Ray: what routes, door and replica do together.

with_app(check, spec=...)     runs `check(client, made)` in an event loop, a client on the application without sockets
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import uvicorn
from PIL import Image

from rayseg.models.checkpoints import describe
from rayseg.serve.auth import Tokens
from rayseg.serve.connections import connections
from rayseg.serve.door import Door
from rayseg.serve.ingress import build_app
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem
from rayseg.serve.replica import ModelReplica
from rayseg.serve.service import ModelFacts, Service
from rayseg.serve.spec import ServeSpec


class LocalReplicas:
    """One replica of one model, called as `dispatch.ServeReplicas` calls those of Ray Serve."""

    def __init__(self, replica: ModelReplica) -> None:
        self.replica = replica
        self.calls = 0

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        self.calls += 1
        async with asyncio.timeout(timeout_s):
            result = await getattr(self.replica, method)(*args)
        if isinstance(result, Problem):
            raise result
        return result


@dataclass
class Made:
    door: Door
    service: Service
    replicas: LocalReplicas
    warm: dict[str, int]


def facts_of(uri: str, name: str = "default") -> ModelFacts:
    info = describe(uri)
    return ModelFacts(name, uri, info.class_names, info.fingerprint, info.architecture)


def made_for(spec: ServeSpec, tokens: Tokens | None = None) -> Made:
    """The application of `spec`, each model with a replica of its own; call it in the event loop that will use it."""
    facts = {name: facts_of(uri, name) for name, uri in spec.named_models.items()}
    replicas = {name: LocalReplicas(ModelReplica(one, spec, "cpu")) for name, one in facts.items()}
    warm = dict.fromkeys(facts, 1)

    async def ready() -> dict[str, int]:
        return warm

    service = Service(spec, facts, replicas, Prefixes(spec.read_prefixes, spec.write_prefixes), ready)
    return Made(build_app(service, tokens), service, replicas[spec.default_model], warm)


def with_app(
    check: Callable[[httpx2.AsyncClient, Made], Awaitable[None]], tokens: Tokens | None = None, **fields: Any
) -> None:
    async def run() -> None:
        made = made_for(ServeSpec(**{"model": "rectangles", **fields}), tokens)
        transport = httpx2.ASGITransport(app=made.door, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await check(client, made)

    asyncio.run(run())


@contextlib.contextmanager
def listening(tokens: Tokens | None = None, **fields: Any) -> Iterator[tuple[int, Made]]:
    """A real server on a free port: (port, what was made)."""
    made = made_for(ServeSpec(**{"model": "rectangles", **fields}), tokens)
    server = uvicorn.Server(
        uvicorn.Config(
            made.door, http=connections(made.service.spec.body_timeout_s), log_level="error", access_log=False
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], made
        finally:
            server.should_exit = True
            thread.join(30)


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def check_problem(response: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem document of an answer that must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == status
    assert document["type"] == f"rayseg:{kind}"
    assert document["request_id"] == response.headers["x-request-id"]
    return document
