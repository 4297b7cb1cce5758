"""What the routes of one ingress share: the spec, the models it can ask, and who may ask for what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rayseg.serve.metrics import Metrics
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem
from rayseg.serve.spec import ServeSpec


@dataclass(frozen=True)
class ModelFacts:
    """What callers may know of a model. Plain values, so that it travels in a deployment's arguments."""

    name: str
    uri: str
    class_names: tuple[str, ...]
    fingerprint: str
    architecture: str


class Replicas(Protocol):
    """The replicas of one model: Ray Serve's deployment handle behind `dispatch`, or a test's stand-in.

    `call` runs `method` of `replica.ModelReplica` on one of them; what fails is a `Problem`.
    """

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any: ...


@dataclass
class Service:
    """Handed to every router."""

    spec: ServeSpec
    facts: Mapping[str, ModelFacts]  # by name, the default first
    replicas: Mapping[str, Replicas]
    prefixes: Prefixes
    ready: Callable[[], Awaitable[Mapping[str, int]]]  # warm replicas of each model
    metrics: Metrics = field(default_factory=Metrics)
    batches: Replicas | None = None  # the one `batch_runner.BatchRunner`; none where there is no place for records

    def model(self, name: str | None) -> ModelFacts:
        """The named model, or the default. Raises a `Problem` that names those there are."""
        return chosen(self.facts, name)


def chosen(facts: Mapping[str, ModelFacts], name: str | None) -> ModelFacts:
    """The named one of `facts`, or the first. Raises a `Problem` that names those there are."""
    wanted = name or next(iter(facts))
    if wanted not in facts:
        raise Problem(404, "unknown-model", f"model {wanted[:64]!r}: expected one of {', '.join(facts)}")
    return facts[wanted]
