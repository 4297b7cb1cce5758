"""Two servers on one cluster: the second does not put its model in place of the first's."""

from __future__ import annotations

import pytest
import ray

from rayseg.errors import UsageError
from rayseg.serve.claims import claim


def test_an_application_has_one_living_server(ray_cluster):
    first = claim(["rayseg-a", "rayseg-b"])
    other = claim(["rayseg-c"])
    with pytest.raises(UsageError, match="rayseg-b: another rayseg serve on this cluster has it"):
        claim(["rayseg-b"], patience_s=0.1)
    for one in first:  # as when their server ends or is killed
        ray.kill(one)
    again = claim(["rayseg-a", "rayseg-b"], patience_s=60)
    assert len(again) == 2 and len(other) == 1
    for one in (*again, *other):
        ray.kill(one)
