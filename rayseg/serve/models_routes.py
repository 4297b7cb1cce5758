"""GET /v1/models, /healthz, /readyz."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from rayseg.serve.problems import Problem
from rayseg.serve.service import Service


def router(service: Service) -> APIRouter:
    """The routes that say what is there and whether it works."""
    routes = APIRouter()

    @routes.get("/v1/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """The models, the default first."""
        return {"models": [_described(service, name) for name in service.facts]}

    @routes.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    @routes.get("/readyz", tags=["health"])
    async def readyz() -> dict[str, Any]:
        """Ready once every model has a replica that has warmed up."""
        replicas = await service.ready()
        cold = [name for name in service.facts if not replicas.get(name)]
        if cold:
            raise Problem(503, "not-ready", f"no warm replica yet of {', '.join(cold)}", headers={"Retry-After": "2"})
        return {"status": "ready", "replicas": dict(replicas)}

    return routes


def _described(service: Service, name: str) -> dict[str, Any]:
    facts = service.facts[name]
    return {
        "name": name,
        "classes": list(facts.class_names),
        "fingerprint": facts.fingerprint,
        "architecture": facts.architecture,
        "default": name == next(iter(service.facts)),
    }
