"""The FastAPI application of an ingress, made of its routers. No Ray here: a test drives it with stand-ins for replicas.

Every answer that is not the one asked for is a problem document, whoever it comes from.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from rayseg import __version__
from rayseg.serve import batch_routes, models_routes, page_routes, predict_routes, problems
from rayseg.serve.problems import Problem
from rayseg.serve.service import Service

_log = logging.getLogger("rayseg.serve")


def build_app(service: Service) -> FastAPI:
    """The application that answers for `service`."""
    app = FastAPI(title="rayseg", version=__version__, redoc_url=None)
    app.include_router(predict_routes.router(service))
    app.include_router(batch_routes.router(service))
    app.include_router(models_routes.router(service))
    app.include_router(page_routes.router())
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_anything)
    return app


def _answer(request: Request, problem: Problem) -> Response:
    request_id = request.scope.get("state", {}).get("request_id") or problems.request_id_of(None)
    return Response(problem.body(request_id), problem.status, problem.headers, problems.MEDIA_TYPE)


async def _of_problem(request: Request, error: Any) -> Response:
    return _answer(request, error)


async def _of_validation(request: Request, error: Any) -> Response:
    faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
    return _answer(request, Problem(422, "bad-request", faults))


async def _of_http(request: Request, error: Any) -> Response:
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    return _answer(request, Problem(error.status_code, kind, str(error.detail), headers=error.headers))


async def _of_anything(request: Request, error: Any) -> Response:
    _log.exception("request failed", exc_info=error)
    return _answer(request, problems.internal())
