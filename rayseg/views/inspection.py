"""An inspection as text: tables with rich, histograms as bars of characters.

Names and messages come from outside: what does not print is spelled out, and nothing in them is taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rayseg.datasets.findings import KINDS
from rayseg.datasets.inspection import Inspection
from rayseg.datasets.statistics import ClassCount, Statistics
from rayseg.views.printable import printable

MAX_CLASSES = 40
MAX_MESSAGES = 5
_BAR, _SHORT_BAR = 24, 16  # characters of the longest bar
_EIGHTHS = "▏▎▍▌▋▊▉█"


def print_inspection(inspection: Inspection, title: str, console: Console | None = None) -> None:
    """Everything on stdout, or on `console`; long lists are cut and say so."""
    console = console or Console(highlight=False)
    ascii_only = console.options.ascii_only
    statistics = inspection.statistics
    parts: list[RenderableType] = [Text(printable(title), style="bold"), _summary(statistics), ""]
    parts += [_classes(statistics, ascii_only), ""]
    for heading, rows in histograms(statistics):
        parts += [_histogram(heading, rows, ascii_only), ""]
    parts += _findings(inspection)
    with console.capture() as captured:
        console.print(Group(*parts), markup=False)
    console.file.write(_encodable(captured.get(), console.encoding))


def _encodable(text: str, encoding: str) -> str:
    """The text with what a terminal's encoding lacks spelled out."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("…", ".").encode(encoding, "backslashreplace").decode(encoding)
    return text


def summary_rows(statistics: Statistics) -> list[tuple[str, str]]:
    """(what, how many) in words."""
    s = statistics
    rows = [("images", f"{s.images:,}" + (f", {s.empty_images:,} without annotations" if s.empty_images else ""))]
    if any(s.splits):
        rows.append(("splits", _listed((name or "(none)", count) for name, count in sorted(s.splits.items()))))
    rows.append(("instances", f"{s.instances:,}" + _aside(crowds=s.crowds, with_scores=s.scored)))
    if s.instances:
        parts = _aside(of_several_parts=s.with_parts, with_holes=s.with_holes)
        rows.append(("shapes", _listed(s.shapes.most_common()) + parts))
    used = sum(one.instances > 0 for one in s.classes)
    rows.append(("classes", f"{len(s.classes):,}" + (f", {used:,} of them used" if used < len(s.classes) else "")))
    if s.attributes:
        rows.append(("attributes", _listed(s.attributes.most_common(10))))
    if s.sizes:
        rows.append(("image sizes", _sizes(s)))
    return rows


def histograms(statistics: Statistics) -> list[tuple[str, list[tuple[str, int]]]]:
    """(heading, rows of (label, count)) of those that hold anything."""
    found = [
        ("object size, square root of the area in pixels", statistics.side_px.rows()),
        ("instances per image", statistics.instances_per_image.rows()),
        ("longer side of the image in pixels", statistics.image_side_px.rows()),
    ]
    return [(heading, rows) for heading, rows in found if rows]


def by_frequency(classes: Sequence[ClassCount]) -> list[ClassCount]:
    """The classes with most instances first."""
    return sorted(classes, key=lambda one: -one.instances)


# ---- pieces


def _summary(statistics: Statistics) -> Table:
    table = Table.grid(padding=(0, 2))
    for what, words in summary_rows(statistics):
        table.add_row(Text(what, style="dim"), Text(printable(words)))
    return table


def _classes(statistics: Statistics, ascii_only: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("class", overflow="fold", max_width=40)
    for name in ("instances", "images", "small", "medium", "large"):
        table.add_column(name, justify="right")
    table.add_column("")
    ordered = by_frequency(statistics.classes)
    most = max((one.instances for one in ordered), default=0)
    for one in ordered[:MAX_CLASSES]:
        numbers = [f"{value:,}" for value in (one.instances, one.images, one.small, one.medium, one.large)]
        table.add_row(Text(printable(one.name)), *numbers, bar(one.instances, most, ascii_only, _SHORT_BAR))
    if len(ordered) > MAX_CLASSES:
        rest = ordered[MAX_CLASSES:]
        table.add_row(Text(f"{len(rest):,} more classes", style="dim"), f"{sum(one.instances for one in rest):,}")
    return table


def _histogram(heading: str, rows: list[tuple[str, int]], ascii_only: bool) -> Table:
    table = Table(
        box=None, padding=(0, 2, 0, 0), title=heading, title_style="dim", title_justify="left", show_header=False
    )
    table.add_column(justify="right", min_width=16)
    table.add_column(justify="right")
    table.add_column()
    most = max(count for _, count in rows)
    for label, count in rows:
        table.add_row(label, f"{count:,}", bar(count, most, ascii_only))
    return table


def bar(count: int, most: int, ascii_only: bool = False, length: int = _BAR) -> str:
    """A bar of up to `length` characters; every count above 0 shows."""
    eighths = max(round(count * length * 8 / most), 1) if count else 0
    if ascii_only:
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def _findings(inspection: Inspection) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for kind, count, examples in inspection.findings.rows():
        lines.append(Text.assemble((f"{count:,} x {kind}", "bold"), (f"  {KINDS[kind]}", "dim")))
        lines += _messages([" ".join(filter(None, (one.image, one.item, one.message))) for one in examples], count)
    if inspection.faults:
        counts = _listed(inspection.faults.most_common())
        lines.append(Text.assemble(("passed over while reading", "bold"), f"  {printable(counts)}"))
        lines += _messages(inspection.fault_messages, inspection.faults.total())
    if not lines:
        lines.append(Text("nothing found", style="bold"))
    if not inspection.pixels_seen:
        lines.append(Text("near duplicates were not looked for", style="dim"))
    return lines


def _messages(messages: Sequence[str], count: int) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"  {printable(message)}") for message in messages[:MAX_MESSAGES]]
    if count > len(lines):
        lines.append(Text(f"  and {count - len(lines):,} more", style="dim"))
    return lines


def _sizes(statistics: Statistics) -> str:
    sizes = statistics.sizes
    shown = ", ".join(f"{w} x {h} ({count:,})" for (h, w), count in sizes.most_common(3))
    if len(sizes) > 3:
        least, most = (pick(sizes, key=lambda hw: (hw[0] * hw[1], hw)) for pick in (min, max))
        shown += f", {len(sizes) - 3:,} more from {least[1]} x {least[0]} to {most[1]} x {most[0]}"
    return shown + (f"; {statistics.unknown_sizes:,} unknown" if statistics.unknown_sizes else "")


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts)


def _aside(**counts: int) -> str:
    return "".join(f", {count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
