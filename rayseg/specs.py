"""From a YAML file and `key=value` words to a checked spec.

A spec is a frozen pydantic model that lives beside its owner (`label/spec.py` ...); this module knows how to fill any of
them and how to say what is wrong: the field, the given value, what is allowed, the nearest key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rayseg.errors import UsageError


class Spec(BaseModel):
    """Base of every spec: frozen; an unknown key is an error, and so is a value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


SpecT = TypeVar("SpecT", bound=Spec)


def build(spec_type: type[SpecT], file: str | None, words: Iterable[str], flags: Mapping[str, Any]) -> SpecT:
    """A spec from a YAML `file`, then dotted `key=value` `words`, then `flags` that are not None; later ones win.

    Raises `UsageError` naming the field, the given value and what is allowed.
    """
    return validate(spec_type, gather(file, words, flags))


def gather(file: str | None, words: Iterable[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of which `build` makes a spec, before anything is known of its kind. Raises `UsageError`."""
    values = _read_yaml(file) if file else {}
    for word in words:
        key, value = _split_word(word)
        assign(values, key.split("."), value)
    values.update({key: value for key, value in flags.items() if value is not None})
    return values


def validate(spec_type: type[SpecT], values: Mapping[str, Any]) -> SpecT:
    """`values` as a spec, or `UsageError` with one line per fault."""
    try:
        return spec_type.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(spec_type, fault) for fault in error.errors()]
        raise UsageError("\n".join(lines)) from None


def _read_yaml(file: str) -> dict[str, Any]:
    path = Path(file)
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"spec {file}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"spec {file}: not YAML: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"spec {file}: expected keys and values, found {type(loaded).__name__}")
    if "schema_version" in loaded and isinstance(loaded.get("spec"), dict):  # the job.json of a run, to repeat it
        loaded = loaded["spec"]
    return {str(key): value for key, value in loaded.items()}


def _split_word(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UsageError(f"{word!r}: expected key=value")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        return key, text


def assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value at the end of a path of keys. Raises `UsageError` where one of them holds a plain value."""
    for name in path[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{'.'.join(path)}: {name} is a plain value ({inner!r}), it has no keys")
        values = inner
    values[path[-1]] = value


def _explain(spec_type: type[Spec], fault: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        names = _keys_beside(spec_type, fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]), names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(names))}"
        return f"{field}: no such key; {hint}"
    if fault["type"] == "missing":
        return f"{field}: is required (--{field.replace('_', '-')} or {field}=...)"
    return f"{field}: {fault['msg'][0].lower()}{fault['msg'][1:]}, found {fault['input']!r}"


def _keys_beside(spec_type: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    for name in loc[:-1]:
        field = spec_type.model_fields.get(str(name))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            spec_type = inner
    return list(spec_type.model_fields)
