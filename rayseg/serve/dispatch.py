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
from ray.serve.handle import DeploymentHandle

from rayseg.serve import problems
from rayseg.serve.problems import Problem, busy

_log = logging.getLogger("rayseg.serve")
_LOST = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
_TRIES = 2


def routed_here(handle: DeploymentHandle) -> DeploymentHandle:
    """The same replicas for the event loop that runs now: a call takes a quarter less time than through a thread of its own.

    By value, so that images go straight from process to process, and not through the object store first.
    """
    here = DeploymentHandle(handle.deployment_name, handle.app_name)
    here._init(_run_router_in_separate_loop=False)
    return here.options(_by_reference=False)


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

    @functools.cached_property
    def _handle(self) -> Any:
        return self._connect(self._given)

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
            raise Problem(503, "model-unavailable", "this model could not be loaded; its log says why") from None
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
            response = getattr(self._handle, method).remote(*args)
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
