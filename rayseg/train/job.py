"""`job.json`: what a training or a search was asked to do, from what data and with which versions. It is enough to repeat it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound
from rayseg.models.checkpoints import CARD_NAME
from rayseg.specs import Spec
from rayseg.train import checkpointing, tracking
from rayseg.train.feeds import micro_batch
from rayseg.train.records import Records
from rayseg.train.spec import RUNTIME_FIELDS, TrainSpec
from rayseg.train.tune_spec import TuneSpec

NAME = "job.json"
TRIALS = "trials"
SCHEMA_VERSION = 1
_PACKAGES = ("rayseg", "ray", "torch", "torchvision", "numpy", "pillow")
_WAYS_OUT = {"train": "another --out, or --overwrite to start afresh", "tune": "another --out"}


def begin(spec: TrainSpec, data: Records, val: Records | None) -> TrainSpec:
    """Write `OUT/job.json`, or check that the one there asks for the same; the spec with all that it leaves open settled.

    A run that goes on keeps the `micro_batch` with which it began, for whatever number of workers. One that has left neither
    a checkpoint nor a model gives way to another.
    Raises `JobError` with every difference that would make it another training.
    """
    found = _read(spec.out, "train")
    if found is not None:
        settled = spec.micro_batch or found["spec"]["micro_batch"]
        same = spec.model_copy(update={"micro_batch": settled})
        asked = same.result_fields()
        lines = _differences({key: found["spec"].get(key) for key in asked}, asked, found["data"], describe(data, val))
        if not lines:
            return same
        if _has_learnt(spec.out):
            raise _refusal(spec.out, "train", lines)
        storage.delete(storage.join(spec.out, tracking.NAME))
    spec = spec.model_copy(update={"micro_batch": micro_batch(spec, spec.most_workers)})
    _write(spec.out, "train", spec, data, val)
    return spec


def begin_search(spec: TuneSpec, data: Records, val: Records | None) -> None:
    """Write `OUT/job.json`, or check that the one there asks for the same search. One that has left no trial gives way.

    Raises `JobError` with every difference by which a trial would draw or learn something else.
    """
    found = _read(spec.out, "tune")
    if found is not None:
        asked = _of_search(spec.model_dump(mode="json"))
        lines = _differences(_of_search(found["spec"]), asked, found["data"], describe(data, val))
        if not lines:
            return
        if _has_trials(spec.out):
            raise _refusal(spec.out, "tune", lines)
    _write(spec.out, "tune", spec, data, val)


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


def _has_learnt(out: str) -> bool:
    return storage.exists(storage.join(out, CARD_NAME)) or bool(checkpointing.all_of(out))


def _has_trials(out: str) -> bool:
    folder = storage.join(out, TRIALS)
    try:
        uris = [entry.uri for page in storage.list_pages(folder) for entry in page]
    except ObjectNotFound:
        return False
    names = {uri[len(folder) + 1 :].partition("/")[0] for uri in uris}
    return any(_has_learnt(storage.join(folder, name)) for name in names)


def _of_search(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what each trial draws and learns, of a search's spec as JSON."""
    trained = {f"train.{key}": value for key, value in spec["train"].items() if key not in RUNTIME_FIELDS}
    searched = {
        f"search.{key}": {kind: values for kind, values in one.items() if values is not None}
        for key, one in spec["search"].items()
    }
    return {**trained, **searched, "seed": spec["seed"]}


def _differences(
    were: Mapping[str, Any], are: Mapping[str, Any], had: Mapping[str, Any], has: Mapping[str, Any]
) -> list[str]:
    """A line for each field of the spec that differs, and one for the data."""
    lines = [
        f"  {key}: was {were.get(key)!r}, now {are.get(key)!r}"
        for key in dict.fromkeys((*were, *are))
        if were.get(key) != are.get(key)
    ]
    return lines if had == has else [*lines, f"  data: were {had}, now {has}"]


def _refusal(out: str, command: str, lines: list[str]) -> JobError:
    ways_out = f"Use the same to go on, or {_WAYS_OUT[command]}."
    return JobError("\n".join([f"{out} was started with another spec or other data:", *lines, ways_out]))


def _write(out: str, command: str, spec: Spec, data: Records, val: Records | None) -> None:
    record = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "spec": spec.model_dump(mode="json"),
        "data": describe(data, val),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    storage.write(_uri(out), json.dumps(record, indent=1).encode())


def _read(out: str, command: str) -> dict[str, Any] | None:
    try:
        record = json.loads(storage.read(_uri(out)))
        if record["schema_version"] != SCHEMA_VERSION or record["command"] != command:
            raise JobError(
                f"{_uri(out)}: expected what rayseg {command} of this version writes, found {record['command']}, schema "
                f"{record['schema_version']}; {_WAYS_OUT[command]}"
            )
        return record if isinstance(record["spec"], dict) else None
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{_uri(out)}: not a job record: {error!r}; {_WAYS_OUT[command]}") from None


def _uri(out: str) -> str:
    return storage.join(out, NAME)
