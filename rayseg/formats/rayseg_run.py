"""A label run's output as a data set with scores: one image per row, in the order of the plan's parts.

Only parts that count are read: those that `manifest.json` names. Of a run that is not finished, which is a fault of kind
"run", those that its next driver would count: what the last epoch accepted, and of what it wrote itself the parts that
cover no ordinal twice, by name.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.errors import ObjectNotFound
from rayseg.formats import data_paths, shapes
from rayseg.formats.faults import BadAnnotation, Faults, Unusable
from rayseg.formats.parts import BrokenPart, PartFooter, read_footers, read_part
from rayseg.formats.rayseg_columns import NAME

_PART = re.compile(r"part-(\d{4,})-(\d{12,})-([0-9a-f]{8})\.parquet")
_EPOCH = re.compile(r"(\d{4,})\.json")
_START = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:)?/*")  # a scheme, and the slashes after it


def is_run(names: Sequence[str]) -> bool:
    """Whether `names` are those of a label run's output."""
    return "job.json" in names or ("manifest.json" in names and any(_part_match(name) for name in names))


def read_run(uri: str, images: str | None, faults: Faults) -> Dataset:
    """The output at `uri` as a data set. Its rows are read as they are asked for, a part at a time."""
    manifest = _json(uri, "manifest.json")
    record = manifest if manifest is not None else _json(uri, "job.json") or {}
    model, spec = record.get("model"), record.get("spec")
    names = model.get("class_names") if isinstance(model, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadAnnotation(uri, "expected a label run whose manifest.json or job.json names the model's classes")
    if manifest is None:
        faults.add(
            uri, "run", "manifest.json", "is not there: the run is not finished, the same `rayseg label` goes on"
        )
        parts = _countable(uri)
    else:
        parts = _named(uri, manifest)
    prefix = spec.get("images") if isinstance(spec, dict) else None
    info = {NAME: {key: record[key] for key in ("model", "spec", "versions") if key in record}}
    rows = _Rows(uri, _by_ordinal(parts), prefix if isinstance(prefix, str) else "", images, names, faults)
    return Dataset(tuple(Category(name) for name in names), rows, info, faults)


class _Rows:
    """The images of the parts `names`."""

    def __init__(self, uri: str, names: list[str], prefix: str, images: str | None, classes: list[str], faults: Faults):
        self._uri, self._names, self._classes, self._faults = uri, names, classes, faults
        self._prefix, self._images = prefix.rstrip("/") + "/", images
        self._early = list(faults.messages), faults.counts.copy()

    def __iter__(self) -> Iterator[AnnotatedImage]:
        messages, counts = self._early
        self._faults.messages[:] = messages
        self._faults.counts.clear()
        self._faults.counts.update(counts)
        for name in self._names:
            uri = storage.join(self._uri, "data", name)
            try:
                table = read_part(uri)
            except BrokenPart as error:
                raise BadAnnotation(uri, str(error).removeprefix(f"{uri}: ")) from None
            yield from self._part_images(uri, table)

    def _part_images(self, uri: str, table: pa.Table) -> Iterator[AnnotatedImage]:
        lists = table["instances"].combine_chunks()
        flat = lists.flatten()
        columns = zip(
            flat.field("category_id").to_pylist(),
            flat.field("score").to_pylist(),
            flat.field("bbox").to_pylist(),
            flat.field("rle").to_pylist(),
            strict=True,
        )
        counts = lists.value_lengths().fill_null(0).to_pylist()
        for row, (values, count) in enumerate(zip(table.drop_columns(["instances"]).to_pylist(), counts, strict=True)):
            found = list(itertools.islice(columns, count))
            try:
                image, image_hw = self._image(values)
            except ValueError as error:
                self._faults.add(uri, "image", f"row {row}", str(error))
                continue
            annotations = []
            for number, instance in enumerate(found):
                try:
                    annotations.append(self._annotation(*instance, image_hw))
                except Unusable as error:
                    self._faults.add(uri, error.kind, f"row {row}, instance {number}", str(error))
            yield dataclasses.replace(image, annotations=tuple(annotations))

    def _image(self, values: dict[str, Any]) -> tuple[AnnotatedImage, tuple[int, int] | None]:
        uri, height, width = values["uri"], values["height"], values["width"]
        if uri is None:
            raise ValueError("expected a uri, found null")
        image_hw = None if height is None or width is None else (height, width)
        if image_hw is not None and (reason := shapes.hw_fault(image_hw)):
            raise ValueError(reason)
        name = data_paths.inside(_START.sub("", uri.removeprefix(self._prefix)))
        extras: dict[str, Any] = {"ordinal": values["ordinal"]}
        if values["error"] is not None:
            extras["error"] = values["error"]
        if self._images is not None:
            uri = data_paths.at(self._images, name)
        return AnnotatedImage(name, uri, image_hw, extras={NAME: extras}), image_hw

    def _annotation(
        self, category: int | None, score: float | None, bbox: Any, rle: str | None, image_hw: tuple[int, int] | None
    ) -> Annotation:
        if category is None or not 0 <= category < len(self._classes):
            raise Unusable("category", f"expected a category_id of 0 to {len(self._classes) - 1}, found {category}")
        if rle is None or image_hw is None:
            raise Unusable("mask", "expected an rle, a height and a width, found null")
        if bbox is None or None in bbox:
            raise Unusable("box", f"expected a bbox of four numbers, found {bbox}")
        x, y, width, height = bbox
        shape = Mask(rle.encode("ascii", "replace"), image_hw)
        annotation = Annotation(category, (x, y, x + width, y + height), shape, score=score)
        if fault := shapes.fault(annotation, image_hw):
            raise Unusable(*fault)
        return annotation


# ---- which parts count


def _named(uri: str, manifest: dict[str, Any]) -> list[str]:
    try:
        names = [part["name"] for part in manifest["parts"]]
        if all(_part_match(name) for name in names):
            return names
    except (KeyError, TypeError):
        pass
    raise BadAnnotation(uri, "expected a manifest.json that names the parts of a label run")


def _countable(uri: str) -> list[str]:
    """The parts that the next driver of an unfinished run would count."""
    last, accepted = _last_epoch(uri)
    listed = {name for name in _listed(uri, "data") if _part_match(name)}
    fresh = sorted(name for name in listed - accepted if int(name.split("-")[1]) == last)
    taken: list[str] = []
    ranges = np.empty((0, 2), np.int64)
    candidates = [*sorted(accepted & listed), *fresh]
    for footer in read_footers([storage.join(uri, "data", name) for name in candidates]):
        if isinstance(footer, PartFooter) and not _overlap(ranges, footer.ranges):
            ranges = np.concatenate([ranges, footer.ranges])
            taken.append(footer.name)
    return taken


def _overlap(ranges: np.ndarray, more: np.ndarray) -> bool:
    """Whether half-open ranges (K, 2) and (L, 2), each apart from one another, share an ordinal."""
    ordered = ranges[np.argsort(ranges[:, 0])]
    place = np.searchsorted(ordered[:, 0], more[:, 1])  # ranges that begin before the end of each
    return bool(((place > 0) & (np.append(ordered[:, 1], 0)[place - 1] > more[:, 0])).any())


def _last_epoch(uri: str) -> tuple[int, set[str]]:
    epochs = [(int(match[1]), name) for name in _listed(uri, "epochs") if (match := _EPOCH.fullmatch(name))]
    if not epochs:
        return 0, set()
    last, name = max(epochs)
    record = _json(uri, "epochs", name) or {}
    accepted = record.get("accepted")
    return last, {one for one in accepted if isinstance(one, str)} if isinstance(accepted, list) else set()


def _by_ordinal(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: int(name.split("-")[2]))


def _part_match(name: Any) -> bool:
    return isinstance(name, str) and _PART.fullmatch(name.rpartition("/")[2]) is not None


def _listed(uri: str, folder: str) -> Iterator[str]:
    try:
        for page in storage.list_pages(storage.join(uri, folder)):
            for entry in page:
                yield entry.uri.rpartition("/")[2]
    except ObjectNotFound:
        return


def _json(uri: str, *names: str) -> dict[str, Any] | None:
    try:
        record = json.loads(storage.read(storage.join(uri, *names)))
    except ObjectNotFound:
        return None
    except (ValueError, RecursionError) as error:
        raise BadAnnotation(storage.join(uri, *names), f"expected a JSON object: {error}") from None
    if not isinstance(record, dict):
        raise BadAnnotation(storage.join(uri, *names), f"expected a JSON object, found {type(record).__name__}")
    return record
