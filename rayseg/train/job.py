"""`job.json`: what a training was asked to do, from what data and with which versions. It is enough to repeat it."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound
from rayseg.train.records import Records
from rayseg.train.session import micro_batch
from rayseg.train.spec import TrainSpec

NAME = "job.json"
SCHEMA_VERSION = 1
_PACKAGES = ("rayseg", "ray", "torch", "torchvision", "numpy", "pillow")


def begin(spec: TrainSpec, data: Records, val: Records | None) -> TrainSpec:
    """Write `OUT/job.json`, or check that the one there asks for the same; the spec with all that it leaves open settled.

    A run that goes on keeps the `micro_batch` with which it began, for whatever number of workers.
    Raises `JobError` with every difference that would make it another training.
    """
    found = _read(spec.out)
    if found is None:
        spec = spec.model_copy(update={"micro_batch": micro_batch(spec, spec.most_workers)})
        storage.write(_uri(spec.out), json.dumps(_record(spec, data, val), indent=1).encode())
        return spec
    if spec.micro_batch is None:
        spec = spec.model_copy(update={"micro_batch": found["spec"]["micro_batch"]})
    asked = spec.result_fields()
    lines = [
        f"  {key}: was {found['spec'].get(key)!r}, now {asked[key]!r}"
        for key in asked
        if found["spec"].get(key) != asked[key]
    ]
    if found["data"] != describe(data, val):
        lines.append(f"  data: were {found['data']}, now {describe(data, val)}")
    if lines:
        raise JobError(
            f"{spec.out} was started with another spec or other data:\n" + "\n".join(lines) + "\n"
            "Use the same to go on, another --out, or --overwrite to start afresh."
        )
    return spec


def describe(data: Records, val: Records | None) -> dict[str, Any]:
    """The data in numbers: images and instances by class, and what tells these annotations from others."""
    return {
        "images": len(data),
        "instances": data.instances,
        "digest": data.digest(),
        "val_images": len(val) if val else 0,
    }


def exists(out: str) -> bool:
    """Whether a training was started there."""
    return storage.exists(_uri(out))


def _record(spec: TrainSpec, data: Records, val: Records | None) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "train",
        "spec": spec.model_dump(mode="json"),
        "data": describe(data, val),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _read(out: str) -> dict[str, Any] | None:
    try:
        record = json.loads(storage.read(_uri(out)))
        if record["schema_version"] != SCHEMA_VERSION or record["command"] != "train":
            raise JobError(f"{_uri(out)}: not of a training of this version of rayseg; another --out, or --overwrite")
        return record if isinstance(record["spec"], dict) else None
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{_uri(out)}: not a job record: {error!r}; another --out, or --overwrite") from None


def _uri(out: str) -> str:
    return storage.join(out, NAME)
