"""`job.json`: what an output was asked to be. Its presence means that the plan beside it is complete."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound
from rayseg.formats.parts import SCHEMA_VERSION
from rayseg.outputs.plan import PlanInfo
from rayseg.outputs.spec import OutputSpec

_PACKAGES = ("rayseg", "ray", "torch", "torchvision", "numba", "pyarrow", "numpy")


class Model(Protocol):
    """What an output says of its model: `ModelInfo`, or whatever else knows as much."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def class_names(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """The resolved spec, the plan and the model of one output, as JSON values."""

    spec: dict[str, Any]
    plan: PlanInfo
    model: dict[str, Any]
    versions: dict[str, str]
    created: str
    skipped: dict[str, int]

    @classmethod
    def of(cls, spec: OutputSpec, plan: PlanInfo, model: Model, skipped: dict[str, int]) -> Job:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(spec.model_dump(), plan, describe_model(spec, model), versions(), created, skipped)


def describe_model(spec: OutputSpec, model: Model) -> dict[str, Any]:
    """The `model` entry of job and manifest."""
    return {
        "uri": spec.model,
        "fingerprint": model.fingerprint,
        "architecture": model.architecture,
        "class_names": list(model.class_names),
    }


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def write(out: str, job: Job) -> None:
    """Put job.json; the plan must be complete."""
    record = {"schema_version": SCHEMA_VERSION} | asdict(job)
    storage.write(_uri(out), json.dumps(record, indent=1).encode())


def read(out: str) -> Job | None:
    """The job of `out`, None where there is none. Raises `JobError` when it cannot be understood."""
    try:
        record = json.loads(storage.read(_uri(out)))
        found = record.pop("schema_version")
        if found != SCHEMA_VERSION:
            raise JobError(f"{_uri(out)}: schema version {found}, this rayseg writes {SCHEMA_VERSION}; use its version")
        return Job(**record | {"plan": PlanInfo.from_json(record["plan"])})
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{_uri(out)}: not a job record: {error!r}") from None


def check_same(out: str, job: Job, spec: OutputSpec, model: Model) -> None:
    """Raise `JobError` with every difference that would make a resumed run write other rows."""
    asked = spec.result_fields()
    pairs = [(key, job.spec.get(key), asked[key]) for key in asked if key != "out" and job.spec.get(key) != asked[key]]
    if job.model["fingerprint"] != model.fingerprint:
        pairs.append(("model fingerprint", job.model["fingerprint"][:12], model.fingerprint[:12]))
    if pairs:
        lines = [f"  {key}: was {old!r}, now {new!r}" for key, old, new in pairs]
        raise JobError(
            f"{out} was started with another spec or model:\n" + "\n".join(lines) + "\n"
            "Use the same ones to resume, another --out, or --overwrite to start afresh."
        )


def _uri(out: str) -> str:
    return storage.join(out, "job.json")
