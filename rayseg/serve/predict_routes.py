"""POST /v1/predict."""

from __future__ import annotations

from fastapi import APIRouter

from rayseg.serve.service import Service


def router(service: Service) -> APIRouter:
    """The route of online predictions."""
    return APIRouter()
