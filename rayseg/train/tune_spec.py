"""What a search for a better training spec is asked to do."""

from __future__ import annotations

import copy
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from rayseg import specs
from rayseg.specs import Spec
from rayseg.train.spec import TrainSpec

Limits = Annotated[tuple[float, float], Field(strict=False)]
_KINDS = ("choice", "uniform", "loguniform", "integers")
_SHARED = frozenset(
    {"data", "data_format", "images", "split", "val", "val_format", "val_images", "val_split", "on_error", "metric"}
)


class Search(Spec):
    """The values that a field may take: exactly one of these."""

    choice: tuple[Any, ...] | None = Field(None, strict=False, description="one of these")
    uniform: Limits | None = Field(None, description="any number from low to high")
    loguniform: Limits | None = Field(None, description="the same, small ones as often as large ones")
    integers: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        None, description="low to high, both included"
    )

    @model_validator(mode="after")
    def _checked(self) -> Search:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(_KINDS)}; found {', '.join(given) or 'none'}")
        limits = getattr(self, given[0])
        if given[0] == "choice" and not limits:
            raise ValueError("expected at least one value to choose from")
        if given[0] != "choice" and not (limits[0] < limits[1] and (given[0] != "loguniform" or limits[0] > 0)):
            raise ValueError(f"{given[0]}: expected [low, high] with low < high, and above 0 for loguniform")
        return self

    def example(self) -> Any:
        """One of the values."""
        return next(value[0] for name in _KINDS if (value := getattr(self, name)) is not None)


class TuneSpec(Spec):
    """Trials of one training spec, some of its fields drawn anew for each; poor ones end early."""

    train: dict[str, Any] = Field(description="the training spec, as in jobs/train.yaml, without out")
    search: dict[str, Search] = Field(description="dotted field of it: what to draw it from")
    out: str = Field(description="output folder, local or s3://: best.yaml, trials.csv and the trials")
    trials: int = Field(16, ge=1)
    at_once: int | None = Field(None, ge=1, description="trials that run at a time; none: as many as there is room for")
    grace: int = Field(2, ge=1, description="evaluations that every trial is granted (ASHA)")
    reduction: int = Field(3, ge=2, description="of so many trials that come as far one goes on (ASHA)")
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float | None = Field(None, ge=0, description="none: 1 where the cluster has GPUs")
    seed: int = Field(0, ge=0, description="of the draws")
    address: str | None = Field(None, description="Ray cluster; none: $RAY_ADDRESS, else this machine")

    @field_validator("search", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return dict(_flattened(value)) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _checked(self) -> TuneSpec:
        if not self.search:
            raise ValueError("search: expected at least one field to draw")
        for name in self.search:
            if name in _SHARED:
                raise ValueError(
                    f"search.{name}: cannot be drawn: trials are compared on the same data, by the same metric"
                )
        if not self.train.get("val"):
            raise ValueError("train.val is required: trials are compared by their AP on it")
        return self

    def training(self, drawn: dict[str, Any], out: str) -> TrainSpec:
        """The spec of a trial. Raises `UsageError` for a field that there is not, or a value that cannot be."""
        return specs.validate(TrainSpec, self.fields(drawn) | {"out": out})

    def fields(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """The fields of the training spec with what was drawn in their places, without `out`."""
        values: dict[str, Any] = {key: value for key, value in copy.deepcopy(self.train).items() if key != "out"}
        for name, value in drawn.items():
            specs.assign(values, name.split("."), value)
        return values


def _flattened(values: dict[str, Any], prefix: str = "") -> Any:
    """Fields with dots, where they came as nested keys."""
    for key, value in values.items():
        inner = isinstance(value, dict) and value and not set(value) & set(_KINDS)
        yield from _flattened(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
