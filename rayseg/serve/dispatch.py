"""From an ingress to the replicas of a model through Ray Serve's handle: one call, its time limit, its one second try.

A call whose replica is lost is made again, once; predictions change nothing, so it does not matter how far the first came.
Whatever fails becomes a `Problem` that tells the caller what to do.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)

from rayseg.serve import problems
from rayseg.serve.problems import Problem, busy
from rayseg.serve.transport import routed_here

_log = logging.getLogger("rayseg.serve")
_LOST = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
_TRIES = 2


class ServeReplicas:
    """`service.Replicas` on a deployment handle, for one event loop; `on_retry` is called when a call is made again."""

    def __init__(
        self,
        name: str,
        handle: Any,
        on_retry: Callable[[], None] = lambda: None,
        connect: Callable[[Any], Any] = routed_here,
    ) -> None:
        self._name, self._given, self._on_retry, self._connect = name, handle, on_retry, connect
        self._methods: dict[str, Any] = {}

    @functools.cached_property
    def _handle(self) -> Any:
        return self._connect(self._given)

    def _method(self, name: str) -> Any:
        """The handle of one method, which Ray Serve would make anew for each call."""
        if name not in self._methods:
            self._methods[name] = getattr(self._handle, name)
        return self._methods[name]

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """What `method` of one replica returns. Raises a `Problem`, also where that is what it returns."""
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._tried(method, args)
        except TimeoutError:
            raise Problem(
                503, "timeout", f"no answer within {timeout_s:g} s; try again later", headers={"Retry-After": "5"}
            ) from None
        except BackPressureError:
            raise busy("too many requests wait for this model; try again") from None
        except DeploymentUnavailableError:
            detail = "this model could not be loaded; its log says why"
            raise Problem(503, "model-unavailable", detail, headers={"Retry-After": "10"}) from None
        except (RayError, RayServeException) as error:
            _log.error("call failed", extra={"fields": {"model": self._name, "method": method}}, exc_info=error)
            if isinstance(error, _LOST):
                detail = "the replica that had this request was lost, twice; try again"
                raise Problem(503, "replica-lost", detail, headers={"Retry-After": "1"}) from None
            raise problems.internal() from None
        if isinstance(result, Problem):
            raise result
        return result

    async def _tried(self, method: str, args: tuple[Any, ...]) -> Any:
        for left in reversed(range(_TRIES)):
            response = self._method(method).remote(*args)
            try:
                return await response
            except asyncio.CancelledError:  # out of time, or no longer wanted: the replica need not go on
                response.cancel()
                raise
            except _LOST as error:
                if isinstance(error, RayTaskError) or not left:
                    raise
                self._on_retry()
                _log.warning("replica lost, calling again", extra={"fields": {"model": self._name, "method": method}})
        raise AssertionError("the last try returns or raises")
