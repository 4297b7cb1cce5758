"""What callers ask of batches, checked, and what they are told of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayseg.errors import StorageError, UsageError
from rayseg.outputs.spec import OutputSpec
from rayseg.serve.batch_run import BatchRun
from rayseg.serve.batch_store import BatchRecord, BatchStore
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem, busy
from rayseg.serve.service import ModelFacts, chosen
from rayseg.serve.spec import ServeSpec
from rayseg.storage.entry import scheme_of
from rayseg.storage.local import path_of

OPTIONS = ("score_threshold", "iou_threshold", "max_detections", "limit", "column", "images_root")
_log = logging.getLogger("rayseg.serve")


@dataclass(frozen=True)
class BatchRequest:
    """What a caller asks for. `images` is a prefix, glob or list, or the images themselves; options as `OutputSpec`'s."""

    images: str | Sequence[str]
    out: str
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Asking:
    """From requests to outputs; lists of images are put into `store`. Reads and writes no other storage."""

    def __init__(self, spec: ServeSpec, facts: Mapping[str, ModelFacts], prefixes: Prefixes, store: BatchStore) -> None:
        self._spec, self._facts, self._prefixes, self._store = spec, facts, prefixes, store
        local = scheme_of(store.uri) in ("", "file")
        self._records = os.path.realpath(path_of(store.uri)) if local else store.uri

    def model(self, name: str | None) -> ModelFacts:
        """The named model, or the default. Raises a `Problem` for one that there is not."""
        return chosen(self._facts, name)

    def output_spec(self, request: BatchRequest, model: ModelFacts) -> OutputSpec:
        """What the output shall be. Raises a `Problem` for URIs outside and for what contradicts itself."""
        options = dict(request.options)
        if options.get("images_root") is not None:
            options["images_root"] = self._prefixes.readable(options["images_root"])
        out = self._prefixes.writable(request.out).rstrip("/")
        if overlap(out, self._records):
            raise Problem(403, "uri-not-allowed", "out: the records of batches lie there; give another folder")
        spec = OutputSpec(
            images=self._images(request.images),
            model=model.uri,
            out=out,
            max_pixels=self._spec.max_pixels,
            max_bytes=self._spec.max_body_bytes,
            **options,
        )
        try:
            spec.check_apart()
        except UsageError as error:
            raise Problem(422, "bad-request", str(error)) from None
        return spec

    def _images(self, images: str | Sequence[str]) -> str:
        if isinstance(images, str):
            allowed = self._prefixes.readable(images)
            return f"{allowed.rstrip('/')}/" if images.endswith("/") else allowed
        return self._store.put_list([self._prefixes.readable(image) for image in images])


def described(record: BatchRecord, run: BatchRun | None) -> dict[str, Any]:
    """A batch as callers see it; `run` is what is going on here and now."""
    spec = record.spec
    found: dict[str, Any] = {
        "id": record.id,
        "state": record.state if run is None else run.state,
        "model": record.model,
        "images": spec.get("images", ""),
        "out": spec.get("out", ""),
        "options": {name: spec[name] for name in OPTIONS if spec.get(name) is not None},
        "created": record.created,
        "finished": record.finished,
        "total": record.total,
        "done": record.done,
        "failed": record.failed,
        "rate": None,
        "eta_s": None,
        "error": record.error if run is None else run.error,
    }
    if run is not None and run.meter is not None:
        now = run.meter.snapshot()
        found |= {"total": now.total, "done": now.stored, "failed": now.failed, "rate": now.rate, "eta_s": now.eta_s}
    return found


def counts(run: BatchRun) -> dict[str, Any]:
    """What a batch has come to, as its record has it."""
    if run.meter is None:
        return {}
    return {"total": run.meter.total, "done": run.meter.stored, "failed": run.meter.failed}


def overlap(a: str, b: str) -> bool:
    """Whether one of two folders lies in the other, or is it."""
    a, b = a.rstrip("/") + "/", b.rstrip("/") + "/"
    return a.startswith(b) or b.startswith(a)


def unstored(error: StorageError) -> Problem:
    """The answer where the records' store fails."""
    _log.error("the records of batches", extra={"fields": {"error": str(error)}})
    return busy("the store that holds the records of batches does not answer; try again", 5)
