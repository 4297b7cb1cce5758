"""The tables of an evaluation's report, from what `metrics.json` holds. What is undefined is shown as "n/a".

Everything that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Values = Mapping[str, Any]

MEASURE_NAMES = {"segm": "Mask", "boundary": "Boundary", "bbox": "Box"}
_UNDEFINED = '<span class="na">n/a</span>'


def number(value: float | None, digits: int = 3) -> str:
    """A fraction to so many digits; "n/a" for None."""
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def interval(value: Sequence[float] | None) -> str:
    """Both ends of an interval; nothing for None."""
    return "" if value is None else f"{value[0]:.3f} – {value[1]:.3f}"


def headline(metrics: Values) -> str:
    """The few numbers that are looked at first, as cards."""
    cards = []
    for measure, name in MEASURE_NAMES.items():
        values = metrics.get(measure)
        if values:
            ranges = metrics["intervals"].get(measure, {})
            cards.append(
                (f"{name} AP", number(values["AP"]), interval(ranges.get("AP")), measure == metrics["primary"])
            )
    primary = metrics[metrics["primary"]]
    cards.append(
        ("AP50", number(primary["AP50"]), interval(metrics["intervals"].get(metrics["primary"], {}).get("AP50")), False)
    )
    cards.append(("Mean IoU of matches", number(metrics["mean_iou_of_matches"][metrics["primary"]]), "", False))
    panoptic = metrics["panoptic"]
    if panoptic["pq"] is not None:
        parts = f"SQ {number(panoptic['sq'])}, RQ {number(panoptic['rq'])}"
        cards.append(("Panoptic quality", number(panoptic["pq"]), parts, False))
    threshold = metrics["best_score_threshold"]
    cards.append(("Best score threshold", number(threshold, 2), "by F1 over all classes", False))
    cards.append(("Calibration error", number(metrics["calibration"]["ece"]), "expected, over 10 bins", False))
    return '<dl class="cards">' + "".join(_card(*card) for card in cards) + "</dl>"


def _card(title: str, value: str, below: str, first: bool) -> str:
    small = f"<dd class='below'>{below}</dd>" if below else ""
    return f'<div class="card{" first" if first else ""}"><dt>{escape(title)}</dt><dd>{value}</dd>{small}</div>'


def twelve(metrics: Values) -> str:
    """All twelve numbers of each measure."""
    measures = [name for name in MEASURE_NAMES if metrics.get(name)]
    names = list(metrics[measures[0]])
    rows = ([MEASURE_NAMES[measure], *(number(metrics[measure][name]) for name in names)] for measure in measures)
    return table(["", *names], rows, caption="COCO's twelve metrics")


def classes(metrics: Values) -> str:
    """One row per class; columns can be sorted by."""
    primary = metrics["primary"]
    last = next(name for name in reversed(list(metrics[primary])) if name.startswith("AR") and name[2:].isdigit())
    columns = ["class", "truths", "found", "AP", "interval", "AP50", "AP75", last, "IoU", "best score", "F1"]
    columns += ["precision", "recall"]
    with_pq = metrics["panoptic"]["pq"] is not None
    rows = []
    for name, one in metrics["classes"].items():
        values = one[primary]
        rows.append(
            [
                escape(name),
                f"{one['truths']:,}",
                f"{one['predictions']:,}",
                number(values["AP"]),
                interval(one["ap_interval"]) or _UNDEFINED,
                *(number(values[key]) for key in ("AP50", "AP75", last)),
                number(one["mean_iou"]),
                number(one["threshold"], 2),
                *(number(one[key]) for key in ("f1", "precision", "recall")),
                *([number((one["panoptic"] or {}).get("pq"))] if with_pq else []),
            ]
        )
    return table(columns + (["PQ"] if with_pq else []), rows, caption="All classes", sortable=True)


def error_kinds(metrics: Values) -> str:
    """How many errors of each kind, and what they cost."""
    rows = [
        [name, f"{one['count']:,}", "n/a" if one["ap_cost"] is None else f"{one['ap_cost']:+.3f}", _WORDS[name]]
        for name, one in metrics["error_kinds"].items()
    ]
    return table(["kind", "count", "AP50 it costs", "what it is"], rows, caption="Errors by kind", words=(3,))


_WORDS = {
    "class": "lies on an object, but calls it something else",
    "localisation": "the right class, but overlaps its object too little (IoU .10 to .50)",
    "both": "the wrong class, and too little overlap",
    "duplicate": "a second detection of an object that a better one has",
    "background": "lies on nothing (IoU below .10)",
    "missed": "an object that nothing found, not even with the wrong class or place",
}


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    sortable: bool = False,
    words: Sequence[int] = (),
) -> str:
    """A table of cells that are HTML already, in a box that scrolls sideways; columns in `words` hold text."""
    left = dict.fromkeys(words, ' class="words"')
    heads = "".join(f'<th scope="col"{left.get(i, "")}>{escape(name)}</th>' for i, name in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if i == 0 else f"<td{left.get(i, '')}>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    kind, box = (' class="sortable"', "scroll long") if sortable else ("", "scroll")
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{kind}><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )
