"""Which command a spec file is for, and the spec in it.

A spec says what to do in its fields; no two commands take the same ones. Where the given keys would do for several, the
name of the file decides (`train-large.yaml`), else the caller has to.
"""

from __future__ import annotations

import difflib
import importlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rayseg import specs
from rayseg.errors import UsageError
from rayseg.specs import Spec

SPECS = {
    "label": "rayseg.label.spec:LabelSpec",
    "train": "rayseg.train.spec:TrainSpec",
    "tune": "rayseg.train.tune_spec:TuneSpec",
    "eval": "rayseg.evaluation.spec:EvalSpec",
    "serve": "rayseg.serve.spec:ServeSpec",
}
FLAGS = {"label": ("--overwrite", "--retry-failed"), "train": ("--overwrite",)}
"""What a command takes beside its spec, as far as it makes sense on a cluster."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command and its spec; `given` are the fields that were given, for a rayseg whose specs have other fields."""

    command: str
    spec: Spec | None  # None for a command that takes none

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for, as JSON values, without the address: on the cluster it is the cluster's own."""
        return {} if self.spec is None else self.spec.model_dump(mode="json", exclude_unset=True, exclude={"address"})


def read_job(file: str, words: Iterable[str] = (), command: str | None = None) -> Job:
    """The job in the YAML `file`, changed by `key=value` words.

    Raises `UsageError` for a spec that cannot be, and where it is not clear which command it is for.
    """
    values = specs.gather(file, words, {})
    command = command or command_of(values, file)
    if command not in SPECS:
        near = difflib.get_close_matches(command, SPECS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(SPECS)}"
        raise UsageError(f"--command {command!r}: {hint}")
    return Job(command, specs.validate(spec_type(command), values))


def command_of(values: Mapping[str, Any], file: str) -> str:
    """The command whose spec has all keys of `values`; of several, the one that the file's name begins with."""
    named = _named(file)
    fitting = [name for name in SPECS if _fits(values, spec_type(name))]
    if named in fitting or (named and not fitting):
        return named
    if len(fitting) == 1:
        return fitting[0]
    found = f"could be for {' or '.join(fitting)}" if fitting else f"is for none of {', '.join(SPECS)}"
    raise UsageError(f"{file}: {found}: say which with --command, or begin the file's name with it")


def spec_type(command: str) -> type[Spec]:
    """The spec that `command` takes."""
    module, _, name = SPECS[command].partition(":")
    return getattr(importlib.import_module(module), name)


def _fits(values: Mapping[str, Any], kind: type[Spec]) -> bool:
    fields = kind.model_fields
    return fields.keys() >= values.keys() and all(
        name in values for name, field in fields.items() if field.is_required()
    )


def _named(file: str) -> str | None:
    """The command that the file's name begins with: `eval-2.yaml` and `evaluate.yaml` are for eval."""
    word = re.split(r"[^a-z]", posixpath.basename(file).lower(), maxsplit=1)[0]
    return next((name for name in SPECS if word.startswith(name)), None)
