"""What `rayseg serve` is asked to serve, where, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from rayseg.errors import UsageError
from rayseg.specs import Spec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ServeSpec(Spec):
    """One server: models, their replicas, and the limits of what callers may ask."""

    model: str | None = Field(None, description="checkpoint folder or URI, preset name, .pth; or see `models`")
    models: dict[str, str] = Field({}, description="several: a name and a URI each; the first is the default")
    host: str = Field("127.0.0.1", description="address to listen on; others than loopback need tokens")
    port: int = Field(8000, ge=1, le=65535)
    address: str | None = Field(None, description="Ray cluster; none: $RAY_ADDRESS, else this machine")

    min_replicas: int = Field(1, ge=1, description="of each model")
    max_replicas: int = Field(4, ge=1, description="of each model")
    target_ongoing_requests: float = Field(4.0, gt=0, description="more per replica, and replicas are added")
    upscale_delay_s: float = Field(10.0, ge=0, description="how long the load must be above the target")
    downscale_delay_s: float = Field(300.0, ge=0, description="how long it must be below")
    cpus_per_replica: float = Field(1.0, ge=0)
    gpus_per_replica: float | None = Field(None, ge=0, description="none: 1 where the cluster has GPUs, else 0")
    ingress_replicas: int = Field(1, ge=1, description="with serve deploy; rates and metrics are of each on its own")

    max_batch: int = Field(8, ge=1, description="most images in one forward")
    batch_wait_s: float = Field(0.0, ge=0, le=1, description="an idle model waits this long for a batch to fill")
    forward_target_s: float = Field(0.25, gt=0, description="batches are cut so that a forward takes about this long")
    max_queued: int = Field(64, ge=1, description="requests that may wait for a replica; further ones are refused")

    tokens_file: str | None = Field(
        None, description="hashed bearer tokens; none: $RAYSEG_SERVE_TOKENS, else no tokens"
    )
    rate_per_s: float | None = Field(None, gt=0, description="most requests per second and token, in the long run")
    rate_burst: int = Field(20, ge=1, description="requests that a token may make at once")
    max_body_bytes: int = Field(32 << 20, ge=1)
    max_waiting_bytes: int = Field(256 << 20, ge=1, description="of all request bodies together")
    max_pixels: int = Field(50_000_000, ge=1, description="larger images are refused")
    request_timeout_s: float = Field(30.0, gt=0, description="until a prediction is answered")
    body_timeout_s: float = Field(20.0, gt=0, description="until a request's headers have arrived, and its body")
    read_prefixes: list[str] = Field([], description="folders and prefixes that callers may have images read from")
    write_prefixes: list[str] = Field([], description="folders and prefixes that callers may have batches written to")

    batches: str | None = Field(
        None, description="folder, local or s3://, with the records of batches; none: no batches"
    )
    capture: str | None = Field(None, description="folder, local or s3://, that predictions are written to as Parquet")
    capture_images: bool = Field(False, description="the images' bytes too")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.model) == bool(self.models):
            raise ValueError("expected either `model` or `models`")
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is less than min_replicas ({self.min_replicas})")
        for name in self.models:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"models: {name!r} is no name: letters, digits, dots, dashes and underscores, up to 64"
                )
        return self

    @property
    def named_models(self) -> dict[str, str]:
        """Name to URI; a single model is called "default"."""
        return self.models or {"default": str(self.model)}

    @property
    def default_model(self) -> str:
        return next(iter(self.named_models))


def models_of(words: Sequence[str]) -> dict[str, Any]:
    """`model` or `models` from the command line's words: one URI, or `name=URI` each. Raises `UsageError`."""
    if len(words) == 1 and not _named(words[0]):
        return {"model": words[0]}
    models: dict[str, str] = {}
    for word in words:
        name, _, uri = word.partition("=")
        if not _named(word) or not uri or name in models:
            raise UsageError(f"--model {word!r}: expected a name of its own and a URI, as in small=s3://models/small")
        models[name] = uri
    return {"models": models} if models else {}


def _named(word: str) -> bool:
    """Whether a word is name=URI; a URI may have an equals sign behind its first slash."""
    name, equals, _ = word.partition("=")
    return bool(equals) and _NAME.fullmatch(name) is not None
