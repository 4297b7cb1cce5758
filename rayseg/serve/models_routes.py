"""GET /v1/models, /healthz, /readyz, /metrics."""

from __future__ import annotations

import contextlib
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from rayseg.serve import metrics, openapi
from rayseg.serve.problems import Problem
from rayseg.serve.service import Service

_EXAMPLE = {"models": [{"name": "default", "classes": ["circle", "square"], "fingerprint": "9f2c" * 16,
                        "architecture": "maskrcnn_resnet50_fpn", "default": True}]}  # fmt: skip
_GUARDED = openapi.problems(401, 421, 429, 500, 503)
_TEXT = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
_OPEN = openapi.problems(421, 500, 503)


class Model(BaseModel):
    """One model that predictions can be asked of."""

    name: str
    classes: list[str]
    fingerprint: str
    architecture: str
    default: bool


class Models(BaseModel):
    """The models, the default first."""

    models: list[Model]


class Health(BaseModel):
    """Alive."""

    status: str


class Readiness(BaseModel):
    """Ready: warm replicas of each model."""

    status: str
    replicas: dict[str, int]


def router(service: Service) -> APIRouter:
    """The routes that say what is there and whether it works."""
    routes = APIRouter()

    @routes.get("/v1/models", tags=["models"], response_model=Models, responses={200: _example(_EXAMPLE), **_GUARDED})
    async def models() -> dict[str, Any]:
        """The models, the default first."""
        return {"models": [_described(service, name) for name in service.facts]}

    @routes.get("/healthz", tags=["health"], response_model=Health, responses=_OPEN)
    async def healthz() -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    @routes.get("/readyz", tags=["health"], response_model=Readiness, responses=_OPEN)
    async def readyz() -> dict[str, Any]:
        """Ready once every model has a replica that has warmed up."""
        replicas = await service.ready()
        cold = [name for name in service.facts if not replicas.get(name)]
        if cold:
            raise Problem(503, "not-ready", f"no warm replica yet of {', '.join(cold)}", headers={"Retry-After": "2"})
        return {"status": "ready", "replicas": dict(replicas)}

    @routes.get("/metrics", tags=["health"], response_class=Response, responses={200: _TEXT, **_GUARDED})
    async def prometheus() -> Response:
        """Counts and times, for Prometheus."""
        with contextlib.suppress(Problem):  # then the gauge stays as it was, and all else is told
            for name, count in (await service.ready()).items():
                service.metrics.replicas.labels(name).set(count)
        return Response(service.metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    return routes


def _example(value: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"example": value}}}


def _described(service: Service, name: str) -> dict[str, Any]:
    facts = service.facts[name]
    return {
        "name": name,
        "classes": list(facts.class_names),
        "fingerprint": facts.fingerprint,
        "architecture": facts.architecture,
        "default": name == next(iter(service.facts)),
    }
