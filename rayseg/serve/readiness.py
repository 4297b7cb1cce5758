"""Which models have warm replicas, as Ray Serve's controller knows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ray import serve

_KNOWN_FOR_S = 1.0


class Readiness:
    """Asks for the replicas of `deployments`, (application, deployment) by model, at most once a second."""

    def __init__(self, deployments: Mapping[str, tuple[str, str]]) -> None:
        self._deployments = dict(deployments)
        self._thread = ThreadPoolExecutor(1, "rayseg-status")
        self._known: dict[str, int] = {}
        self._asked: float | None = None
        self._asking = asyncio.Lock()

    async def replicas(self) -> Mapping[str, int]:
        """Running replicas of each model; a replica runs once its model has warmed up."""
        async with self._asking:
            if self._asked is None or time.monotonic() - self._asked >= _KNOWN_FOR_S:
                self._known = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
                self._asked = time.monotonic()
        return self._known

    def _ask(self) -> dict[str, int]:
        applications = serve.status().applications
        found = {}
        for model, (application, deployment) in self._deployments.items():
            overview = applications.get(application)
            status = overview.deployments.get(deployment) if overview else None
            states = status.replica_states if status else {}
            found[model] = sum(count for state, count in states.items() if getattr(state, "value", state) == "RUNNING")
        return found
