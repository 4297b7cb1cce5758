"""`report.html` of a training: how its losses, rate, scores and time went, and what the model sees beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from rayseg.annotations import AnnotatedImage
from rayseg.views import report_page, training_charts
from rayseg.views.annotation_drawing import drawing
from rayseg.views.chart_files import chart_svgs
from rayseg.views.page import asset
from rayseg.views.svg import figure

SHOWN_PX = 420


@dataclass(frozen=True, slots=True)
class Sample:
    """An image (H, W, 3) uint8 with its truth and what the model found on it."""

    pixels: np.ndarray
    truth: AnnotatedImage
    found: AnnotatedImage


def training_report(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    class_names: Sequence[str],
    facts: Mapping[str, Any],
    spec: Mapping[str, Any],
) -> bytes:
    """The page. `rows` are those of `metrics.csv`, `facts` what stands in the header, `spec` what was asked for."""
    plots = chart_svgs({"rows": rows}, training_charts.CHARTS)
    sections = {
        "losses": ("Losses", report_page.plot(plots, "losses", "The sum that is minimised, and its parts.")),
        "scores": ("Average precision", report_page.plot(plots, "scores", "On the validation images.")),
        "rate": ("Learning rate", report_page.plot(plots, "learning_rate", "What the optimiser was given.")),
        "time": ("Where the time went", report_page.plot(plots, "time_spent", "Of the worker that leads.")),
        "images": ("Samples", _samples(samples, class_names)),
        "spec": ("Spec", _list(spec)),
    }
    header = f"<header><h1>{escape(title)}</h1>{_list(facts)}</header>"
    return report_page.page(title, header, sections, f"<style>{asset('training_report.css')}</style>")


def _list(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>"
        for key, value in values.items()
        if value is not None
    )
    return f'<dl class="sources">{rows}</dl>'


def _samples(samples: Sequence[Sample], class_names: Sequence[str]) -> str:
    """Each image twice: its truth, and beside it what was found."""
    cards = "".join(
        f'<div class="pair">{_card(one, one.truth, "truth", class_names)}{_card(one, one.found, "found", class_names)}</div>'
        for one in samples
    )
    return f'<p class="note">Left the truth, right what the model finds.</p>{cards}' if cards else ""


def _card(sample: Sample, drawn: AnnotatedImage, what: str, class_names: Sequence[str]) -> str:
    picture = Image.fromarray(sample.pixels)
    image_hw = picture.height, picture.width
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    lines = "\n".join(drawing(drawn, image_hw, (picture.height, picture.width), class_names))
    count = len(drawn.annotations)
    alt = f"{what}: {count} objects in {sample.truth.name}"
    return (
        f"<figure>{figure(picture, lines, alt)}<figcaption><strong>{what}, {count:,}</strong> "
        f'<span class="name">{escape(sample.truth.name)}</span></figcaption></figure>'
    )
