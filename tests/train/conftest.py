"""Training in tests uses one thread: the networks are too small for more, and two test processes share the cores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ray_nodes import wait_for


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_cpu_left(ray_cluster: None) -> Iterator[Any]:
    """The cluster with less than a CPU free; the actor that holds the others may be killed."""
    import ray

    class Holder:
        def there(self) -> None: ...

    def free() -> float:
        return ray.available_resources().get("CPU", 0)

    wait_for("a free CPU", lambda: free() >= 1)
    cpus = int(free())
    holder: Any = ray.remote(num_cpus=cpus)(Holder).remote()
    ray.get(holder.there.remote())
    wait_for("the cluster to notice", lambda: free() < 1)
    yield holder
    ray.kill(holder)
    wait_for("its CPUs", lambda: free() >= cpus)
