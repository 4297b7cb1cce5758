"""`Client` and `AsyncClient`: the same methods, one with threads in mind, one for asyncio."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx2

from rayseg import __version__
from rayseg.client import calls
from rayseg.client.answers import Batch, Model, Prediction
from rayseg.client.calls import Call, Image, PredictOptions
from rayseg.errors import EndpointError, UsageError
from rayseg.storage.retry import Retry, Transient

T = TypeVar("T")
TOKEN_VARIABLE = "RAYSEG_TOKEN"
_CONNECT_S = 10.0


class Client:
    """An endpoint at `url`. Threads may share it; close it, or use it in a `with`.

    token      for servers that ask for one; by default that of $RAYSEG_TOKEN
    timeout_s  how long a single attempt may wait for its answer
    retry      how long to come again after 429, 502, 503 and broken connections
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = 60.0, retry: Retry | None = None
    ) -> None:
        self.url, self._timeout_s, self._retry = url, timeout_s, retry or Retry()
        self._http = httpx2.Client(**_settings(url, token, timeout_s))

    def predict(self, image: Image, **options: Unpack[PredictOptions]) -> Prediction:
        """The instances of an image: its bytes, a path or URI that is read here, or an array (H, W, 3) uint8.

        `options` are those of `PredictOptions`; what is left out is the model's own setting.
        Raises `EndpointError`, and `StorageError` for a file that cannot be read.
        """
        return self._do(calls.predict(image, options))

    def predict_uri(self, uri: str, **options: Unpack[PredictOptions]) -> Prediction:
        """The same for an image that the server reads, below one of its read prefixes."""
        return self._do(calls.predict_uri(uri, options))

    def overlay(self, image: Image, **options: Unpack[PredictOptions]) -> bytes:
        """The image with its instances drawn in, as PNG."""
        return self._do(calls.overlay(image, options))

    def models(self) -> tuple[Model, ...]:
        """The models there are, the default among them."""
        return self._do(calls.models())

    def wait_until_ready(self) -> None:
        """Return once every model has a warm replica; raises `EndpointError` when `retry` is used up."""
        self._do(calls.ready())

    def start_batch(self, images: str | Sequence[str], out: str, *, model: str | None = None, **options: Any) -> Batch:
        """Have the server label `images` (a prefix, a list's URI, or URIs) into `out`, both URIs that it may use."""
        return self._do(calls.start_batch(images, out, model, options))

    def batch(self, batch_id: str) -> Batch:
        """How far a batch is."""
        return self._do(calls.batch(batch_id))

    def batches(self) -> tuple[Batch, ...]:
        """All batches."""
        return self._do(calls.batches())

    def cancel_batch(self, batch_id: str) -> Batch:
        """Stop a batch; one that has ended stays as it is. What it wrote stays."""
        return self._do(calls.cancel_batch(batch_id))

    def forget_batch(self, batch_id: str) -> None:
        """Have the server remove a batch that has ended from its list; what it wrote stays."""
        self._do(calls.forget_batch(batch_id))

    def wait_for_batch(
        self,
        batch_id: str,
        *,
        timeout_s: float | None = None,
        every_s: float = 2.0,
        progress: Callable[[Batch], object] = lambda batch: None,
    ) -> Batch:
        """Ask until the batch is finished, whichever way; `progress` hears each answer. Raises `EndpointError` in the end."""
        deadline = _deadline(timeout_s)
        while True:
            found = self.batch(batch_id)
            progress(found)
            if found.finished:
                return found
            time.sleep(_pause_s(found, every_s, deadline))

    def _do(self, call: Call[T]) -> T:
        def attempt() -> T:
            try:
                answer = self._http.request(call.method, call.path, **_request(call))
            except httpx2.HTTPError as error:
                calls.fail(self.url, error, self._timeout_s)
            return calls.result(call, answer)

        try:
            return self._retry.call(attempt)
        except Transient as error:
            raise error.__cause__ or error from None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited; close it with `aclose`, or use it in an `async with`."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = 60.0, retry: Retry | None = None
    ) -> None:
        self.url, self._timeout_s, self._retry = url, timeout_s, retry or Retry()
        self._http = httpx2.AsyncClient(**_settings(url, token, timeout_s))

    async def predict(self, image: Image, **options: Unpack[PredictOptions]) -> Prediction:
        """See `Client.predict`."""
        return await self._do(await asyncio.to_thread(calls.predict, image, options))

    async def predict_uri(self, uri: str, **options: Unpack[PredictOptions]) -> Prediction:
        """See `Client.predict_uri`."""
        return await self._do(calls.predict_uri(uri, options))

    async def overlay(self, image: Image, **options: Unpack[PredictOptions]) -> bytes:
        """See `Client.overlay`."""
        return await self._do(await asyncio.to_thread(calls.overlay, image, options))

    async def models(self) -> tuple[Model, ...]:
        """See `Client.models`."""
        return await self._do(calls.models())

    async def wait_until_ready(self) -> None:
        """See `Client.wait_until_ready`."""
        await self._do(calls.ready())

    async def start_batch(
        self, images: str | Sequence[str], out: str, *, model: str | None = None, **options: Any
    ) -> Batch:
        """See `Client.start_batch`."""
        return await self._do(calls.start_batch(images, out, model, options))

    async def batch(self, batch_id: str) -> Batch:
        """See `Client.batch`."""
        return await self._do(calls.batch(batch_id))

    async def batches(self) -> tuple[Batch, ...]:
        """See `Client.batches`."""
        return await self._do(calls.batches())

    async def cancel_batch(self, batch_id: str) -> Batch:
        """See `Client.cancel_batch`."""
        return await self._do(calls.cancel_batch(batch_id))

    async def forget_batch(self, batch_id: str) -> None:
        """See `Client.forget_batch`."""
        await self._do(calls.forget_batch(batch_id))

    async def wait_for_batch(
        self,
        batch_id: str,
        *,
        timeout_s: float | None = None,
        every_s: float = 2.0,
        progress: Callable[[Batch], object] = lambda batch: None,
    ) -> Batch:
        """See `Client.wait_for_batch`."""
        deadline = _deadline(timeout_s)
        while True:
            found = await self.batch(batch_id)
            progress(found)
            if found.finished:
                return found
            await asyncio.sleep(_pause_s(found, every_s, deadline))

    async def _do(self, call: Call[T]) -> T:
        async def attempt() -> T:
            try:
                answer = await self._http.request(call.method, call.path, **_request(call))
            except httpx2.HTTPError as error:
                calls.fail(self.url, error, self._timeout_s)
            return calls.result(call, answer)

        try:
            return await self._retry.call_async(attempt)
        except Transient as error:
            raise error.__cause__ or error from None

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _settings(url: str, token: str | None, timeout_s: float) -> dict[str, Any]:
    """What httpx is given. Proxies of the environment are for other machines' endpoints."""
    host = _host(url)
    token = token if token is not None else os.environ.get(TOKEN_VARIABLE)
    headers = {"User-Agent": f"rayseg/{__version__}", "Accept": "application/json"}
    if token:
        if not token.isascii() or not token.isprintable():
            raise UsageError("token: expected printable ASCII characters")
        headers["Authorization"] = f"Bearer {token}"
    timeout = httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
    return {"base_url": url, "headers": headers, "timeout": timeout, "trust_env": not _is_loopback(host)}


def _host(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"url {url!r}: expected an endpoint such as http://127.0.0.1:8000")
    return parsed.host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _request(call: Call[Any]) -> dict[str, Any]:
    return {"params": call.params, "headers": call.headers, "content": call.content, "json": call.json}


def _deadline(timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else time.monotonic() + timeout_s


def _pause_s(found: Batch, every_s: float, deadline: float) -> float:
    if time.monotonic() + every_s > deadline:
        total = "?" if found.total is None else f"{found.total:,}"
        raise EndpointError(f"batch {found.id}: {found.state} after the given time, {found.done:,} of {total} images")
    return every_s
