"""One server for each application on a cluster: a second one would silently put its own model in place of the first's.

A claim is an actor that belongs to its server and ends with it, however that ends. What a killed server has left running is
not claimed by anybody, and the next server takes it over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray

from rayseg.errors import UsageError

NAMESPACE = "rayseg"
PATIENCE_S = 15.0  # the claims of a server that was killed a moment ago are still there
_PAUSE_S = 0.5


class _Claim:
    def held(self) -> bool:
        return True


def claim(applications: Sequence[str], patience_s: float = PATIENCE_S) -> list[Any]:
    """Claims on `applications`, to be kept for as long as the server lives.

    Raises `UsageError` for one that another living server has.
    """
    deadline = time.monotonic() + patience_s
    claims = [_claimed(name, deadline) for name in applications]
    ray.get([one.held.remote() for one in claims])
    return claims


def _claimed(name: str, deadline: float) -> Any:
    actor = ray.remote(num_cpus=0)(_Claim).options(name=f"serve {name}", namespace=NAMESPACE)
    while True:
        try:
            return actor.remote()
        except ValueError:  # the name is taken
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"{name}: another rayseg serve on this cluster has it; end that one, or name this model otherwise: "
                    "--model NAME=URI"
                ) from None
            time.sleep(_PAUSE_S)
