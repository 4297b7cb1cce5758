"""What the OpenAPI documents of all routes share: problems and how to present a token."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from rayseg.serve.problems import MEDIA_TYPE


class ProblemDocument(BaseModel):
    """RFC 9457: what was wrong with a request, and what to change."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


_MEANINGS = {
    400: "the request is malformed",
    401: "no token, or one that is not known",
    403: "the URI is outside what this server may touch",
    404: "there is no such thing",
    405: "not with this method",
    408: "the body arrived too slowly",
    409: "not in its present state",
    413: "the body, or the image in it, is too large",
    415: "a content type that is not taken",
    421: "sent to a host name that this server does not answer to",
    422: "an option, a body or an image that cannot be used; the detail says which and why",
    429: "too many requests; Retry-After says when to come again",
    500: "failed on our side; the log has it under the request id",
    503: "no room or no replica now; Retry-After says when to come again",
}
EXAMPLE = {
    "type": "rayseg:bad-image",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "truncated: jpeg ends after 1,024 bytes, before its last pixel",
    "request_id": "0f2b6c1f5f2e4f0c9a3f6f0d2f1b7c11",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with these problems."""
    content = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    return {status: {"description": _MEANINGS[status], "content": {MEDIA_TYPE: content}} for status in statuses}


def completed(document: dict[str, Any], protected: bool) -> dict[str, Any]:
    """`document` with the schema of problems, without FastAPI's own errors, and with tokens where they are needed."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema() | {"example": EXAMPLE}
    if protected:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document
