"""Figures as SVG that follows the page's theme, and as PNG.

matplotlib writes fixed colours, so it is given stand-ins for ink and grid, which become CSS variables here. Text stays text,
in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape

import matplotlib
from matplotlib.figure import Figure

from rayseg.views.charts import BLUE, CHARTS, LIGHT, Chart, Theme, Values

_INK, _GRID = "#010203", "#040506"
_PAGE = Theme(_INK, _GRID, None)
_DPI = 150


def chart_svgs(metrics: Values, charts: Mapping[str, Chart] = CHARTS) -> dict[str, str]:
    """Every plot that there is data for, by name, as an `<svg>` element to stand in a page; an evaluation's by default."""
    found = {name: chart(metrics, _PAGE) for name, chart in charts.items()}
    return {name: _svg(figure, name) for name, figure in found.items() if figure is not None}


def chart_pngs(metrics: Values) -> dict[str, bytes]:
    """The same as PNG files on white."""
    found = {name: chart(metrics, LIGHT) for name, chart in CHARTS.items()}
    return {name: _png(figure) for name, figure in found.items() if figure is not None}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rayseg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)  # several plots stand on one page
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    text = text.replace(_INK, "var(--ink)").replace(_GRID, "var(--line)").replace(BLUE, "var(--blue)")
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    points = float(re.findall(r'\bwidth="([\d.]+)pt"', text)[0])
    opening = re.sub(r' (?:width|height)="[\d.]+pt"', "", text[: text.index(">")])
    label = escape(name.replace("_", " "))
    width = f"min-width:{points:.0f}px;max-width:{points * 1.7:.0f}px"  # narrow windows scroll: text stays readable
    return f'{opening} role="img" aria-label="plot: {label}" style="{width}"{text[text.index(">") :]}'
