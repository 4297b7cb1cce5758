"""POST, GET and DELETE /v1/batches: many images from storage, labelled into storage."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rayseg.serve import openapi
from rayseg.serve.batch_requests import BatchRequest
from rayseg.serve.batch_store import State
from rayseg.serve.problems import Problem
from rayseg.serve.service import Replicas, Service

MOST_IMAGES = 100_000  # named one by one; more are a list in storage
CALL_S = 20.0

_Uri = Annotated[str, Field(min_length=1, max_length=2048)]
_Whole = Annotated[
    int, BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
]
_EXAMPLE = {
    "id": "20261125T093000-3f9c2ab0",
    "state": "running",
    "model": "default",
    "images": "s3://photos/2026/",
    "out": "s3://labels/2026",
    "options": {"score_threshold": 0.3},
    "created": "2026-11-25T09:30:00+00:00",
    "finished": None,
    "total": 125000,
    "done": 31250,
    "failed": 3,
    "rate": 104.2,
    "eta_s": 899.7,
    "error": None,
}
_ID = Annotated[str, Path(max_length=64, description="what POST /v1/batches answered", examples=[_EXAMPLE["id"]])]


class BatchOptions(BaseModel):
    """What `rayseg label` takes under the same names; none leaves the model's own setting."""

    model_config = ConfigDict(extra="forbid", strict=True)

    score_threshold: float | None = Field(default=None, ge=0, le=1, description="instances below it are not written")
    iou_threshold: float | None = Field(default=None, gt=0, le=1, description="of boxes of a class: for NMS")
    max_detections: _Whole | None = Field(default=None, ge=1, le=2**31 - 1, description="best instances kept per image")
    limit: _Whole | None = Field(default=None, ge=1, le=2**62, description="only the first N images")
    column: str | None = Field(default=None, max_length=256, description="of a CSV or Parquet list: holds the URIs")
    images_root: _Uri | None = Field(default=None, description="folder that relative names of a list start from")


class NewBatch(BaseModel):
    """The images, and where their rows go."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: _Uri | Annotated[list[_Uri], Field(min_length=1, max_length=MOST_IMAGES)] = Field(
        description="a prefix, a glob, a list (.txt .csv .parquet) or COCO .json, or the URIs of single images"
    )
    out: _Uri = Field(
        description="folder for plan, Parquet parts and manifest, below one of the server's write_prefixes"
    )
    model: str | None = Field(None, max_length=64, description="see /v1/models; none: the default")
    options: BatchOptions = BatchOptions()


class Batch(BaseModel):
    """One batch as it is now. It is complete when it is `done`: then `rayseg verify OUT` passes."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: str
    state: State
    model: str
    images: str
    out: str
    options: dict[str, Any]
    created: str
    finished: str | None
    total: int | None = Field(description="images; null until they are planned")
    done: int = Field(description="images whose row is stored, failed ones too")
    failed: int = Field(description="images whose row holds an error")
    rate: float | None = Field(description="images per second, of late")
    eta_s: float | None
    error: str | None = Field(description="what it waits for, or why it failed")


class Batches(BaseModel):
    """The latest first."""

    batches: list[Batch]


def router(service: Service) -> APIRouter:
    """The routes of batches."""
    routes = APIRouter(tags=["batches"])

    @routes.post(
        "/v1/batches",
        status_code=202,
        response_model=Batch,
        responses=openapi.problems(400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 500, 503),
    )
    async def create(
        wanted: Annotated[NewBatch, Body(openapi_examples=_EXAMPLES)],
    ) -> Response:
        """Label many images; the answer is at once, the work goes on, also across restarts of the server.

        Asking again for what is under way answers with that batch; for what was cut off or cancelled, goes on with it.
        """
        options = wanted.options.model_dump(exclude_none=True)
        request = BatchRequest(wanted.images, wanted.out, wanted.model, options)
        batch = await _called(service, "create", request)
        return JSONResponse(batch, 202, {"Location": f"/v1/batches/{batch['id']}"})

    @routes.get("/v1/batches", response_model=Batches, responses=openapi.problems(401, 421, 422, 429, 500, 503))
    async def listing(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """The latest batches."""
        if service.batches is None:
            return JSONResponse({"batches": []})
        return JSONResponse(await _called(service, "listing", limit))

    @routes.get("/v1/batches/{id}", response_model=Batch, responses=openapi.problems(401, 404, 421, 422, 429, 500, 503))
    async def get(id: _ID) -> Response:
        """One batch as it is now."""
        return JSONResponse(await _called(service, "get", id))

    @routes.delete(
        "/v1/batches/{id}",
        status_code=202,
        response_model=Batch,
        responses={204: {"description": "forgotten; its output stays"}}
        | openapi.problems(401, 404, 409, 421, 422, 429, 500, 503),
    )
    async def cancel(
        id: _ID, forget: Annotated[bool, Query(description="remove the record of a batch that has ended")] = False
    ) -> Response:
        """Cancel a batch; one that has ended stays as it is, however often this is asked. What it has written stays."""
        if forget:
            await _called(service, "forget", id)
            return Response(status_code=204)
        return JSONResponse(await _called(service, "cancel", id), 202)

    return routes


_EXAMPLES: dict[str, Any] = {
    "prefix": {"value": {"images": "s3://photos/2026/", "out": "s3://labels/2026"}},
    "named": {
        "value": {
            "images": ["s3://photos/a.jpg", "s3://photos/b.jpg"],
            "out": "s3://labels/two",
            "options": {"score_threshold": 0.3},
        }
    },
}


async def _called(service: Service, method: str, *args: Any) -> Any:
    """What the one runner of all batches says. Raises a `Problem`, also where there is no runner."""
    if service.batches is None:
        raise Problem(
            404, "no-batches", "this server takes no batches: it was started without a folder for their records"
        )
    runner: Replicas = service.batches
    return await runner.call(method, *args, timeout_s=CALL_S)
