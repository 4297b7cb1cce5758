"""The plots of a training, drawn with matplotlib from the rows of its `metrics.csv`.

Each takes `{"rows": [...]}` and a theme and gives a figure, or None where there is nothing to draw; see `charts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rayseg.views.charts import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Chart,
    Theme,
    Values,
    blank,
    styled,
)

MOST_POINTS = 500  # of a line: more are averaged, group by group
_PARTS = (ORANGE, GREEN, VERMILLION, PURPLE, SKY)
_DASHES = ("--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_SPENT = {"wait": VERMILLION, "forward": BLUE, "backward": SKY, "optimizer": GREEN}
_SCORES = {"mask_ap": ("masks", BLUE, "o-"), "box_ap": ("boxes", ORANGE, "s--")}


def losses(values: Values, theme: Theme) -> Figure | None:
    """The loss and its parts over the epochs."""
    rows = [row for row in values["rows"] if _number(row, "loss") is not None]
    parts = [name for name in (rows[0] if rows else ()) if name.startswith("loss_")]
    with styled(theme):
        figure, ax = blank(theme, 7.6, 3.4)
        top = 0.0
        for i, name in enumerate(parts):
            x, y = _line(rows, name)
            ax.plot(x, y, color=_PARTS[i % 5], linestyle=_DASHES[i % 5], linewidth=1.4, label=_words(name))
        x, y = _line(rows, "loss")
        if not len(x):
            return None
        ax.plot(x, y, color=BLUE, linewidth=2, label="loss")
        top = float(np.percentile(y, 99.5)) * 1.15  # the first steps may lie far above all the others
        ax.set(xlabel="epoch", ylim=(0, max(top, 1e-3)))
        ax.margins(x=0.01)
        ax.legend(fontsize=8.5, ncols=2)
        return figure


def learning_rate(values: Values, theme: Theme) -> Figure | None:
    """The learning rate over the epochs."""
    x, y = _line(values["rows"], "learning_rate")
    if not len(x):
        return None
    with styled(theme):
        figure, ax = blank(theme, 7.6, 2.2)
        ax.plot(x, y, color=BLUE, linewidth=2)
        ax.set(xlabel="epoch", ylim=(0, None))
        ax.margins(x=0.01)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        return figure


def scores(values: Values, theme: Theme) -> Figure | None:
    """AP on the validation images after each epoch that was measured."""
    lines = {name: _line(values["rows"], name, most=10**9) for name in _SCORES}
    if not any(len(x) for x, _ in lines.values()):
        return None
    with styled(theme):
        figure, ax = blank(theme, 7.6, 3.0)
        for name, (x, y) in lines.items():
            label, colour, style = _SCORES[name]
            ax.plot(x, y, style, color=colour, linewidth=2, markersize=4, label=label)
        highest = max(float(y.max()) for _, y in lines.values() if len(y))
        ax.set(xlabel="epoch", ylabel="AP", ylim=(0, min(1.02, max(0.05, 1.15 * highest))))
        ax.legend(fontsize=8.5)
        return figure


def time_spent(values: Values, theme: Theme) -> Figure | None:
    """Shares of a step's time: waiting for data, forward, backward, optimiser."""
    lines = {name: _line(values["rows"], f"{name}_s") for name in _SPENT}
    x = lines["wait"][0]
    if len(x) < 2 or any(len(other) != len(x) for other, _ in lines.values()):
        return None
    seconds = np.stack([y for _, y in lines.values()])
    shares = seconds / np.maximum(seconds.sum(axis=0), 1e-12)
    with styled(theme):
        figure, ax = blank(theme, 7.6, 2.6)
        names = {"wait": "waiting for data", "optimizer": "optimiser and other workers"}
        labels = [names.get(name, name) for name in _SPENT]
        ax.stackplot(x, shares, colors=list(_SPENT.values()), labels=labels, alpha=0.85)
        ax.set(xlabel="epoch", ylabel="share of the time", ylim=(0, 1))
        ax.margins(x=0)
        ax.legend(fontsize=8.5, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))
        return figure


CHARTS: dict[str, Chart] = {
    "losses": losses,
    "scores": scores,
    "learning_rate": learning_rate,
    "time_spent": time_spent,
}


def _line(rows: Sequence[Values], name: str, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite values (K,) of the rows that have that column, K at most `most`: groups of rows become their mean."""
    points = [(_number(row, "epoch"), _number(row, name)) for row in rows]
    kept = np.array([(x, y) for x, y in points if x is not None and y is not None], float).reshape(-1, 2)
    size = -(-len(kept) // most) if len(kept) > most else 1
    means = [kept[start : start + size].mean(axis=0) for start in range(0, len(kept), size)]
    grouped = np.array(means).reshape(-1, 2)
    return grouped[:, 0], grouped[:, 1]


def _number(row: Values, name: str) -> float | None:
    try:
        value = float(row[name])
    except (KeyError, ValueError, TypeError):
        return None
    return value if np.isfinite(value) else None


def _words(name: str) -> str:
    return name.removeprefix("loss_").replace("_", " ")
