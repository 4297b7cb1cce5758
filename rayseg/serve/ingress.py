"""The web application of an ingress: its routers, its documentation, its door. No Ray here: tests give it stand-ins.

Every answer that is not the one asked for is a problem document, whoever it comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from rayseg import __version__
from rayseg.serve import batch_routes, models_routes, openapi, page_routes, predict_routes, problems
from rayseg.serve.auth import Tokens
from rayseg.serve.door import Door
from rayseg.serve.problems import Problem
from rayseg.serve.service import Service

_log = logging.getLogger("rayseg.serve")
_DESCRIPTION = "Instance segmentation: one image now, or a bucket of them as a batch."
_KINDS = {404: "not-found", 405: "method-not-allowed"}


def build_app(service: Service, tokens: Tokens | None = None) -> Door:
    """The application that answers for `service`, behind its door."""
    tokens = tokens or Tokens({})
    app = FastAPIOffline(
        title="rayseg", version=__version__, description=_DESCRIPTION, redoc_url=None, redirect_slashes=False
    )
    app.include_router(predict_routes.router(service))
    app.include_router(batch_routes.router(service))
    app.include_router(models_routes.router(service))
    app.include_router(page_routes.router())
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_anything)
    app.openapi = lambda: _openapi(app, bool(tokens.hashes))  # type: ignore[method-assign]
    return Door(app, service.spec, tokens, service.metrics)


def _openapi(app: FastAPI, protected: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        app.openapi_schema = openapi.completed(document, protected)
    return app.openapi_schema


def _answer(request: Request, problem: Problem) -> Response:
    request.state.problem = problem.kind
    request_id = getattr(request.state, "request_id", None) or problems.request_id_of(None)
    return Response(problem.body(request_id), problem.status, problem.headers, problems.MEDIA_TYPE)


async def _of_problem(request: Request, error: Any) -> Response:
    return _answer(request, error)


async def _of_validation(request: Request, error: Any) -> Response:
    return _answer(request, Problem(422, "bad-request", "; ".join(_fault(fault) for fault in error.errors()[:5])))


def _fault(fault: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0])
    return f"{place[:100]}: {fault['msg']}"


async def _of_http(request: Request, error: Any) -> Response:
    kind = _KINDS.get(error.status_code, "bad-request")
    detail = error.detail if isinstance(error.detail, str) else HTTPStatus(error.status_code).phrase
    headers = {"Allow": _methods(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return _answer(request, Problem(error.status_code, kind, detail, headers=headers))


def _methods(request: Request) -> str:
    """All methods of a path, whose routes each know their own alone."""
    path = getattr(request.scope.get("route"), "path", None)
    return ", ".join(sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ()))) or "GET"


async def _of_anything(request: Request, error: Any) -> Response:
    _log.error("failed", exc_info=error)
    return _answer(request, problems.internal())
