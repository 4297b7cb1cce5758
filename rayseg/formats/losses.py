"""What a conversion keeps, approximates and drops: every kind with its count and its reason.

A writer tells it of everything it writes and of everything its format cannot hold. `rayseg convert` prints it as a
table, writes it as JSON, and with `--strict` refuses to write where `lossless` is false.

Kinds are nouns: "mask", "box", "hole", "part", "ellipse", "polyline", "points", "crowd flag", "score", "group",
"attribute", "id", "class", "class id", "class colour", "supercategory", "image", "image name", "image file", "split", "extra".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Tally:
    count: int = 0
    iou_sum: float = 0.0
    iou_count: int = 0
    iou_min: float = 1.0


@dataclass(slots=True)
class Losses:
    """Counts by kind; `stays`, `approximated` and `dropped` by (kind, reason)."""

    kept_counts: dict[str, int] = field(default_factory=dict)
    stay_counts: dict[tuple[str, str], int] = field(default_factory=dict)
    approximations: dict[tuple[str, str], _Tally] = field(default_factory=dict)
    drops: dict[tuple[str, str], _Tally] = field(default_factory=dict)

    def kept(self, kind: str, count: int = 1) -> None:
        """`count` of this kind are written exactly as they came."""
        self.kept_counts[kind] = self.kept_counts.get(kind, 0) + count

    def stays(self, kind: str, reason: str) -> None:
        """One is kept, though not in what is written: `reason` says where, and how it is found again."""
        self.stay_counts[kind, reason] = self.stay_counts.get((kind, reason), 0) + 1

    def approximated(self, kind: str, reason: str, iou: float | None = None) -> None:
        """One is written, but not exactly; `iou` of its mask against the original where pixels tell."""
        tally = self.approximations.setdefault((kind, reason), _Tally())
        tally.count += 1
        if iou is not None:
            tally.iou_sum += iou
            tally.iou_count += 1
            tally.iou_min = min(tally.iou_min, iou)

    def dropped(self, kind: str, reason: str, count: int = 1) -> None:
        """`count` of this kind are not written."""
        self.drops.setdefault((kind, reason), _Tally()).count += count

    @property
    def lossless(self) -> bool:
        """Nothing was approximated or dropped."""
        return not self.approximations and not self.drops

    def rows(self) -> list[dict[str, Any]]:
        """One dict per line of the report: `kind`, `outcome`, `count`, `reason`, `mean_iou`, `min_iou`."""
        rows: list[dict[str, Any]] = [
            {"kind": kind, "outcome": "kept", "count": count, "reason": reason, "mean_iou": None, "min_iou": None}
            for (kind, reason), count in (
                {(kind, ""): n for kind, n in self.kept_counts.items()} | self.stay_counts
            ).items()
        ]
        for outcome, tallies in (("approximated", self.approximations), ("dropped", self.drops)):
            for (kind, reason), tally in tallies.items():
                mean = tally.iou_sum / tally.iou_count if tally.iou_count else None
                least = tally.iou_min if tally.iou_count else None
                rows.append(
                    {
                        "kind": kind,
                        "outcome": outcome,
                        "count": tally.count,
                        "reason": reason,
                        "mean_iou": mean,
                        "min_iou": least,
                    }
                )
        return rows
