"""The account of a conversion as text: one table of what was kept, approximated, dropped and skipped."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rayseg.formats.conversion import Conversion
from rayseg.views.printable import printable

MAX_MESSAGES = 5
_ORDER = ("kept", "approximated", "dropped", "skipped")


def print_conversion(conversion: Conversion, console: Console | None = None) -> None:
    """Everything on stdout, or on `console`."""
    console = console or Console(highlight=False)
    c = conversion
    heading = f"{c.source_format} {c.source} -> {c.target_format} {c.target}"
    parts: list[RenderableType] = [Text(printable(heading), style="bold"), ""]
    parts += [_table(sorted(c.rows(), key=lambda row: _ORDER.index(row["outcome"]))), ""]
    parts += [Text(printable(message)) for message in c.faults.messages[:MAX_MESSAGES]]
    skipped = c.faults.counts.total()
    if skipped > MAX_MESSAGES:
        parts.append(Text(f"... and {skipped - MAX_MESSAGES:,} more; --report has them"))
    end = "nothing lost" if c.lossless else "not everything came through"
    parts.append(Text(f"{c.images:,} images, {c.annotations:,} annotations in {c.seconds:,.1f} s: {end}"))
    with console.capture() as captured:
        console.print(Group(*parts), markup=False)
    console.file.write(captured.get().encode(console.encoding, "backslashreplace").decode(console.encoding))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("what", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("count", "mean IoU", "least"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason")
    for row in rows:
        ious = ["" if row[name] is None else f"{row[name]:.4f}" for name in ("mean_iou", "min_iou")]
        table.add_row(row["kind"], row["outcome"], f"{row['count']:,}", *ious, Text(printable(row["reason"])))
    return table
