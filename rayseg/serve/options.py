"""What a prediction may be asked to differ in, checked; `NAMES` are the query parameters of /v1/predict."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rayseg.models.thresholds import Thresholds
from rayseg.serve.problems import Problem

Masks = Literal["rle", "polygons", "png", "none"]
Form = Literal["json", "overlay"]
MOST_DETECTIONS = 1000
NAMES = ("model", "score_threshold", "iou_threshold", "max_detections", "classes", "masks")


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """None leaves the model's own setting; `classes` are ids, () for all."""

    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    classes: tuple[int, ...] = ()
    masks: Masks = "rle"
    form: Form = "json"

    def thresholds(self, own: Thresholds) -> Thresholds:
        """The model's `own` with what is asked for. Where classes are chosen, the cut to the best comes after that."""
        most = self.max_detections
        if most is None or (self.classes and most < own.max_detections):
            most = own.max_detections
        return Thresholds(
            own.score if self.score_threshold is None else self.score_threshold,
            own.iou if self.iou_threshold is None else self.iou_threshold,
            most,
            own.mask,
        )


def class_ids(text: str | None, class_names: Sequence[str]) -> tuple[int, ...]:
    """The ids of comma-separated names. Raises a `Problem` that names the nearest one."""
    if text is None:
        return ()
    ids, parts = set(), text.split(",")
    longest = 1 + max((name.count(",") for name in class_names), default=0)  # a name may have commas itself
    while parts:
        names = (",".join(parts[:count]).strip() for count in range(min(longest, len(parts)), 0, -1))
        name = next((name for name in names if name in class_names), None)
        if name is None:
            unknown = parts[0].strip()
            detail = f"classes: {unknown[:64]!r} is not a class; {_hint(unknown, class_names)}"
            raise Problem(422, "unknown-class", detail)
        ids.add(class_names.index(name))
        del parts[: 1 + name.count(",")]
    return tuple(sorted(ids))


def check_names(given: Iterable[str]) -> None:
    """Raise a `Problem` for a query parameter that there is not."""
    for name in given:
        if name not in NAMES:
            raise Problem(422, "unknown-option", f"{name[:64]!r} is not an option; {_hint(name, NAMES)}")


def _hint(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.strip(), names, n=1)
    return (
        f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:20])}" + (", ..." if names[20:] else "")
    )
