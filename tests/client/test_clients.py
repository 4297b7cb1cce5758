"""Both clients against an endpoint that answers, refuses, breaks off or stays silent."""

from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.responses import JSONResponse, RedirectResponse, Response
from faulty_proxy import FaultyProxy
from PIL import Image
from serve.fake_endpoint import TOKEN, problem

from rayseg import load
from rayseg.client import AsyncClient, Client, EndpointError
from rayseg.errors import ObjectNotFound, UsageError
from rayseg.storage import Retry

QUICK = Retry(base_s=0.001, max_s=0.01, total_s=5.0)


class Awaited:
    """An `AsyncClient` whose methods wait, so that one test is for both."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._client = AsyncClient(*arguments, **named)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **named: self._loop.run_until_complete(method(*arguments, **named))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def connect(request) -> Iterator[Any]:
    """Makes clients, and closes them."""
    made = []

    def connected(url: str, **settings: Any) -> Any:
        made.append(request.param(url, **{"retry": QUICK, **settings}))
        return made[-1]

    yield connected
    for client in made:
        client.close()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that were waited, without waiting."""
    waited: list[float] = []

    async def later(wait_s: float) -> None:
        waited.append(wait_s)

    monkeypatch.setattr("rayseg.storage.retry.time", SimpleNamespace(sleep=waited.append, monotonic=time.monotonic))
    monkeypatch.setattr("rayseg.storage.retry.asyncio", SimpleNamespace(sleep=later))
    return waited


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (61, 83, 3), np.uint8)).save(path)
    return path


def test_the_answer_is_the_predictors_own(connect, endpoint, picture):
    client = connect(endpoint.url)
    pixels = np.asarray(Image.open(picture))
    expected = load("rectangles").predict([pixels])[0]
    for image in (picture, str(picture), picture.read_bytes(), pixels):
        found = client.predict(image)
        assert found.instances.image_hw == (61, 83) and found.instances.rles == expected.rles
        assert np.allclose(found.instances.boxes_xyxy, expected.boxes_xyxy, atol=1e-4)
        assert np.array_equal(found.instances.scores, expected.scores)
        assert np.array_equal(found.instances.classes, expected.classes)
        assert found.names == tuple(("red", "green", "blue")[i] for i in expected.classes)
        assert found.model == "rectangles" and set(found.timing_ms) == {"queue", "decode", "forward", "finish"}


def test_options_and_nothing_found(connect, endpoint, picture):
    client = connect(endpoint.url)
    options = {"model": "rectangles", "score_threshold": 0.9, "max_detections": 3, "classes": ["red", "blue"]}
    found = client.predict(picture, **options)
    assert len(found.instances) == 0 and found.instances.boxes_xyxy.shape == (0, 4) and found.names == ()
    wanted = {
        "model": "rectangles",
        "score_threshold": "0.9",
        "max_detections": "3",
        "classes": "red,blue",
        "masks": "rle",
    }
    assert endpoint.seen[-1] == ("POST", "/v1/predict", wanted)
    with pytest.raises(TypeError, match="'treshold' is not an option"):
        client.predict(picture, treshold=0.5)


def test_an_overlay_and_the_models(connect, endpoint, picture):
    client = connect(endpoint.url)
    assert client.overlay(picture).startswith(b"\x89PNG")
    (model,) = client.models()
    assert (model.name, model.classes, model.default) == ("rectangles", ("red", "green", "blue"), True)


@pytest.mark.parametrize(
    "faults", [["refused"], ["lost_answer"], ["throttled"], ["slow_down"], ["refused", "short_body"]]
)
def test_a_prediction_survives(connect, endpoint, picture, faults):
    with FaultyProxy(endpoint.url) as proxy:
        proxy.faults.extend(faults)
        assert len(connect(proxy.url).predict(picture).instances) == 4
        assert len(proxy.requests) == len(faults) + 1


def test_a_batch_is_never_started_twice(connect, endpoint):
    """Asked again because the answer was lost, the server answers with the batch that is under way."""
    with FaultyProxy(endpoint.url) as proxy:
        proxy.faults.append("lost_answer")
        started = connect(proxy.url).start_batch("s3://in/", "s3://out")
        assert len(proxy.requests) == 2
    assert list(endpoint.batches) == [started.id]


def test_silence_is_not_waited_for_twice(connect, endpoint, picture):
    with FaultyProxy(endpoint.url) as proxy:
        proxy.faults.append("silence")
        with pytest.raises(EndpointError, match=r"no answer within 0\.2 s"):
            connect(proxy.url, timeout_s=0.2).predict(picture)
        assert len(proxy.requests) == 1


def test_retry_after_is_heeded(connect, endpoint, picture, waits):
    later = datetime.now(UTC) + timedelta(seconds=100)
    for text in ("7", format_datetime(later, usegmt=True), "soon"):
        endpoint.refusals.append(problem(503, "the queue is full", Retry_After=text))
    client = connect(endpoint.url, retry=Retry(base_s=0.001, max_s=0.01, total_s=500.0))
    assert len(client.predict(picture).instances) == 4
    assert 7 <= waits[0] < 7.1 and 90 < waits[1] < 101 and waits[2] < 0.1


def test_the_retries_end(connect, endpoint, picture, waits):
    endpoint.refusals.extend(problem(429, "too many requests", Retry_After="60") for _ in range(3))
    with pytest.raises(EndpointError, match="429, too many requests") as caught:
        connect(endpoint.url).predict(picture)
    assert (caught.value.status, waits, len(endpoint.seen)) == (429, [], 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EndpointError, match="cannot be reached"):
            connect(url, retry=Retry(attempts=4, base_s=0.001)).predict(picture)
    assert len(waits) == 3


def test_a_refusal_says_what_the_server_said(connect, endpoint):
    endpoint.refusals.append(problem(413, "32 MiB are the most"))
    with pytest.raises(EndpointError, match="413, 32 MiB are the most .*request-1") as caught:
        connect(endpoint.url).predict(b"an image")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.status, error.kind, error.request_id, str(error)) == (413, "made_up", "request-1", str(caught.value))
    with pytest.raises(EndpointError, match="422, .*no known image starts with"):
        connect(endpoint.url).predict(b"no image")
    with pytest.raises(EndpointError, match="s3://elsewhere|prefix"):
        connect(endpoint.url).predict_uri("s3://elsewhere/a.jpg")


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>", media_type="text/html"),
        JSONResponse([]),
        JSONResponse({"instances": []}),
        JSONResponse({"models": []}),
        Response(status_code=204),
    ],
)
def test_what_is_no_endpoint_is_said_to_be_none(connect, endpoint, picture, answer):
    endpoint.refusals.append(answer)
    with pytest.raises(EndpointError, match="not the answer of a rayseg endpoint"):
        connect(endpoint.url).predict(picture)


def test_a_damaged_mask_is_not_passed_on(connect, endpoint, picture):
    endpoint.change = lambda document: document["instances"][2]["segmentation"].update(counts="N4")
    with pytest.raises(EndpointError, match="the mask of instance 2"):
        connect(endpoint.url).predict(picture)


def test_the_token_goes_to_its_endpoint_alone(connect, endpoint, monkeypatch):
    endpoint.wants_token = True
    with pytest.raises(EndpointError, match="401") as caught:
        connect(endpoint.url, token="wrong").models()
    assert "wrong" not in str(caught.value)
    assert connect(endpoint.url, token=TOKEN).models()
    monkeypatch.setenv("RAYSEG_TOKEN", TOKEN)
    assert connect(endpoint.url).models()
    endpoint.refusals.append(RedirectResponse(endpoint.url + "/v1/batches"))
    with pytest.raises(EndpointError, match="307"):
        connect(endpoint.url).models()
    assert endpoint.seen[-1][1] == "/v1/models", "a redirection is not followed"
    with pytest.raises(UsageError, match="printable ASCII"):
        connect(endpoint.url, token="a\r\nX-Evil: 1")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/", "http://", "file:///etc/passwd"])
def test_what_is_no_url_is_refused(connect, url):
    with pytest.raises(UsageError, match="expected an endpoint"):
        connect(url)


def test_what_is_no_image_is_refused_here(connect, endpoint):
    client = connect(endpoint.url)
    with pytest.raises(ObjectNotFound):
        client.predict("nowhere.jpg")
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="expected \\(H, W, 3\\) uint8"):
            client.predict(wrong)
    assert endpoint.seen == []


def test_a_batch_from_start_to_end(connect, endpoint):
    client = connect(endpoint.url)
    started = client.start_batch(["s3://in/1.jpg"], "s3://out", model="rectangles", score_threshold=0.3)
    made = endpoint.batches[started.id]
    assert (made["images"], made["options"], started.state) == (["s3://in/1.jpg"], {"score_threshold": 0.3}, "queued")
    seen = []

    def progress(batch: Any) -> None:
        seen.append((batch.state, batch.done))
        made.update(state="running" if len(seen) < 3 else "done", total=10, done=len(seen))

    found = client.wait_for_batch(started.id, every_s=0.001, progress=progress)
    assert seen == [("queued", 0), ("running", 1), ("running", 2), ("done", 3)]
    assert found.finished and (found.done, found.total) == (3, 10)
    made["state"] = "running"
    with pytest.raises(EndpointError, match="running after the given time, 4 of 10 images"):
        client.wait_for_batch(started.id, timeout_s=0)
    assert [client.cancel_batch(started.id).state for _ in range(2)] == ["cancelled"] * 2
    assert [batch.state for batch in client.batches()] == ["cancelled"]
    for _ in range(2):  # what was forgotten already is as it should be
        client.forget_batch(started.id)
    assert client.batches() == ()
    with pytest.raises(EndpointError, match="there is no batch"):
        client.batch("unknown")
    with pytest.raises(UsageError, match="not the id"):
        client.cancel_batch("../models")


def test_it_loads_neither_torch_nor_ray():
    code = "import rayseg.client, sys; print([name for name in ('torch', 'ray', 'fastapi') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
