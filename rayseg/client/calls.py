"""What a client asks, and what an answer means: requests as values, so that both clients only have to send them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NoReturn, TypedDict, TypeVar

import httpx2
import numpy as np

from rayseg import storage
from rayseg.client import answers
from rayseg.client.answers import Batch, Model, Prediction
from rayseg.errors import EndpointError, UsageError
from rayseg.storage.retry import Transient

T = TypeVar("T")
Image = str | os.PathLike[str] | bytes | np.ndarray

COME_AGAIN = frozenset({429, 502, 503})
NOT_FOUND = 404
_BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
_BEFORE_SENDING = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class PredictOptions(TypedDict, total=False):
    """What a prediction may be asked to differ in; `classes` are names, all others are left out of the answer."""

    model: str | None
    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    classes: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. All may be sent again after a connection broke half way: the server does nothing twice.

    `gone_is_done`: a 404 says that what it was to remove is not there, which is as well.
    """

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    json: Any = None
    gone_is_done: bool = False


# ---- what is asked


def predict(image: Image, options: PredictOptions) -> Call[Prediction]:
    """An image's bytes; a path or URI is read here, an array (H, W, 3) uint8 goes as PNG."""
    headers = {"Content-Type": "application/octet-stream"}
    return Call("POST", "v1/predict", _prediction, _params(options), headers, content=image_bytes(image))


def predict_uri(uri: str, options: PredictOptions) -> Call[Prediction]:
    """An image that the server reads."""
    return Call("POST", "v1/predict", _prediction, _params(options), json={"uri": uri})


def overlay(image: Image, options: PredictOptions) -> Call[bytes]:
    """The PNG with the instances drawn in."""
    headers = {"Content-Type": "application/octet-stream", "Accept": "image/png"}
    params = _params(options, masks=None)
    return Call("POST", "v1/predict", lambda answer: answer.content, params, headers, content=image_bytes(image))


def models() -> Call[tuple[Model, ...]]:
    """What there is."""
    return Call("GET", "v1/models", lambda answer: answers.models(answer.json()))


def start_batch(images: str | Sequence[str], out: str, model: str | None, options: Mapping[str, Any]) -> Call[Batch]:
    """A new batch; asked again, the server answers with the one that is under way."""
    body: dict[str, Any] = {"images": images if isinstance(images, str) else list(images), "out": out}
    if model is not None:
        body["model"] = model
    if given := {name: value for name, value in options.items() if value is not None}:
        body["options"] = given
    return Call("POST", "v1/batches", _batch, json=body)


def batch(batch_id: str) -> Call[Batch]:
    """How far it is."""
    return Call("GET", _batch_path(batch_id), _batch)


def batches() -> Call[tuple[Batch, ...]]:
    """All of them."""
    return Call("GET", "v1/batches", lambda answer: answers.batches(answer.json()))


def cancel_batch(batch_id: str) -> Call[Batch]:
    """Stop it; nothing changes where it has ended."""
    return Call("DELETE", _batch_path(batch_id), _batch)


def forget_batch(batch_id: str) -> Call[None]:
    """Remove the record of one that has ended."""
    return Call("DELETE", _batch_path(batch_id), lambda answer: None, {"forget": "true"}, gone_is_done=True)


def ready() -> Call[None]:
    """An answer as soon as every model has a warm replica."""
    return Call("GET", "readyz", lambda answer: None)


def image_bytes(image: Image) -> bytes:
    """The encoded image. Raises `StorageError` for one that cannot be read, `UsageError` for what is none."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        return _png(image)
    return storage.read(os.fspath(image))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image as Pillow

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise UsageError(f"an image as an array: expected (H, W, 3) uint8, found {pixels.shape} {pixels.dtype}")
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _params(options: PredictOptions, masks: str | None = "rle") -> dict[str, str]:
    if unknown := options.keys() - PredictOptions.__annotations__.keys():
        raise TypeError(
            f"{sorted(unknown)[0]!r} is not an option; there are {', '.join(PredictOptions.__annotations__)}"
        )
    given: dict[str, Any] = {**options, "masks": masks}
    if given.get("classes") is not None:
        given["classes"] = ",".join(given["classes"])
    return {name: str(value) for name, value in given.items() if value is not None}


def _batch_path(batch_id: str) -> str:
    if not batch_id or "/" in batch_id or batch_id.startswith("."):
        raise UsageError(f"{batch_id!r} is not the id of a batch")
    return f"v1/batches/{batch_id}"


# ---- what an answer means


def _prediction(answer: httpx2.Response) -> Prediction:
    return answers.prediction(answer.json())


def _batch(answer: httpx2.Response) -> Batch:
    return answers.batch(answer.json())


def result(call: Call[T], answer: httpx2.Response) -> T:
    """What the call was for. Raises `Transient`, caused by an `EndpointError`, to come again; else that error itself."""
    if answer.is_success or (call.gone_is_done and answer.status_code == NOT_FOUND):
        try:
            return call.read(answer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = f"{answer.url}: not the answer of a rayseg endpoint ({type(error).__name__}: {error})"
            raise EndpointError(fault, status=answer.status_code) from None
    error = _refusal(answer)
    if answer.status_code in COME_AGAIN:
        raise Transient(str(error), after_s=_retry_after_s(answer)) from error
    raise error


def fail(url: str, error: httpx2.HTTPError, timeout_s: float) -> NoReturn:
    """Say that there was no answer: `Transient`, caused by an `EndpointError`, where to come again may help, or that error."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, _BEFORE_SENDING):
        raise EndpointError(f"{url}: no answer within {timeout_s:g} s; give it more with timeout_s")
    found = EndpointError(f"{url}: cannot be reached: {str(error) or type(error).__name__}")
    if isinstance(error, (*_BEFORE_SENDING, *_BROKEN)):
        raise Transient(str(found)) from found
    raise found


def _refusal(answer: httpx2.Response) -> EndpointError:
    """From a problem document, or whatever else came."""
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    said = document.get("detail") or document.get("title") or answer.reason_phrase or "no reason given"
    problem = str(document.get("type", "")).removeprefix("rayseg:")
    request_id = str(document.get("request_id", ""))
    message = f"{answer.url.copy_with(query=None)}: {answer.status_code}, {said}"
    message += f" (request {request_id})" if request_id else ""
    return EndpointError(message, status=answer.status_code, problem=problem, request_id=request_id)


def _retry_after_s(answer: httpx2.Response) -> float:
    """Seconds or a date, as RFC 9110 has it; 0 where neither is said."""
    text = answer.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text)) if text else 0.0
    except ValueError:
        pass
    try:
        from datetime import UTC, datetime

        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
