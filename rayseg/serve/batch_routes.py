"""POST, GET and DELETE /v1/batches."""

from __future__ import annotations

from fastapi import APIRouter

from rayseg.serve.service import Service


def router(service: Service) -> APIRouter:
    """The routes of batches."""
    return APIRouter()
