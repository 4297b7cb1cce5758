"""Batches over HTTP, as a client sees them: the application with its door, the real runner, a replica in this process."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx2
import numpy as np
import pytest
from PIL import Image
from serve.plain_replicas import PlainReplicas, prefixes

from rayseg.outputs.verify import verify
from rayseg.serve import batch_run
from rayseg.serve.auth import Tokens, hash_of
from rayseg.serve.batch_runner import BatchRunner
from rayseg.serve.ingress import build_app
from rayseg.serve.problems import MEDIA_TYPE, Problem, busy
from rayseg.serve.service import Service
from rayseg.serve.spec import ServeSpec

UNKNOWN = "20260101T000000-00000000"


class Runner:
    """Calls a `BatchRunner` as `dispatch` calls its deployment."""

    def __init__(self, runner):
        self.runner = runner

    async def call(self, method, *args, timeout_s=None):
        result = await getattr(self.runner, method)(*args)
        if isinstance(result, Problem):
            raise result
        return result


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(batch_run, "LONGEST_WAIT_S", 0.02)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def spec(tmp_path, folder):
    return ServeSpec(
        model="rectangles",
        batches=str(tmp_path / "batches"),
        read_prefixes=[str(folder)],
        write_prefixes=[str(tmp_path / "out")],
    )


@asynccontextmanager
async def client(spec, *, fail=lambda chunk: None, tokens=None):
    """An HTTP client of a server with one replica."""
    replicas = PlainReplicas(spec)
    replicas.fail = fail
    facts = {"default": replicas.facts()}
    runner = BatchRunner(spec, facts, {"default": replicas}, prefixes(spec)) if spec.batches else None

    async def ready():
        return {"default": 1}

    service = Service(spec, facts, {"default": replicas}, prefixes(spec), ready)
    service.batches = Runner(runner) if runner else None
    transport = httpx2.ASGITransport(app=build_app(service, tokens))
    if runner:
        await runner.start()
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http
    finally:
        if runner:
            await runner.close()


async def ended(http, id):
    async with asyncio.timeout(60):
        while (batch := (await http.get(f"/v1/batches/{id}")).json())["state"] not in ("done", "failed", "cancelled"):
            await asyncio.sleep(0.01)
    return batch


def refuse(chunk):
    raise busy("no room")


def test_a_batch_from_the_post_to_the_output(spec, folder, tmp_path):
    out = str(tmp_path / "out" / "a")

    async def go():
        async with client(spec) as http:
            posted = await http.post(
                "/v1/batches", json={"images": str(folder), "out": out, "options": {"score_threshold": 0.5}}
            )
            batch = await ended(http, posted.json()["id"])
            listed = (await http.get("/v1/batches")).json()
            again = [await http.delete(f"/v1/batches/{batch['id']}") for _ in range(2)]
            assert [(one.status_code, one.json()) for one in again] == [(202, batch)] * 2, (
                "too late, and nothing is lost"
            )
            forgotten = await http.delete(f"/v1/batches/{batch['id']}?forget=true")
            return posted, batch, listed, forgotten, (await http.get(posted.headers["location"])).status_code

    posted, batch, listed, forgotten, gone = asyncio.run(go())
    assert posted.status_code == 202
    assert posted.headers["location"] == f"/v1/batches/{posted.json()['id']}"
    assert (posted.json()["state"], posted.json()["done"]) == ("queued", 0)
    assert (batch["state"], batch["total"], batch["done"], batch["failed"]) == ("done", 10, 10, 0)
    assert batch["options"] == {"score_threshold": 0.5}
    assert listed == {"batches": [batch]}
    assert (forgotten.status_code, forgotten.content, gone) == (204, b"", 404)
    assert verify(out).ok


def test_a_running_batch_tells_how_far_it_is_and_is_cancelled(spec, folder, tmp_path):
    calls = []

    def first_only(chunk):
        calls.append(chunk)
        if len(calls) > 1:
            raise busy("no room for more")

    async def go():
        async with client(spec, fail=first_only) as http:
            body = {"images": str(folder), "out": str(tmp_path / "out" / "a")}
            id = (await http.post("/v1/batches", json=body)).json()["id"]
            async with asyncio.timeout(60):
                while not (running := (await http.get(f"/v1/batches/{id}")).json())["done"] or not running["error"]:
                    await asyncio.sleep(0.01)
            early = await http.delete(f"/v1/batches/{id}?forget=true")
            assert (early.status_code, early.json()["type"]) == (409, "rayseg:not-ended")
            cancelled = await http.delete(f"/v1/batches/{id}")
            return running, cancelled, await ended(http, id)

    running, cancelled, batch = asyncio.run(go())
    assert (running["state"], running["total"]) == ("running", 10)
    assert running["done"] in (2, 8)  # whichever chunk was the first
    assert running["rate"] > 0 and running["eta_s"] > 0
    assert running["error"] == "no room for more"
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert (batch["state"], batch["done"]) == ("cancelled", running["done"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"s3://b/x"',
        b"\xff\xfe",
        b'{"images": "s3://b/x"}',
        b'{"images": [], "out": "OUT"}',
        b'{"images": [1], "out": "OUT"}',
        b'{"images": "", "out": "OUT"}',
        b'{"images": "IN", "out": "OUT", "option": {}}',
        b'{"images": "IN", "out": "OUT", "options": {"score": 1}}',
        b'{"images": "IN", "out": "OUT", "options": {"score_threshold": 2}}',
        b'{"images": "IN", "out": "OUT", "options": {"score_threshold": NaN}}',
        b'{"images": "IN", "out": "OUT", "options": {"score_threshold": "0.5"}}',
        b'{"images": "IN", "out": "OUT", "options": {"limit": 99999999999999999999}}',
        b'{"images": "IN", "out": "OUT", "options": {"max_pixels": 1}}',
        b'{"images": "IN", "out": "OUT", "model": {}}',
        b'{"images": "IN/../x", "out": "OUT"}',
        b'{"images": "IN\\u0000", "out": "OUT"}',
        b'{"images": "IN", "out": "OUT\\ud800"}',
    ],
)
def test_a_body_that_is_no_batch_is_told_what_is_wrong(spec, folder, tmp_path, body):
    body = body.replace(b"IN", str(folder).encode()).replace(b"OUT", f"{tmp_path}/out/a".encode())

    async def go():
        async with client(spec) as http:
            headers = {"Content-Type": "application/json"}
            return await http.post("/v1/batches", content=body, headers=headers), (await http.get("/v1/batches")).json()

    answer, listed = asyncio.run(go())
    assert (answer.status_code, answer.headers["content-type"]) in [(422, MEDIA_TYPE), (400, MEDIA_TYPE)]
    document = answer.json()
    assert document["detail"] and "Traceback" not in document["detail"]
    assert listed == {"batches": []}


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"images": "/etc"}, 403, "uri-not-allowed"),
        ({"images": ["http://169.254.169.254/latest/meta-data/"]}, 403, "uri-not-allowed"),
        ({"out": "/etc/rayseg"}, 403, "uri-not-allowed"),
        ({"options": {"images_root": "/etc"}}, 403, "uri-not-allowed"),
        ({"model": "other"}, 404, "unknown-model"),
    ],
)
def test_what_is_outside_is_refused(spec, folder, tmp_path, change, status, kind):
    async def go():
        async with client(spec) as http:
            return await http.post(
                "/v1/batches", json={"images": str(folder), "out": str(tmp_path / "out" / "a")} | change
            )

    answer = asyncio.run(go())
    assert (answer.status_code, answer.json()["type"]) == (status, f"rayseg:{kind}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("id", [UNKNOWN, "x", "..", "%2e%2e%2fjob", "a" * 64])
def test_a_batch_that_is_not_there_is_not_found(spec, id):
    async def go():
        async with client(spec) as http:
            return [await http.request(method, f"/v1/batches/{id}") for method in ("GET", "DELETE")]

    for answer in asyncio.run(go()):
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == MEDIA_TYPE


def test_other_methods_are_told_which_there_are(spec):
    async def go():
        async with client(spec) as http:
            return [await http.request("PUT", path) for path in ("/v1/batches", f"/v1/batches/{UNKNOWN}")]

    answers = asyncio.run(go())
    assert [answer.status_code for answer in answers] == [405, 405]
    assert [answer.headers["allow"] for answer in answers] == ["GET, POST", "DELETE, GET"]


def test_whole_numbers_may_be_written_with_a_point_and_nothing_else_may(spec, folder, tmp_path):
    async def go():
        async with client(spec, fail=refuse) as http:
            body = {"images": str(folder), "out": str(tmp_path / "out" / "a")}
            answers = [
                await http.post("/v1/batches", json=body | {"options": {"limit": n}}) for n in (3.5, "3", True, 3.0)
            ]
            return [answer.status_code for answer in answers], answers[-1].json()["options"]

    assert asyncio.run(go()) == ([422, 422, 422, 202], {"limit": 3})


def test_a_server_without_a_place_for_records_says_so(spec, folder, tmp_path):
    async def go():
        async with client(spec.model_copy(update={"batches": None})) as http:
            body = {"images": str(folder), "out": str(tmp_path / "out" / "a")}
            return [
                await http.post("/v1/batches", json=body),
                await http.get(f"/v1/batches/{UNKNOWN}"),
                await http.get("/v1/batches"),
            ]

    created, one, listed = asyncio.run(go())
    assert [answer.json()["type"] for answer in (created, one)] == ["rayseg:no-batches"] * 2
    assert (listed.status_code, listed.json()) == (200, {"batches": []})


def test_batches_need_a_token_where_there_are_tokens(spec, folder, tmp_path):
    tokens = Tokens({"me": hash_of("secret")})

    async def go():
        async with client(spec, tokens=tokens, fail=refuse) as http:
            body = {"images": str(folder), "out": str(tmp_path / "out" / "a")}
            answers = [await http.post("/v1/batches", json=body), await http.get("/v1/batches")]
            answers += [await http.request(method, f"/v1/batches/{UNKNOWN}") for method in ("GET", "DELETE")]
            allowed = await http.post("/v1/batches", json=body, headers={"Authorization": "Bearer secret"})
            return [answer.status_code for answer in answers], allowed.status_code

    assert asyncio.run(go()) == ([401] * 4, 202)


def test_the_document_describes_every_route(spec):
    async def go():
        async with client(spec) as http:
            return (await http.get("/openapi.json")).json()

    document = asyncio.run(go())
    paths = {path: set(methods) for path, methods in document["paths"].items() if "batches" in path}
    assert paths == {"/v1/batches": {"get", "post"}, "/v1/batches/{id}": {"get", "delete"}}
    examples = document["paths"]["/v1/batches"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert json.loads(json.dumps(examples))["prefix"]["value"]["images"].startswith("s3://")
