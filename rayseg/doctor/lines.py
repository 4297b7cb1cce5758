"""One finding of the doctor: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """`advice` is empty where all is well; `node` where it is about no node in particular."""

    state: State
    what: str
    found: str
    advice: str = ""
    node: str = ""

    def text(self) -> str:
        where = f" on {self.node}" if self.node else ""
        advice = f"\n      {self.advice}" if self.advice else ""
        return f"{self.state:4}  {self.what}{where}: {self.found}{advice}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(what: str, found: str, node: str = "") -> Line:
    """All is well."""
    return Line("ok", what, found, node=node)


def warn(what: str, found: str, advice: str, node: str = "") -> Line:
    """It works, but not as well as it might, or not for everything."""
    return Line("warn", what, found, advice, node)


def fail(what: str, found: str, advice: str, node: str = "") -> Line:
    """A job would fail, or go wrong."""
    return Line("fail", what, found, advice, node)


def verdict(lines: Iterable[Line]) -> str:
    """All lines in numbers."""
    states = [line.state for line in lines]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("ok", "warn", "fail"))
    return counts + ("" if "fail" in states else ": jobs can run")
