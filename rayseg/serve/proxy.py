"""Limits of request bodies in Ray Serve's HTTP proxies, for servers that `serve deploy` or a RayService starts.

A proxy takes a body of any size into memory before the ingress sees the first byte of it, unless this stands before it. Set
in the environment of the cluster's nodes:

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=rayseg.serve.proxy:middlewares
    RAYSEG_SERVE_MAX_BODY_BYTES=33554432        # and if need be _MAX_WAITING_BYTES and _BODY_TIMEOUT_S

`rayseg serve` needs none of it: it answers HTTP itself.
"""

from __future__ import annotations

import os

from starlette.middleware import Middleware

from rayseg.serve.door import body_limits, refuse
from rayseg.serve.limits import BodyGate
from rayseg.serve.spec import ServeSpec

_PREFIX = "RAYSEG_SERVE_"
_FIELDS = {"max_body_bytes": int, "max_waiting_bytes": int, "body_timeout_s": float}


def middlewares() -> list[Middleware]:
    """What Ray Serve's proxies put before themselves."""
    given = {
        name: parse(os.environ[_PREFIX + name.upper()])
        for name, parse in _FIELDS.items()
        if _PREFIX + name.upper() in os.environ
    }
    spec = ServeSpec(model="any", **given)
    return [Middleware(BodyGate, limits=body_limits(spec), refuse=refuse)]
