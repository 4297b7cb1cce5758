"""Tests that try to get in, past the door or through it, and what it writes down of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import time

import pytest
from serve.online import check_problem, listening, picture, png, with_app

from rayseg.serve import metrics
from rayseg.serve.auth import Tokens, hash_of

PNG = {"content-type": "image/png"}
TOKENS = Tokens({"alice": hash_of("alice-secret"), "bob": hash_of("bob-secret")})
ALICE, BOB = {"authorization": "Bearer alice-secret"}, {"authorization": "Bearer bob-secret"}

GUARDED = (
    ("POST", "/v1/predict"),
    ("GET", "/v1/models"),
    ("GET", "/v1/batches"),
    ("POST", "/v1/batches"),
    ("DELETE", "/v1/batches/1"),
    ("GET", "/metrics"),
    ("GET", "/v1/none"),
    ("POST", "/v1"),
)


def test_nothing_of_anyones_is_reached_without_a_token():
    async def check(client, made):
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic alice-secret"}):
            for method, path in GUARDED:
                response = await client.request(method, path, headers={**PNG, **given}, content=png(picture()))
                check_problem(response, 401, "unauthorized")
                assert response.headers["www-authenticate"] == 'Bearer realm="rayseg"'
        assert made.replicas.calls == 0
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/v1/predict", content=png(picture()), headers={**PNG, **ALICE})).status_code == 200
        assert (await client.get("/v1/models", headers=BOB)).status_code == 200
        document = (await client.get("/openapi.json")).json()
        assert document["security"] == [{"token": []}]

    with_app(check, TOKENS)


@pytest.mark.parametrize("path", ["//v1/models", "/V1/models", "/v1/../v1/models", "/healthz/../v1/models", "/v1%2fmodels",
                                  "/./v1/models", "/metrics/", "//metrics", "/v1/models/"])  # fmt: skip
def test_other_spellings_of_a_path_lead_nowhere(path):
    async def check(client, made):
        scope_path = path.replace("%2f", "/")
        response = await client.get(f"http://localhost{path}")
        assert response.status_code in (401, 404), (path, response.status_code)
        statuses = []

        async def send(message):
            statuses.append(message.get("status"))

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET",
            "path": scope_path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "scheme": "http",
            "server": ("localhost", 80),
            "root_path": "",
        }
        await made.door(scope, receive, send)
        assert statuses[0] in (401, 404)

    with_app(check, TOKENS)


def test_a_web_page_cannot_reach_a_server_without_tokens_under_its_own_name():
    async def check(client, made):
        body = {"content": png(picture()), "headers": {**PNG, "host": "evil.example"}}
        check_problem(await client.post("/v1/predict", **body), 421, "wrong-host")
        assert made.replicas.calls == 0
        response = await client.post(
            "/v1/predict", content=png(picture()), headers={**PNG, "origin": "http://evil.example"}
        )
        assert not [name for name in response.headers if name.startswith("access-control")]

    with_app(check)


def test_request_ids_are_the_callers_where_they_are_harmless():
    async def check(client, made):
        response = await client.get("/healthz", headers={"x-request-id": "Job-7.a_b"})
        assert response.headers["x-request-id"] == "Job-7.a_b"
        seen = set()
        for given in ("", "a b", "x" * 65, "a:b", "<script>", "é".encode()):
            response = await client.get("/healthz", headers={"x-request-id": given})
            made_up = response.headers["x-request-id"]
            assert made_up != given and len(made_up) == 32
            seen.add(made_up)
        assert len(seen) == 6
        assert response.headers["x-content-type-options"] == "nosniff"

    with_app(check)


def test_rates_are_per_token():
    async def check(client, made):
        statuses = [(await client.get("/v1/models", headers=ALICE)).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        response = await client.get("/v1/models", headers=ALICE)
        check_problem(response, 429, "too-many-requests")
        assert int(response.headers["retry-after"]) >= 1
        assert (await client.get("/v1/models", headers=BOB)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200

    with_app(check, TOKENS, rate_per_s=0.001, rate_burst=2)


def test_health_and_readiness():
    async def check(client, made):
        assert (await client.get("/readyz")).json() == {"status": "ready", "replicas": {"default": 1}}
        made.warm["default"] = 0
        response = await client.get("/readyz")
        check_problem(response, 503, "not-ready")
        assert "retry-after" in response.headers
        assert (await client.get("/healthz")).status_code == 200

    with_app(check)


def test_a_server_that_drains_answers_those_inside_and_refuses_others():
    async def check(client, made):
        inside, go_on = asyncio.Event(), asyncio.Event()
        true = made.replicas.call

        async def held(*args, **named):
            inside.set()
            await go_on.wait()
            return await true(*args, **named)

        made.replicas.call = held
        waiting = asyncio.create_task(client.post("/v1/predict", content=png(picture()), headers=PNG))
        await inside.wait()
        draining = asyncio.create_task(made.door.drain(60))
        await asyncio.sleep(0)
        response = await client.get("/v1/models")
        check_problem(response, 503, "busy")
        check_problem(await client.get("/readyz"), 503, "busy")
        assert (await client.get("/healthz")).status_code == 200
        assert not draining.done()
        go_on.set()
        assert (await waiting).status_code == 200
        assert await draining == 0

    with_app(check)


def test_each_request_is_counted_and_logged_as_a_line_of_json():
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(metrics.JsonLines().format(record))

    log = logging.getLogger("rayseg.serve")
    keep = Keep()
    log.addHandler(keep)
    before = log.level
    log.setLevel(logging.INFO)

    async def check(client, made):
        sent = {"content": png(picture()), "headers": {**PNG, **ALICE, "x-request-id": "id-1"}}
        await client.post("/v1/predict", **sent)
        await client.post("/v1/predict?masks=x", **sent)
        await client.get("/a%0d%0ainjected%22", headers={"user-agent": "x"})
        text = (await client.get("/metrics", headers=ALICE)).text
        for expected in (
            'rayseg_requests_total{method="POST",route="/v1/predict",status="200"} 1.0',
            'rayseg_requests_total{method="POST",route="/v1/predict",status="422"} 1.0',
            'rayseg_rejected_total{kind="bad-request"} 1.0',
            'rayseg_predict_seconds_count{model="default",stage="forward"} 1.0',
            'rayseg_predict_seconds_count{model="default",stage="queue"} 1.0',
            'rayseg_predict_seconds_count{model="default",stage="decode"} 1.0',
            'rayseg_predict_seconds_count{model="default",stage="finish"} 1.0',
            'rayseg_forward_images_count{model="default"} 1.0',
            'rayseg_replicas{model="default"} 1.0',
            "rayseg_requests_in_flight 1.0",
            "rayseg_request_body_bytes 0.0",
        ):
            assert expected in text.splitlines(), (expected, text)

    try:
        with_app(check, TOKENS)
    finally:
        log.removeHandler(keep)
        log.setLevel(before)
    first, second, third = (json.loads(line) for line in lines[:3])
    assert first["request_id"] == "id-1" and first["caller"] == "alice" and first["status"] == 200
    assert second["problem"] == "bad-request" and second["request_id"] == "id-1"
    assert third["request_id"] != "id-1"
    assert third["path"] == '/a\r\ninjected"' and third["caller"] == "anonymous"
    assert not any("\n" in line or "secret" in line for line in lines)


def said(port: int, *parts: bytes) -> bytes:
    """What a server answers to raw bytes until it ends the connection, or has answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for part in parts:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(part)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
                if b"\r\n\r\n" in answer and answer.endswith((b"}", b"\r\n0\r\n\r\n", b"received.")):
                    break
        return answer


POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def test_bodies_that_are_too_large_or_too_slow_on_a_real_connection():
    with listening(max_body_bytes=1000, body_timeout_s=0.2) as (port, made):
        answer = said(port, POST + b"Content-Length: 100000000000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ") and b"rayseg:too-large" in answer
        chunk = b"200\r\n" + bytes(512) + b"\r\n"
        answer = said(port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk, chunk, chunk)
        assert answer.startswith(b"HTTP/1.1 413 ")
        answer = said(port, POST + b"Content-Length: 100\r\n\r\nonly this")
        assert answer.startswith(b"HTTP/1.1 408 ") and b"rayseg:too-slow" in answer
        assert made.replicas.calls == 0


def test_bodies_where_none_is_taken_are_not_kept():
    """Who has no token cannot fill the room that those with one share."""
    with listening(TOKENS, max_body_bytes=1 << 20, max_waiting_bytes=1 << 20) as (port, made):
        held = []
        for path in (b"/x", b"/healthz", b"/docs"):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(
                b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" % path + bytes(9000)
            )
            assert connection.recv(100).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), "answered before it has come"
            held.append(connection)
        assert made.door._gate.budget.used == 0
        for connection in held:
            connection.close()


def test_headers_that_never_end_are_given_up_and_those_in_time_are_not():
    with listening(body_timeout_s=0.5) as (port, _):
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.settimeout(10)
            assert silent.recv(100).startswith(b"HTTP/1.1 408 ")
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port)) as trickling, pytest.raises(OSError):
            for letter in itertools.cycle(b"abcdefgh"):  # a header without end, a byte at a time
                trickling.sendall(b"GET / HTTP/1.1\r\nx: " if letter == ord("a") else bytes([letter]))
                time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", port)) as kept:  # the second request comes later than the limit
            kept.settimeout(10)
            for _ in range(2):
                kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert kept.recv(4096).startswith(b"HTTP/1.1 200 ")
                time.sleep(0.8)
            kept.sendall(b"GET /healthz HT")
            assert kept.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_malformed_requests_on_a_real_connection():
    with listening() as (port, made):
        for request in (
            b"GARBAGE\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\x00b\r\n\r\n",
            POST + b"Content-Length: -1\r\n\r\n",
            POST + b"Content-Length: abc\r\n\r\n",
            POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
            POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        ):
            status = said(port, request).split(b" ")[1:2]
            assert status and status[0][:1] == b"4", (request, status)
        injected = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a%0d%0aSet-Cookie: b\r\n\r\n"
        answer = said(port, injected)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"set-cookie" not in answer.lower()
        assert made.replicas.calls == 0
