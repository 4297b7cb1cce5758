"""POST /v1/predict: an image in, its instances out.

The image is the body, or the file `image` of a form, or lies at a URI that the body names in JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from rayseg.serve import options, predict_docs
from rayseg.serve.answers import Answer
from rayseg.serve.options import Form, Masks, PredictOptions
from rayseg.serve.problems import Problem
from rayseg.serve.service import Service

_RAW = ("application/octet-stream", "")
_PNG_WANTED = ("image/png", "image/*")


class PredictUri(BaseModel):
    """The body that names an image instead of holding it."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=2048, description="an image below one of the server's read_prefixes")


def router(service: Service) -> APIRouter:
    """The route of online predictions."""
    routes = APIRouter()

    @routes.post("/v1/predict", tags=["predict"], response_class=Response, **predict_docs.ROUTE)
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(max_length=64, description="see /v1/models; none: the default")] = None,
        score_threshold: Annotated[float | None, Query(ge=0, le=1, description="instances below are left out")] = None,
        iou_threshold: Annotated[float | None, Query(gt=0, le=1, description="of boxes of a class: for NMS")] = None,
        max_detections: Annotated[int | None, Query(ge=1, le=options.MOST_DETECTIONS, description="the best")] = None,
        classes: Annotated[str | None, Query(max_length=8192, description="names of classes, with commas")] = None,
        masks: Annotated[Masks, Query(description="how masks are written")] = "rle",
    ) -> Response:
        """Find the instances in one image.

        JSON in COCO's terms, or with `Accept: image/png` the image with its instances drawn on it.
        """
        options.check_names(request.query_params.keys())
        facts = service.model(model)
        ids = options.class_ids(classes, facts.class_names)
        form = _form_wanted(request.headers.get("accept", ""))
        wanted = PredictOptions(score_threshold, iou_threshold, max_detections, ids, masks, form)
        source = await _source(request, service)
        answer: Answer = await service.replicas[facts.name].call(
            "predict", source, wanted, request.state.request_id, timeout_s=service.spec.request_timeout_s
        )
        service.metrics.predicted(facts.name, answer.seconds, answer.batch, answer.instances, answer.captured)
        return Response(answer.body, media_type=answer.media_type, headers={"Vary": "Accept"})

    return routes


def _form_wanted(accept: str) -> Form:
    """An overlay where PNG is asked for by name, before JSON; in doubt JSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in kinds:
        if kind in _PNG_WANTED:
            return "overlay"
        if kind in ("application/json", "application/*", "*/*"):
            return "json"
    return "json"


async def _source(request: Request, service: Service) -> bytes | str:
    """The image's bytes, or the URI that it may be read from. Raises a `Problem`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return service.prefixes.readable(_uri_in(await request.body()))
    if kind == "multipart/form-data":
        return _not_empty(await _file_in(request))
    if kind in _RAW or kind.startswith("image/"):
        return _not_empty(await request.body())
    expected = "expected an image (Content-Type image/*), a form with the file `image`, or JSON"
    raise Problem(415, "wrong-content-type", f"{expected}; found {kind[:64]!r}")


def _uri_in(body: bytes) -> str:
    try:
        return PredictUri.model_validate_json(body).uri
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        detail = f"{place}: {fault['msg']}" if place else fault["msg"]
        raise Problem(422, "bad-request", f'expected JSON like {{"uri": "s3://bucket/image.jpg"}}: {detail}') from None


async def _file_in(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            file = form.get("image")
            if isinstance(file, UploadFile):
                return await file.read()
    except (MultiPartException, HTTPException, ValueError, KeyError) as error:
        raise Problem(422, "bad-form", f"the form cannot be read: {_said(error)}") from None
    raise Problem(422, "bad-form", "expected a file in the form's field `image`")


def _said(error: Any) -> str:
    return str(getattr(error, "message", None) or getattr(error, "detail", None) or "malformed")


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise Problem(422, "empty-body", "expected an image, found no bytes")
    return data
