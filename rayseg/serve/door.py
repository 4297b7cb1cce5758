"""The door that every request comes through before its body is read: who calls, may they, and a line in the log.

An ASGI middleware. In order: request id, Host, token, rate; then `limits.BodyGate` and the application. Whatever refuses,
answers with a problem document. Paths below /v1, and /metrics, need a token where there are tokens; health, the
documentation and the page, which hold nothing of anyone's, do not: nothing there takes a body, and none is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayseg.serve import auth, problems
from rayseg.serve.auth import ANONYMOUS, Tokens
from rayseg.serve.limits import CALLER, BodyGate, BodyLimits, Rates
from rayseg.serve.metrics import REQUEST_ID, Metrics
from rayseg.serve.problems import REQUEST_ID_HEADER, Problem, busy
from rayseg.serve.spec import ServeSpec

_log = logging.getLogger("rayseg.serve")
_POLL_S = 0.05


class Door:
    """Wraps `app`. `drain` lets nobody new in and waits for those inside."""

    def __init__(self, app: ASGIApp, spec: ServeSpec, tokens: Tokens, metrics: Metrics) -> None:
        self._app, self._gate = app, BodyGate(app, body_limits(spec), refuse)
        self._tokens, self._metrics = tokens, metrics
        self._rates = Rates(spec.rate_per_s, spec.rate_burst)
        self._draining = False
        self._inside = 0
        metrics.in_flight.set_function(lambda: self._inside)
        metrics.body_bytes.set_function(lambda: self._gate.budget.used)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._gate(scope, receive, send)
            return
        visit = _Visit(scope, send)
        REQUEST_ID.set(visit.request_id)
        self._inside += 1
        try:
            await self._enter(visit, receive)
        finally:
            self._inside -= 1
            self._note(visit)

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests, wait for the others; returns how many are left."""
        self._draining = True
        deadline = time.monotonic() + timeout_s
        while self._inside and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        return self._inside

    async def _enter(self, visit: _Visit, receive: Receive) -> None:
        try:
            visit.caller = self._admitted(visit.scope)
        except Problem as problem:
            await refuse(visit.scope, visit.send, problem)
            return
        if not needs_token(visit.scope["path"]):
            await self._app(visit.scope, receive, visit.send)
            return
        visit.scope["state"][CALLER] = visit.caller
        await self._gate(visit.scope, receive, visit.send)

    def _admitted(self, scope: Scope) -> str:
        """The caller's name. Raises a `Problem`."""
        if self._draining and scope["path"] != "/healthz":
            raise busy("the server is shutting down; try again", 5)
        auth.check_host_header(header(scope, b"host"), self._tokens)
        if not needs_token(scope["path"]):
            return ANONYMOUS
        caller = self._tokens.caller(header(scope, b"authorization"))
        self._rates.check(caller)
        return caller

    def _note(self, visit: _Visit) -> None:
        seconds = time.perf_counter() - visit.began
        route = getattr(visit.scope.get("route"), "path", "other")
        status = visit.status or 499  # the caller has gone
        self._metrics.requests.labels(route, visit.method, status).inc()
        self._metrics.request_s.labels(route).observe(seconds)
        if visit.problem:
            self._metrics.rejected.labels(visit.problem).inc()
        fields: dict[str, Any] = {"caller": visit.caller, "method": visit.method}
        fields |= {"path": visit.scope["path"][:200], "status": status, "ms": round(seconds * 1000, 2)}
        if visit.problem:
            fields["problem"] = visit.problem
        _log.info("request", extra={"fields": fields})


class _Visit:
    """One request: what is known of it while it is answered."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began = time.perf_counter()
        self.request_id = problems.request_id_of(header(scope, REQUEST_ID_HEADER.lower().encode()))
        self.scope = scope
        self.scope.setdefault("state", {})["request_id"] = self.request_id
        self.caller = ANONYMOUS
        self.status = 0
        self._send = send

    @property
    def method(self) -> str:
        """Among those that there are: a label of a metric must not be the caller's to choose."""
        known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        return self.scope["method"] if self.scope["method"] in known else "other"

    @property
    def problem(self) -> str | None:
        return self.scope["state"].get("problem")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self._send(message)


async def refuse(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer with `problem`, and note its kind for the log."""
    state = scope.setdefault("state", {})
    state["problem"] = problem.kind
    body = problem.body(state.get("request_id") or problems.request_id_of(None))
    headers = {"content-type": problems.MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def body_limits(spec: ServeSpec) -> BodyLimits:
    """The spec's limits of request bodies."""
    most = max(spec.max_waiting_bytes, spec.max_body_bytes)
    return BodyLimits(spec.max_body_bytes, most, spec.body_timeout_s)


def needs_token(path: str) -> bool:
    """Whether `path` is only for callers with a token."""
    return path == "/metrics" or path.startswith("/v1/") or path == "/v1"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that lower-case name."""
    for found, value in scope["headers"]:
        if found == name:
            return value.decode("latin-1")
    return None
