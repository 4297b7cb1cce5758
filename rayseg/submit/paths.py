"""Local paths in a spec: a cluster elsewhere does not see this machine's files."""

from __future__ import annotations

import os

from rayseg.errors import UsageError
from rayseg.specs import Spec
from rayseg.storage.entry import scheme_of

_PLACES = frozenset({"images", "images_root", "out", "data", "val", "val_images", "predictions", "backbone_weights"})
_NAMES_TOO = frozenset({"model", "weights", "teacher"})  # a preset's name, or a place


def local_paths(spec: Spec) -> dict[str, str]:
    """The fields of `spec` that name a place on this machine, and what they say."""
    found = {}
    for name in spec.model_fields_set:
        value = getattr(spec, name)
        if not isinstance(value, str) or not value or scheme_of(value) not in ("", "file"):
            continue
        if name in _PLACES or (name in _NAMES_TOO and _is_place(value)):
            found[name] = value
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
    return spec.model_copy(update={name: _absolute(value) for name, value in local.items()})


def _is_place(value: str) -> bool:
    return (
        scheme_of(value) == "file" or "/" in value or value.endswith((".pth", ".pt", ".pkl")) or os.path.exists(value)
    )


def _absolute(value: str) -> str:
    if value.startswith("file:"):
        return value
    return os.path.abspath(value) + ("/" if value.endswith("/") and value != "/" else "")
