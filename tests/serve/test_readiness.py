"""Warm replicas, as a controller that may be away knows them."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from ray import serve
from serve.online import check_problem, with_app

from rayseg.serve.problems import Problem
from rayseg.serve.readiness import Readiness

DEPLOYMENTS = {"default": ("rayseg-default", "model-default")}


def status(running: int) -> SimpleNamespace:
    deployment = SimpleNamespace(replica_states={"RUNNING": running, "STARTING": 1})
    return SimpleNamespace(applications={"rayseg-default": SimpleNamespace(deployments={"model-default": deployment})})


def test_running_replicas_are_counted(monkeypatch):
    monkeypatch.setattr(serve, "status", lambda: status(2))
    assert asyncio.run(Readiness(DEPLOYMENTS).replicas()) == {"default": 2}


def test_a_controller_that_does_not_answer_is_a_problem_and_is_asked_once_at_a_time(monkeypatch):
    back, asked = threading.Event(), []

    def away() -> SimpleNamespace:
        asked.append(1)
        assert back.wait(30)
        return status(1)

    monkeypatch.setattr(serve, "status", away)

    async def go() -> None:
        readiness = Readiness(DEPLOYMENTS, answer_s=0.01)
        for _ in range(3):
            with pytest.raises(Problem) as caught:
                await readiness.replicas()
            assert (caught.value.status, caught.value.kind) == (503, "not-ready")
        assert len(asked) == 1
        back.set()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await readiness.replicas() == {"default": 1}
                    return
                except Problem:
                    await asyncio.sleep(0.01)

    asyncio.run(go())


def test_an_error_of_the_controller_is_forgotten(monkeypatch):
    def broken() -> SimpleNamespace:
        raise RuntimeError("there is no controller")

    async def go() -> None:
        readiness = Readiness(DEPLOYMENTS)
        monkeypatch.setattr(serve, "status", broken)
        with pytest.raises(Problem):
            await readiness.replicas()
        monkeypatch.setattr(serve, "status", lambda: status(3))
        assert await readiness.replicas() == {"default": 3}

    asyncio.run(go())


def test_metrics_are_told_all_the_same():
    async def check(client, made):
        async def away():
            raise Problem(503, "not-ready", "the controller does not answer", headers={"Retry-After": "5"})

        made.service.ready = away
        check_problem(await client.get("/readyz"), 503, "not-ready")
        metrics = await client.get("/metrics")
        assert metrics.status_code == 200 and "rayseg_requests_total" in metrics.text

    with_app(check)
