"""What `verify` found, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rayseg.formats.parts import COUNT_KEYS

MAX_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong where: `file` below the output, `row` in it counted from 0, None for the file as a whole."""

    file: str
    row: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" if self.row is None else f"{self.file}: row {self.row}: {self.what}"


@dataclass(slots=True)
class Report:
    """What was found. `faults` are the first of the `fault_count` there are; `complete`: there is a manifest."""

    out: str
    complete: bool
    inputs: int
    parts: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNT_KEYS, 0))
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0
    max_faults: int = MAX_FAULTS

    @property
    def ok(self) -> bool:
        """True when the output is complete and without a fault."""
        return self.complete and not self.fault_count

    @property
    def room(self) -> int:
        """How many more faults are kept and not only counted."""
        return max(0, self.max_faults - len(self.faults))

    def add(self, fault: Fault) -> None:
        """Count `fault`, and keep it while there is room."""
        self.fault_count += 1
        if self.room:
            self.faults.append(fault)

    def text(self) -> str:
        """The report as lines for a person."""
        found = {key: f"{value:,}" for key, value in self.counts.items()}
        lines = [str(fault) for fault in self.faults]
        if self.fault_count > len(self.faults):
            lines.append(f"... and {self.fault_count - len(self.faults):,} more faults")
        verdict = (
            f"whole: each of {self.inputs:,} inputs has exactly one row and every mask is valid"
            if self.ok
            else f"NOT whole: {self.fault_count:,} faults"
        )
        lines.append(f"{self.out}: {verdict}")
        lines.append(
            f"{found['rows']} rows in {self.parts:,} parts: {found['labelled']} labelled with {found['instances']} "
            f"instances, {found['empty']} empty, {found['failed']} failed"
        )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"ok": self.ok, **asdict(self)}
