"""GET /: the page."""

from __future__ import annotations

from fastapi import APIRouter


def router() -> APIRouter:
    """The routes of the page."""
    return APIRouter()
