"""What did not fit, in sentences for people: left out, passed over, taken for something spelled otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from rayseg.evaluation.predictions import Counts
from rayseg.evaluation.truth import Truth
from rayseg.formats.faults import Faults

_SHOWN = 5


def problems_of(truth: Truth, counts: Counts, reading: Faults | None, faults: Faults, notes: Faults) -> tuple[str, ...]:
    """One sentence for each thing worth knowing before the numbers are believed."""
    said: list[str] = []
    if counts.predictions == 0:
        said.append("There are no predictions.")
    if counts.other_images:
        said.append(
            f"{_many(counts.other_images, 'prediction')} left out: of images that the ground truth does not have"
            f"{_first(notes.messages)}."
        )
    if counts.unknown_classes:
        names = _listed(f"{name!r} ({count:,})" for name, count in sorted(counts.unknown_classes.items()))
        said.append(
            f"{_many(counts.other_classes, 'prediction')} left out: of classes the ground truth lacks: {names}."
        )
    if counts.copies:
        are = "is an exact copy" if counts.copies == 1 else "are exact copies"
        said.append(f"{_many(counts.copies, 'prediction')} {are} of another: counted as false, as pycocotools does.")
    if counts.images_without_row:
        said.append(
            f"{_many(counts.images_without_row, 'image')} of the ground truth not labelled: taken as nothing found."
        )
    if counts.failed_images:
        said.append(f"{_many(counts.failed_images, 'image')} could not be labelled and have no predictions.")
    if truth.classes.near:
        pairs = _listed(f"{ours!r} as {theirs!r}" for ours, theirs in truth.classes.near.items())
        said.append(f"Class names taken for one another though spelled differently: {pairs}.")
    if counts.class_names is not None:
        said += _classes_nobody_predicts(truth, counts.class_names)
    for passed_over in (reading, faults):
        said += _passed_over(passed_over)
    return tuple(said)


def _classes_nobody_predicts(truth: Truth, class_names: tuple[str, ...]) -> list[str]:
    known = {truth.classes.find(name) for name in class_names}
    missing = [repr(name) for k, name in enumerate(truth.classes.names) if k not in known]
    return (
        [f"The model does not know {_many(len(missing), 'class', 'classes')}: {_listed(missing)}."] if missing else []
    )


def _passed_over(faults: Faults | None) -> list[str]:
    if faults is None or not faults.counts:
        return []
    kinds = ", ".join(f"{count:,} of kind {kind!r}" for kind, count in sorted(faults.counts.items()))
    return [f"Passed over because broken: {kinds}{_first(faults.messages)}."]


def _first(messages: list[str]) -> str:
    return f" (first: {messages[0]})" if messages else ""


def _listed(names: Iterable[str]) -> str:
    words = list(names)
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _many(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"
