"""The part of a submitted job's checks that needs rayseg and the cluster: workers get the package, resources are there."""

from __future__ import annotations

import sys
from typing import Any

from rayseg import cluster
from rayseg.errors import RaysegError


def begin(job: dict[str, Any], package: str | None) -> None:
    """Join the job's cluster, with `package` for all workers if it was sent; exit with a word where it cannot be."""
    try:
        cluster.connect(runtime_env={"py_modules": [package]} if package else None)
        cluster.check_fits(job["needs"], f"rayseg {job['command']}")
    except RaysegError as error:
        print(f"rayseg: {error}", flush=True)
        sys.exit(error.exit_code)
    except ConnectionError as error:
        print(f"rayseg: the job cannot join its own cluster: {error}", flush=True)
        sys.exit(1)
