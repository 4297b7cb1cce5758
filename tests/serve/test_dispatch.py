"""Calls to replicas: a stand-in handle fails as Ray Serve's does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from rayseg.serve.dispatch import ServeReplicas
from rayseg.serve.problems import Problem


class Handle:
    """`predict.remote(x)` returns or raises the next of `outcomes`; None never answers."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[Any, ...]] = []
        self.cancelled = False

    @property
    def predict(self) -> Handle:
        return self

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._answered(args))

    async def _answered(self, args: tuple[Any, ...]) -> Any:
        self.asked.append(args)
        outcome = self.outcomes.pop(0)
        if outcome is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if isinstance(outcome, BaseException) and not isinstance(outcome, Problem):
            raise outcome
        return outcome


def called(handle: Handle, timeout_s: float | None = 30) -> tuple[Any, int]:
    """What a call returns or the problem it raises, and how often it was made again."""
    retries = []
    replicas = ServeReplicas("default", handle, lambda: retries.append(1), connect=lambda given: given)
    try:
        return asyncio.run(replicas.call("predict", "an image", timeout_s=timeout_s)), len(retries)
    except Problem as problem:
        return problem, len(retries)


LOST = ActorDiedError()


@pytest.mark.parametrize("lost", [ActorDiedError(), ActorUnavailableError("gone", None)])
def test_a_call_whose_replica_is_lost_is_made_again_once(lost):
    handle = Handle(lost, "answer")
    assert called(handle) == ("answer", 1)
    assert handle.asked == [("an image",)] * 2
    problem, retries = called(Handle(lost, lost, "too late"))
    assert (problem.status, problem.kind, retries) == (503, "replica-lost", 1)
    assert "Retry-After" in problem.headers


def test_what_a_replica_says_of_the_request_is_not_asked_twice():
    problem = Problem(422, "bad-image", "truncated")
    handle = Handle(problem, "never")
    assert called(handle) == (problem, 0)


def test_full_queues_and_models_that_are_not_there_are_503():
    problem, retries = called(Handle(BackPressureError(8, 8), "never"))
    assert (problem.status, problem.kind, retries) == (503, "busy", 0)
    assert int(problem.headers["Retry-After"]) > 0
    problem, _ = called(Handle(DeploymentUnavailableError(None)))
    assert (problem.status, problem.kind) == (503, "model-unavailable")
    assert "Retry-After" in problem.headers


def test_too_slow_an_answer_is_503_and_the_call_is_taken_back():
    handle = Handle(None)
    problem, _ = called(handle, timeout_s=0.01)
    assert (problem.status, problem.kind) == (503, "timeout")
    assert handle.cancelled


@pytest.mark.parametrize(
    "error", [RayTaskError("predict", "at /srv/secret", ValueError("hunter2")), RayServeException("at /srv/secret")]
)
def test_other_failures_tell_nothing(error):
    problem, retries = called(Handle(error, "never"))
    assert (problem.status, problem.kind, retries) == (500, "internal", 0)
    assert "secret" not in problem.detail and "hunter2" not in problem.detail
