"""The plots of an evaluation, drawn with matplotlib from what `metrics.json` holds.

Each takes the evaluation's plain values and a theme and gives a figure; no state of matplotlib's is touched. Colours are Okabe
and Ito's, which stay apart for colour-blind eyes; lines differ in their dashes and bars in their labels too.

Shapes: K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

Values = Mapping[str, Any]

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
MEASURE_NAMES = {"segm": "masks", "bbox": "boxes", "boundary": "boundaries"}
MAX_CLASSES = 40  # bars; the table has all classes
MAX_CONFUSED = 24  # classes in the matrix

_ERROR_COLOURS = {
    "class": BLUE,
    "localisation": ORANGE,
    "both": PURPLE,
    "duplicate": SKY,
    "background": VERMILLION,
    "missed": GREEN,
}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of text and axes, of grid lines, of the ground; `ground` None for none."""

    ink: str
    grid: str
    ground: str | None


LIGHT = Theme("#1b1c1e", "#d5d7db", "#ffffff")
Chart = Callable[[Values, Theme], Figure | None]


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Within it, figures are made in the theme's colours."""
    settings: Any = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "font.size": 10,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def blank(theme: Theme, width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, one or an array of `columns`."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.ground or "none")
    return figure, figure.subplots(1, columns)


# ---- precision and recall


def precision_recall(metrics: Values, theme: Theme) -> Figure | None:
    """Precision over recall, the mean of classes, at three overlaps, one panel per measure."""
    curves = {name: metrics["curves"][name] for name in MEASURE_NAMES if metrics["curves"].get(name)}
    with styled(theme):
        figure, axes = blank(theme, 3.6 * len(curves), 3.3, len(curves))
        for ax, (name, curve) in zip(np.atleast_1d(axes), curves.items(), strict=True):
            _precision_recall(ax, curve, name)
        return figure


def _precision_recall(ax: Axes, curve: Values, name: str) -> None:
    every = _array([values for key, values in curve.items() if key.startswith("precision")])
    lines = {
        "IoU .50": (_array(curve["precision_at_iou_0.50"]), BLUE, "-"),
        "IoU .75": (_array(curve["precision_at_iou_0.75"]), ORANGE, "--"),
        "mean of .50 to .95": (every.mean(axis=0), GREEN, "-."),
    }
    for label, (values, colour, dashes) in lines.items():
        ax.plot(curve["recall"], values, dashes, color=colour, label=label, linewidth=2)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=MEASURE_NAMES[name].capitalize())
    ax.legend(fontsize=8.5, loc="best")


# ---- bars


def sizes(metrics: Values, theme: Theme) -> Figure | None:
    """AP and AR by size of object, a bar for each measure."""
    names = [name for name in MEASURE_NAMES if metrics.get(name)]
    last = f"AR{metrics['settings']['max_dets'][-1]}"
    panels = {"AP": ("AP", "APs", "APm", "APl"), "AR": (last, "ARs", "ARm", "ARl")}
    with styled(theme):
        figure, axes = blank(theme, 7.6, 3.0, 2)
        for ax, (title, keys) in zip(axes, panels.items(), strict=True):
            width = 0.8 / len(names)
            for i, (name, colour) in enumerate(zip(names, (BLUE, ORANGE, GREEN), strict=False)):
                values = [metrics[name][key] for key in keys]
                places = np.arange(4) + (i - (len(names) - 1) / 2) * width
                bars = ax.bar(places, _array(values), width * 0.92, color=colour, label=MEASURE_NAMES[name])
                labels = ["n/a" if value is None else f"{value:.2f}"[1:] if value < 1 else "1" for value in values]
                ax.bar_label(bars, labels, fontsize=7.5, padding=1)
                for place, value in zip(places, values, strict=True):
                    if value is None:
                        ax.text(place, 0.01, "n/a", ha="center", fontsize=7.5)
            ax.set(
                title=title,
                xlim=(-0.6, 3.6),
                ylim=(0, 1),
                xticks=range(4),
                xticklabels=["all", "small", "medium", "large"],
            )
            ax.grid(axis="x", visible=False)
        axes[0].legend(fontsize=8.5, ncols=len(names), loc="upper left")
        return figure


def class_bars(metrics: Values, theme: Theme) -> Figure | None:
    """AP of each class with its interval, the worst of those that have truths first where there are many."""
    rows = [
        (name, one[metrics["primary"]]["AP"], one["ap_interval"], one["truths"])
        for name, one in metrics["classes"].items()
        if one[metrics["primary"]]["AP"] is not None
    ]
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: row[1])[:MAX_CLASSES][::-1]
    values = _array([row[1] for row in rows])
    with styled(theme):
        figure, ax = blank(theme, 7.6, 0.9 + 0.24 * len(rows))
        ax.barh(range(len(rows)), values, 0.72, color=BLUE)
        for i, (_, value, interval, _) in enumerate(rows):
            if interval:
                ax.plot(interval, [i, i], color=theme.ink, linewidth=1.2)
                ax.plot(interval, [i, i], "|", color=theme.ink, markersize=6)
            ax.annotate(
                f"{value:.3f}", (max(value, interval[1] if interval else 0), i), (4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        labels = [f"{_shortened(name)} ({truths:,})" for name, _, _, truths in rows]
        ax.set(yticks=range(len(rows)), yticklabels=labels, xlim=(0, 1.08), ylim=(-0.6, len(rows) - 0.4), xlabel="AP")
        ax.grid(axis="y", visible=False)
        left_out = len(metrics["classes"]) - len(rows)
        ax.set_title(
            f"AP by class (truths){f'; the worst {len(rows)}' if left_out and len(rows) == MAX_CLASSES else ''}"
        )
        return figure


def error_kinds(metrics: Values, theme: Theme) -> Figure | None:
    """What AP at IoU .50 each kind of error costs."""
    kinds = {name: one for name, one in metrics["error_kinds"].items() if one["ap_cost"] is not None}
    if not kinds:
        return None
    with styled(theme):
        figure, ax = blank(theme, 7.6, 2.6)
        names = list(kinds)[::-1]
        costs = _array([kinds[name]["ap_cost"] for name in names])
        ax.barh(range(len(names)), costs, 0.7, color=[_ERROR_COLOURS[name] for name in names])
        for i, name in enumerate(names):
            text = f"{costs[i]:+.3f}  ({kinds[name]['count']:,})"
            ax.annotate(text, (max(costs[i], 0), i), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        most = max(costs.max(), 0.02)
        ax.set(yticks=range(len(names)), yticklabels=names, xlim=(min(costs.min(), 0) * 1.1, most * 1.25))
        ax.set(xlabel="AP at IoU .50 that would be gained if only these were put right (how many there are)")
        ax.grid(axis="y", visible=False)
        return figure


# ---- confusion


def confusion(metrics: Values, theme: Theme) -> Figure | None:
    """Truths by what they were found as, each row as shares of itself; the most confused classes where there are many."""
    names, counts = _confused(metrics["confusion"])
    if not counts.sum():
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = len(counts)
    with styled(theme):
        figure, ax = blank(theme, 2.6 + 0.32 * side, 2.2 + 0.32 * side)
        colours = LinearSegmentedColormap.from_list("rayseg", [(0, (0, 0.45, 0.7, 0)), (1, (0, 0.45, 0.7, 1))])
        ax.pcolormesh(shares[::-1], cmap=colours, vmin=0, vmax=1, edgecolors=theme.grid, linewidth=0.4)
        for i, j in zip(*np.nonzero(counts), strict=True):
            text = f"{counts[i, j]:,}" if counts[i, j] < 10_000 else f"{counts[i, j] / 1000:.0f}k"
            ink = "#ffffff" if shares[i, j] > 0.85 else theme.ink  # from there on white reads better than dark ink
            ax.text(j + 0.5, side - i - 0.5, text, ha="center", va="center", fontsize=7, color=ink)
        ax.set(xlabel="found as", ylabel="truth", xticks=np.arange(side) + 0.5, yticks=np.arange(side) + 0.5)
        ax.set_xticklabels([_shortened(name) for name in [*names, "missed"]], rotation=45, ha="right", fontsize=8)
        ax.set_yticklabels([_shortened(name) for name in [*names, "background"]][::-1], fontsize=8)
        ax.grid(visible=False)
        ax.axvline(side - 1, color=theme.ink, linewidth=1)
        ax.axhline(1, color=theme.ink, linewidth=1)
        return figure


def _confused(values: Values) -> tuple[list[str], np.ndarray]:
    """Names of the classes shown and counts (R + 1, R + 1), the last row background, the last column missed.

    What is not shown is added up as "other".
    """
    counts = np.array(values["counts"], np.int64)
    names = list(values["rows_truth"][:-1])
    if len(names) <= MAX_CONFUSED:
        return names, counts
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    mixed = errors[:-1, :-1].sum(axis=1) + errors[:-1, :-1].sum(axis=0)
    size = counts[:-1].sum(axis=1)
    chosen = np.sort(np.lexsort((-size, -mixed))[: MAX_CONFUSED - 1])
    groups = np.full(len(names) + 1, len(chosen))
    groups[chosen], groups[-1] = np.arange(len(chosen)), len(chosen) + 1
    summed = np.zeros((len(chosen) + 2, len(chosen) + 2), np.int64)
    np.add.at(summed, (groups[:, None], groups[None, :]), counts)
    return [*(names[k] for k in chosen), "other"], summed


# ---- calibration


def calibration(metrics: Values, theme: Theme) -> Figure | None:
    """How often detections of a score are right, and how many there are of it."""
    bins = metrics["calibration"]["bins"]
    if not bins:
        return None
    full = [one for one in bins if one["count"]]
    with styled(theme):
        figure, (ax, beside) = blank(theme, 7.6, 3.1, 2)
        ax.plot([0, 1], [0, 1], ":", color=theme.ink, linewidth=1, label="perfect")
        ax.plot(
            [one["score"] for one in full],
            [one["precision"] for one in full],
            "o-",
            color=BLUE,
            linewidth=2,
            label="found",
        )
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="share that is right", title="Reliability")
        ax.legend(fontsize=8.5, loc="upper left")
        beside.bar(
            [one["low"] for one in bins], [one["count"] for one in bins], 0.092, align="edge", color=SKY,
        )  # fmt: skip
        beside.set(xlim=(0, 1), xlabel="score", ylabel="detections", title="Scores")
        beside.grid(axis="x", visible=False)
        return figure


CHARTS: dict[str, Chart] = {
    "precision_recall": precision_recall,
    "sizes": sizes,
    "error_kinds": error_kinds,
    "classes": class_bars,
    "confusion": confusion,
    "calibration": calibration,
}


def _array(values: Sequence[Any]) -> np.ndarray:
    """As float64, NaN for None."""
    return np.array(values, np.float64)


def _shortened(name: str, most: int = 24) -> str:
    # a dollar sign would start a formula
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")
