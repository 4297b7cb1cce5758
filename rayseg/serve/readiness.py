"""Which models have warm replicas, as Ray Serve's controller knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ray import serve

from rayseg.serve.problems import Problem

KNOWN_FOR_S = 1.0
ANSWER_S = 5.0  # until the controller should have answered; while it is started anew it does not


class Readiness:
    """Asks for the replicas of `deployments`, (application, deployment) by model, at most once a second."""

    def __init__(self, deployments: Mapping[str, tuple[str, str]], answer_s: float = ANSWER_S) -> None:
        self._deployments, self._answer_s = dict(deployments), answer_s
        self._thread = ThreadPoolExecutor(1, "rayseg-status")
        self._asking: asyncio.Future[dict[str, int]] | None = None
        self._asked = 0.0

    async def replicas(self) -> Mapping[str, int]:
        """Running replicas of each model; a replica runs once its model has warmed up.

        Raises a `Problem` (503) where the controller does not answer.
        """
        asking = self._asking
        if asking is None or (asking.done() and (asking.exception() or time.monotonic() - self._asked >= KNOWN_FOR_S)):
            asking = self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
            self._asked = time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.shield(asking), self._answer_s)
        except Exception as error:
            detail = f"the controller of the replicas does not answer ({type(error).__name__})"
            raise Problem(503, "not-ready", detail, headers={"Retry-After": "5"}) from None

    def _ask(self) -> dict[str, int]:
        applications = serve.status().applications
        found = {}
        for model, (application, deployment) in self._deployments.items():
            overview = applications.get(application)
            status = overview.deployments.get(deployment) if overview else None
            states = status.replica_states if status else {}
            found[model] = sum(count for state, count in states.items() if getattr(state, "value", state) == "RUNNING")
        return found
