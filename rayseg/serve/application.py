"""The Ray Serve deployments: replicas of each model, and for `serve deploy` an ingress before them.

`deploy` starts the models' replicas for `rayseg serve`, which answers HTTP in its own process. `build` is what `serve deploy`
and a RayService take as `import_path: rayseg.serve.application:build`, with a spec as args: there the same web application
runs in a deployment behind Ray Serve's HTTP proxies. `serve_config` writes such a configuration.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from rayseg import specs
from rayseg.models.checkpoints import describe
from rayseg.serve import metrics, transport
from rayseg.serve.auth import Tokens, check_host_setting, load_tokens
from rayseg.serve.batch_runner import BatchRunner
from rayseg.serve.dispatch import ServeReplicas
from rayseg.serve.door import Door
from rayseg.serve.ingress import build_app
from rayseg.serve.labelling import chunk_calls
from rayseg.serve.metrics import Metrics
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.readiness import Readiness
from rayseg.serve.replica import ModelReplica, max_ongoing
from rayseg.serve.service import ModelFacts, Service
from rayseg.serve.spec import ServeSpec

NAME = "rayseg"
BATCHES_NAME = "rayseg.batches"  # no model's application ends so: theirs have a dash
IMPORT_PATH = "rayseg.serve.application:build"
_INGRESS_ONGOING = 10_000  # the ingress itself refuses what is too much, and says why
_LOGGING = {"enable_access_log": False, "log_level": "WARNING"}


@dataclass(frozen=True)
class Handles:
    """Deployment handles: of each model's replicas, and of the runner of batches where there are batches."""

    models: Mapping[str, Any]
    batches: Any = None


@serve.deployment(max_ongoing_requests=_INGRESS_ONGOING, logging_config=_LOGGING, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Ingress:
    """The web application in its process; `drain` is called before the server stops."""

    def __init__(
        self,
        spec: ServeSpec,
        facts: Sequence[ModelFacts],
        hashes: Mapping[str, str],
        models: Mapping[str, Any],
        batches: Any = None,
    ) -> None:
        metrics.log_to_stderr()
        transport.keep_internal_servers_on_loopback()
        self._door = build_app(service_of(spec, facts, Handles(models, batches)), Tokens(hashes))

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
        transport.keep_internal_servers_on_loopback()
        super().__init__(facts, spec, device)

    def __del__(self) -> None:
        self.close()


@serve.deployment(max_ongoing_requests=_INGRESS_ONGOING, logging_config=_LOGGING, ray_actor_options={"num_cpus": 0})
class Batches(BatchRunner):
    """The one runner of all batches, in its process."""

    async def __init__(self, spec: ServeSpec, facts: Sequence[ModelFacts], handles: Mapping[str, Any]) -> None:
        metrics.log_to_stderr()
        transport.keep_internal_servers_on_loopback()
        replicas = {name: ServeReplicas(name, handle) for name, handle in handles.items()}
        prefixes = Prefixes(spec.read_prefixes, spec.write_prefixes)
        super().__init__(spec, {one.name: one for one in facts}, replicas, prefixes)
        await self.start()

    async def __del__(self) -> None:
        await self.close()


def deploy(spec: ServeSpec, facts: Sequence[ModelFacts]) -> Handles:
    """Start the replicas of each model, an application each; returns once every model has a warm one."""
    gpus, device = _device(spec)
    models = {
        one.name: serve.run(
            _model_deployment(one, spec, gpus).bind(one, spec, device), name=app_name(one.name), route_prefix=None
        )
        for one in facts
    }
    if spec.batches is None:
        return Handles(models)
    return Handles(models, serve.run(Batches.bind(spec, facts, models), name=BATCHES_NAME, route_prefix=None))


def undeploy(spec: ServeSpec) -> None:
    """End what `deploy` started, each replica after the requests it has at hand."""
    for name in names(spec):
        serve.delete(name)


def names(spec: ServeSpec) -> list[str]:
    """The applications that `deploy` makes, the one that calls others first."""
    return [*([BATCHES_NAME] if spec.batches else []), *map(app_name, spec.named_models)]


def build(args: Mapping[str, Any]) -> Application:
    """The application of a spec's fields. Raises `UsageError`, `ModelError` or `StorageError` for what cannot be served."""
    spec = specs.validate(ServeSpec, args)
    tokens = load_tokens(spec.tokens_file)
    check_host_setting(spec.host, tokens)
    Prefixes(spec.read_prefixes, spec.write_prefixes)
    facts = [facts_of(name, uri) for name, uri in spec.named_models.items()]
    gpus, device = _device(spec)
    models = {one.name: _model_deployment(one, spec, gpus).bind(one, spec, device) for one in facts}
    batches = Batches.bind(spec, facts, models) if spec.batches else None
    ingress = Ingress.options(num_replicas=spec.ingress_replicas, graceful_shutdown_timeout_s=_drain_s(spec))
    return ingress.bind(spec, facts, tokens.hashes, models, batches)


def service_of(spec: ServeSpec, facts: Sequence[ModelFacts], handles: Handles) -> Service:
    """What the routes need, over the handles of deployments."""
    counted, models = Metrics(), handles.models
    replicas = {name: ServeReplicas(name, handle, counted.retried.labels(name).inc) for name, handle in models.items()}
    ready = Readiness({name: (handle.app_name, handle.deployment_name) for name, handle in models.items()})
    prefixes = Prefixes(spec.read_prefixes, spec.write_prefixes)
    batches = ServeReplicas("batches", handles.batches) if handles.batches is not None else None
    return Service(spec, {one.name: one for one in facts}, replicas, prefixes, ready.replicas, counted, batches)


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


def app_name(model: str) -> str:
    """The application that `deploy` makes of a model."""
    return f"{NAME}-{model}"


def _device(spec: ServeSpec) -> tuple[float, str | None]:
    """GPUs of a replica, and the device it loads its model on; None is the GPU that Ray gives it."""
    gpus = spec.gpus_per_replica
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return gpus, None if gpus else "cpu"


def _model_deployment(facts: ModelFacts, spec: ServeSpec, gpus: float) -> Any:
    return Model.options(
        name=f"model-{facts.name}",
        autoscaling_config=_scaling(spec),
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": gpus},
        # Chunks of batches have places of their own, so that online requests find theirs however many there are.
        max_ongoing_requests=max_ongoing(spec) + (chunk_calls(spec) if spec.batches else 0),
        max_queued_requests=spec.max_queued,
        graceful_shutdown_timeout_s=_drain_s(spec),
        health_check_period_s=5,
    )


def _scaling(spec: ServeSpec) -> AutoscalingConfig:
    """Load is measured a few times within the delay after which replicas are added; Ray Serve's own 10 s may be longer."""
    interval_s = min(10.0, max(0.1, spec.upscale_delay_s / 3))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the environment variables are to follow in a later release
        return AutoscalingConfig(
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            target_ongoing_requests=spec.target_ongoing_requests,
            upscale_delay_s=spec.upscale_delay_s,
            downscale_delay_s=spec.downscale_delay_s,
            metrics_interval_s=interval_s,
            look_back_period_s=3 * interval_s,
        )


def _drain_s(spec: ServeSpec) -> float:
    return spec.request_timeout_s + 5
