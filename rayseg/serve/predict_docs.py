"""What the OpenAPI document says of /v1/predict, with examples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rayseg.serve import openapi

_BINARY = {"schema": {"type": "string", "format": "binary"}}


class Segmentation(BaseModel):
    """A mask as COCO's compressed RLE: column by column, `size` is [height, width]."""

    size: tuple[int, int]
    counts: str


class Instance(BaseModel):
    """One instance; the best come first."""

    category_id: int
    category: str
    score: float
    bbox: tuple[float, float, float, float] = Field(description="x, y, width, height in pixels")
    area: int = Field(description="pixels of the mask")
    segmentation: Segmentation | list[list[float]] | str | None = Field(
        None, description="RLE; or polygons [x, y, x, y, ...]; or a PNG in base64; absent with masks=none"
    )


class Timing(BaseModel):
    """Milliseconds inside the replica."""

    queue: float
    decode: float
    forward: float
    finish: float


class Prediction(BaseModel):
    """The instances of one image."""

    model: str
    fingerprint: str = Field(description="models of one fingerprint give the same answers")
    width: int
    height: int
    instances: list[Instance]
    timing_ms: Timing


class _UriBody(BaseModel):
    uri: str = Field(min_length=1, max_length=2048)
    model_config = {"extra": "forbid"}


EXAMPLE = {
    "model": "default",
    "fingerprint": "9f2c" * 16,
    "width": 640,
    "height": 480,
    "instances": [
        {
            "category_id": 0,
            "category": "circle",
            "score": 0.98,
            "bbox": [12.5, 30.0, 100.2, 80.9],
            "area": 6012,
            "segmentation": {"size": [480, 640], "counts": "Ynh7:V2..."},
        }
    ],
    "timing_ms": {"queue": 0.1, "decode": 3.2, "forward": 41.0, "finish": 1.1},
}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}}
_BODY = {
    "required": True,
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": _FORM},
        "application/json": {
            "schema": _UriBody.model_json_schema(),
            "examples": {"stored": {"value": {"uri": "s3://my-images/2026/photo.jpg"}}},
        },
    },
}
_OK: dict[str, Any] = {
    "model": Prediction,
    "description": "the instances, or the image with them drawn on it",
    "content": {"application/json": {"example": EXAMPLE}, "image/png": _BINARY},
}
ROUTE: dict[str, Any] = {
    "responses": {200: _OK, **openapi.problems(400, 401, 403, 404, 408, 413, 415, 421, 422, 429, 500, 503)},
    "openapi_extra": {"requestBody": _BODY},
}
