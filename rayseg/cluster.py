"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray._private import ray_constants


def connect(address: str | None = None, *, log_workers: bool = False) -> bool:
    """Join the cluster at `address`, else at $RAY_ADDRESS, else start one on this machine; True if this call started it.

    A cluster of our own listens on loopback only, and asks for a token as Ray's own default is, unless $RAY_AUTH_MODE
    says otherwise. Raises `ConnectionError` when there is no cluster at the address.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters is raised, and said once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": log_workers}
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        # Under `uv run` Ray would pack the working folder and start every worker through uv, in an environment of its own;
        # on this machine the workers share this one.
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
        ray_constants.ENABLE_RAY_CLUSTER = False  # Ray's own switch for a node that listens on 127.0.0.1 alone
        options["include_dashboard"] = False
    ray.init(address=address, **options)
    return address == "local"


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    ray.shutdown()
