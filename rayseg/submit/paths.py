"""Local paths in a spec: a cluster elsewhere does not see this machine's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rayseg.errors import UsageError
from rayseg.specs import Spec
from rayseg.storage.entry import scheme_of

_PLACES = frozenset(
    {"images", "images_root", "out", "data", "val", "val_images", "predictions", "batches", "capture", "tokens_file"}
)
_NAMES_TOO = frozenset({"model", "weights", "backbone_weights", "teacher"})  # a preset's name, or a place


def local_paths(spec: Spec) -> dict[str, str]:
    """The fields of `spec` that name a place on this machine, and what they say; dotted where they lie deeper."""
    return _local({name: getattr(spec, name) for name in spec.model_fields_set})


def _local(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):  # the training of a search; models by name
            found |= _local(value, f"{above}{name}.")
        elif isinstance(value, str) and value and scheme_of(value) in ("", "file"):
            names_too = name in _NAMES_TOO or above == "models."
            if (name in _PLACES and above != "models.") or (names_too and _is_place(value)):
                found[above + name] = value
    return found


def placed(spec: Spec, *, shared: bool, url: str) -> Spec:
    """`spec` with its local paths made absolute, where the cluster sees them (`shared`).

    Raises `UsageError` naming each of them where it does not.
    """
    local = local_paths(spec)
    if local and not shared:
        lines = [
            f"{name}: {value} is a path on this machine, which the cluster at {url} does not see"
            for name, value in sorted(local.items())
        ]
        lines.append(
            "Put it in object storage and name that (s3://...); --shared-paths if every node has the same folder there"
        )
        raise UsageError("\n".join(lines))
    changes: dict[str, Any] = {}
    for name, value in local.items():
        field, *deeper = name.split(".", 1)
        if deeper:
            changes[field] = {**changes.get(field, getattr(spec, field)), deeper[0]: _absolute(value)}
        else:
            changes[field] = _absolute(value)
    return spec.model_copy(update=changes)


def _is_place(value: str) -> bool:
    return (
        scheme_of(value) == "file"
        or "/" in value
        or value.endswith((".pth", ".pt", ".pkl", ".safetensors"))
        or os.path.exists(value)
    )


def _absolute(value: str) -> str:
    if value.startswith("file:"):
        return value
    return os.path.abspath(value) + ("/" if value.endswith("/") and value != "/" else "")
