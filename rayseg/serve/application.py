"""The Ray Serve application: an ingress before a deployment of replicas for each model.

`build` is what `serve deploy` and a RayService take as `import_path: rayseg.serve.application:build`, with a spec as args;
`serve_config` writes such a configuration.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from rayseg import specs
from rayseg.models.checkpoints import describe
from rayseg.serve import metrics
from rayseg.serve.auth import Tokens, check_host_setting, load_tokens
from rayseg.serve.dispatch import ServeReplicas
from rayseg.serve.door import Door
from rayseg.serve.ingress import build_app
from rayseg.serve.metrics import Metrics
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.replica import ModelReplica, max_ongoing
from rayseg.serve.service import ModelFacts, Service
from rayseg.serve.spec import ServeSpec

NAME = "rayseg"
IMPORT_PATH = "rayseg.serve.application:build"
_INGRESS_ONGOING = 10_000  # the ingress itself refuses what is too much, and says why
_READY_FOR_S = 1.0
_LOGGING = {"enable_access_log": False, "log_level": "WARNING"}


@serve.deployment(max_ongoing_requests=_INGRESS_ONGOING, logging_config=_LOGGING)
@serve.ingress()
class Ingress:
    """The web application in its process; `drain` is called before the server stops."""

    def __init__(
        self, spec: ServeSpec, facts: Sequence[ModelFacts], hashes: Mapping[str, str], handles: Mapping[str, Any]
    ) -> None:
        metrics.log_to_stderr()
        counted = Metrics()
        replicas = {
            name: ServeReplicas(name, handle, counted.retried.labels(name).inc) for name, handle in handles.items()
        }
        ready = _Readiness({name: handle.deployment_name for name, handle in handles.items()})
        prefixes = Prefixes(spec.read_prefixes, spec.write_prefixes)
        service = Service(spec, {one.name: one for one in facts}, replicas, prefixes, ready.replicas, counted)
        self._door = build_app(service, Tokens(hashes))

    def __serve_build_asgi_app__(self) -> Door:
        return self._door

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests, wait for those that are being answered; returns how many are left."""
        return await self._door.drain(timeout_s)


@serve.deployment(logging_config=_LOGGING)
class Model(ModelReplica):
    """A replica in its process."""

    def __init__(self, facts: ModelFacts, spec: ServeSpec, device: str | None) -> None:
        metrics.log_to_stderr()
        super().__init__(facts, spec, device)


def build(args: Mapping[str, Any]) -> Application:
    """The application of a spec's fields. Raises `UsageError`, `ModelError` or `StorageError` for what cannot be served."""
    spec = specs.validate(ServeSpec, args)
    tokens = load_tokens(spec.tokens_file)
    check_host_setting(spec.host, tokens)
    Prefixes(spec.read_prefixes, spec.write_prefixes)
    facts = [facts_of(name, uri) for name, uri in spec.named_models.items()]
    gpus = spec.gpus_per_replica
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    device = None if gpus else "cpu"
    handles = {one.name: _model_deployment(one, spec, gpus).bind(one, spec, device) for one in facts}
    ingress = Ingress.options(ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=_drain_s(spec))
    return ingress.bind(spec, facts, tokens.hashes, handles)


def serve_config(spec: ServeSpec) -> dict[str, Any]:
    """What `serve deploy` takes, and a RayService as its `serveConfigV2`."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": spec.host, "port": spec.port},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": spec.model_dump(mode="json", exclude={"address"}, exclude_defaults=True),
            }
        ],
    }


def facts_of(name: str, uri: str) -> ModelFacts:
    """What callers may know of the model at `uri`."""
    info = describe(uri)
    return ModelFacts(name, uri, info.class_names, info.fingerprint, info.architecture)


def deployment_name(model: str) -> str:
    """The deployment that runs the replicas of a model."""
    return f"model-{model}"


def _model_deployment(facts: ModelFacts, spec: ServeSpec, gpus: float) -> Any:
    scaling = AutoscalingConfig(
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        target_ongoing_requests=spec.target_ongoing_requests,
        upscale_delay_s=spec.upscale_delay_s,
        downscale_delay_s=spec.downscale_delay_s,
    )
    return Model.options(
        name=deployment_name(facts.name),
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": gpus},
        max_ongoing_requests=max_ongoing(spec),
        max_queued_requests=spec.max_queued,
        graceful_shutdown_timeout_s=_drain_s(spec),
        health_check_period_s=5,
    )


def _drain_s(spec: ServeSpec) -> float:
    return spec.request_timeout_s + 5


class _Readiness:
    """Warm replicas of each model as the controller knows them, asked at most once a second."""

    def __init__(self, deployments: Mapping[str, str]) -> None:
        self._deployments = deployments
        self._thread = ThreadPoolExecutor(1, "rayseg-status")
        self._known: dict[str, int] = dict.fromkeys(deployments, 0)
        self._asked = -_READY_FOR_S
        self._asking = asyncio.Lock()

    async def replicas(self) -> Mapping[str, int]:
        async with self._asking:
            if time.monotonic() - self._asked >= _READY_FOR_S:
                running = await asyncio.get_running_loop().run_in_executor(self._thread, _running_replicas)
                self._known = {name: running.get(deployment, 0) for name, deployment in self._deployments.items()}
                self._asked = time.monotonic()
        return self._known


def _running_replicas() -> dict[str, int]:
    """Running replicas by deployment, of this application."""
    overview = serve.status().applications.get(serve.get_replica_context().app_name)
    if overview is None:
        return {}
    return {
        name: sum(count for state, count in one.replica_states.items() if str(getattr(state, "value", state)) == "RUNNING")
        for name, one in overview.deployments.items()
    }
