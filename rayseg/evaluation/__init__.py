"""Evaluation: COCO's metrics and what explains them. `evaluate(dataset, predictions)` gives `Metrics`.

evaluate   all of it, from a data set and predictions of any format
compare    two evaluations of one data set, and whether they differ by more than chance
coco       the twelve numbers alone, of dicts in memory, as training and the demo want them
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayseg.evaluation.comparison import compare as compare
    from rayseg.evaluation.metrics import Metrics as Metrics
    from rayseg.evaluation.run import evaluate as evaluate
    from rayseg.evaluation.spec import EvalSpec as EvalSpec

_HOMES = {"compare": "comparison", "Metrics": "metrics", "evaluate": "run", "EvalSpec": "spec"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
