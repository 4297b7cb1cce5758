"""Replicas on Ray Serve, on the cluster that all tests share: load, lost replicas, full queues."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx2
import numpy as np
import psutil
import pytest
import uvicorn
from PIL import Image
from serve.online import check_problem, facts_of, picture, png

import rayseg
from rayseg.outputs.verify import verify
from rayseg.serve.spec import ServeSpec

PNG = {"content-type": "image/png"}
SPEC = ServeSpec(
    model="rectangles",
    min_replicas=1,
    max_replicas=3,
    target_ongoing_requests=2.0,
    upscale_delay_s=0.3,
    downscale_delay_s=0.5,
    cpus_per_replica=0.3,
    max_batch=2,
    max_queued=32,
    request_timeout_s=120.0,
)
WAIT_S = 300  # until what must come has come; replicas start slowly on a machine that has much to do


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where batches read and write."""
    folder = tmp_path_factory.mktemp("batches")
    (folder / "in").mkdir()
    for seed in range(120):
        (folder / "in" / f"{seed:03d}.png").write_bytes(png(picture(24, 32, seed)))
    return folder


@pytest.fixture(scope="module")
def url(ray_cluster, folder):
    """Where `rayseg serve`'s web application answers, with replicas on Ray Serve."""
    from ray import serve

    from rayseg.serve import application
    from rayseg.serve.ingress import build_app

    facts = [facts_of("rectangles")]
    places = {"read_prefixes": [f"{folder}/in"], "write_prefixes": [f"{folder}/out"]}
    spec = SPEC.model_copy(update={"batches": f"{folder}/records", **places})
    serve.start(proxy_location="Disabled")
    try:
        door = build_app(application.service_of(spec, facts, application.deploy(spec, facts)))
        server = uvicorn.Server(uvicorn.Config(door, log_level="error", access_log=False))
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True
            thread.join(60)
    finally:
        serve.shutdown()


def with_client(url: str, check: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=url, timeout=WAIT_S, limits=limits) as client:
            await check(client)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def load(client: httpx2.AsyncClient, callers: int):
    """`callers` that ask one request after the other; yields the count of statuses so far, whole when the block ends."""
    statuses: Counter[int] = Counter()
    done = False

    async def caller(body: bytes) -> None:
        while not done:
            response = await client.post("/v1/predict", content=body, headers=PNG)
            statuses[response.status_code] += 1

    async with asyncio.TaskGroup() as group:
        for seed in range(callers):
            group.create_task(caller(png(picture(64, 64, seed))))
        yield statuses
        done = True


async def warm(client: httpx2.AsyncClient) -> int:
    response = await client.get("/readyz")
    return response.json()["replicas"]["default"] if response.status_code == 200 else 0


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.1)


def replicas() -> list[psutil.Process]:
    """The processes of replicas on this test's cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith("ray::ServeReplica:rayseg-default"):
                found.append(process)
    return found


def test_answers_are_the_predictors(url):
    image = picture()
    (expected,) = rayseg.load("rectangles").predict([image])

    async def check(client):
        answer = (await client.post("/v1/predict", content=png(image), headers=PNG)).json()
        rows = [{name: row[name] for name in row if name != "category"} for row in answer["instances"]]
        assert [{"image_id": 0, **row} for row in rows] == expected.to_coco()
        problem = await client.post("/v1/predict", content=b"no image", headers=PNG)
        check_problem(problem, 422, "bad-image")

    with_client(url, check)


def test_photos_and_answers_larger_than_ray_serves_own_limit(url):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1400, 3), np.uint8)
    body = png(noise)
    assert len(body) > 4 << 20  # what gRPC takes unless told otherwise

    async def check(client):
        answer = await client.post("/v1/predict", content=body, headers=PNG)
        assert (answer.status_code, answer.json().get("width")) == (200, 1400), answer.text[:300]
        overlay = await client.post("/v1/predict", content=body, headers=PNG | {"accept": "image/png"})
        assert overlay.status_code == 200, overlay.text[:300]
        assert len(overlay.content) > 4 << 20
        with Image.open(io.BytesIO(overlay.content)) as drawn:
            assert drawn.size == (1400, 1200)

    with_client(url, check)


@pytest.mark.long
def test_replicas_follow_the_load_and_a_killed_one_costs_no_request(url):
    async def check(client):
        assert await warm(client) == 1
        async with load(client, 8) as statuses:
            await until(lambda: _is(warm(client), 3))
            victim = replicas()[0]
            os.kill(victim.pid, signal.SIGKILL)
            before = statuses.total()
            await until(lambda: _is_more(statuses, before + 200))
            assert not victim.is_running()
        assert set(statuses) == {200}, statuses
        await until(lambda: _is(warm(client), 1))
        assert (await client.post("/v1/predict", content=png(picture()), headers=PNG)).status_code == 200

    with_client(url, check)


async def _is(value: Awaitable[int], expected: int) -> bool:
    return await value == expected


async def _is_more(statuses: Counter[int], than: int) -> bool:
    return statuses.total() > than


def test_a_thousand_requests_at_once_are_answered_or_told_to_come_again(url):
    async def check(client):
        body = png(picture(64, 64))
        answers = await asyncio.gather(*(client.post("/v1/predict", content=body, headers=PNG) for _ in range(1000)))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}, statuses
        for answer in answers:
            if answer.status_code == 503:
                check_problem(answer, 503, "busy")
                assert int(answer.headers["retry-after"]) > 0
        assert (await client.post("/v1/predict", content=body, headers=PNG)).status_code == 200

    with_client(url, check)


def test_everything_listens_on_loopback_only(url):
    heard = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            heard |= {one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert replicas()


def test_a_batch_is_labelled_by_the_replicas_though_one_is_killed(url, folder):
    out = str(folder / "out" / "a")

    async def check(client):
        posted = await client.post("/v1/batches", json={"images": f"{folder}/in", "out": out})
        assert posted.status_code == 202, posted.text
        place = posted.headers["location"]

        async def state() -> str:
            return (await client.get(place)).json()["state"]

        await until(lambda: _is_not(state(), "queued"))
        os.kill(replicas()[0].pid, signal.SIGKILL)
        await until(lambda: _is_not(state(), "queued", "planning", "running"))
        batch = (await client.get(place)).json()
        assert (batch["state"], batch["done"], batch["failed"], batch["error"]) == ("done", 120, 0, None)
        assert (await client.get("/v1/batches")).json() == {"batches": [batch]}

    with_client(url, check)
    assert verify(out).ok


async def _is_not(value: Awaitable[str], *others: str) -> bool:
    return await value not in others
