"""`report.html` of an evaluation: numbers, plots, and the images in which the model fails. One file, no network.

Plots are SVG in the page, images JPEG in it; a content security policy forbids the page to load anything at all. It is
readable without its script, which sorts the table of classes, shows and hides outlines and switches the theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rayseg.views import evaluation_tables as tables
from rayseg.views import report_page
from rayseg.views.chart_files import chart_svgs
from rayseg.views.evaluation_pictures import picture_card

if TYPE_CHECKING:
    from rayseg.evaluation.examples import Example

Values = Mapping[str, Any]

_EXAMPLES = {
    "false": ("False detections", "The surest detections that hit nothing, one of an image."),
    "missed": ("Missed objects", "The largest objects that nothing found."),
    "poor": ("Poorest matches", "Detections that count as right and overlap their object least."),
}


def evaluation_report(title: str, metrics: Values, examples: Sequence[Example], sources: Values) -> bytes:
    """The page. `metrics` is what `metrics.json` holds, `sources` names what was evaluated, in the order shown."""
    names = list(metrics["classes"])
    plots = chart_svgs(metrics)
    sections = {
        "overview": ("Overview", _overview(metrics, plots)),
        "curves": ("Precision and recall", report_page.plot(plots, "precision_recall", _CURVES_NOTE)),
        "errors": ("Errors", report_page.plot(plots, "error_kinds", _ERRORS_NOTE) + tables.error_kinds(metrics)),
        "classes": ("Classes", report_page.plot(plots, "classes", _CLASSES_NOTE) + tables.classes(metrics)),
        "confusion": ("Confusion", report_page.plot(plots, "confusion", _confusion_note(metrics))),
        "calibration": ("Calibration", report_page.plot(plots, "calibration", _CALIBRATION_NOTE)),
        "images": ("Images", _pictures(examples, names)),
        "method": ("How it was measured", _method(metrics, sources)),
    }
    return report_page.page(title, _header(title, metrics, sources), sections, _problems(metrics))


def _header(title: str, metrics: Values, sources: Values) -> str:
    counts = metrics["counts"]
    parts = (
        f"{counts['images']:,} images",
        f"{counts['truths']:,} truths",
        f"{counts['matched_to_an_image_and_class']:,} predictions",
        f"{len(metrics['classes']):,} classes",
    )
    rows = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in sources.items() if value is not None
    )
    return f'<header><h1>{escape(title)}</h1><p>{", ".join(parts)}</p><dl class="sources">{rows}</dl></header>'


def _problems(metrics: Values) -> str:
    said = "".join(f"<li>{escape(one)}</li>" for one in metrics["problems"])
    title = "<h2>Before you trust the numbers</h2>"
    return f'<aside class="problems" aria-label="What did not fit">{title}<ul>{said}</ul></aside>' if said else ""


def _overview(metrics: Values, plots: Mapping[str, str]) -> str:
    confidence = metrics["settings"]["confidence"]
    note = (
        f"<p class='note'>Ranges are {100 * confidence:g} % intervals from {metrics['settings']['draws']:,} draws of the "
        "images. n/a: there is nothing to measure it on.</p>"
        if metrics["intervals"]
        else "<p class='note'>n/a: there is nothing to measure it on.</p>"
    )
    return tables.headline(metrics) + note + tables.twelve(metrics) + report_page.plot(plots, "sizes", _SIZES_NOTE)


def _pictures(examples: Sequence[Example], class_names: Sequence[str]) -> str:
    if not examples:
        return ""
    groups = []
    for kind, (name, words) in _EXAMPLES.items():
        cards = "".join(picture_card(one, class_names) for one in examples if one.kind == kind)
        if cards:
            groups.append(
                f'<h3>{escape(name)}</h3><p class="note">{escape(words)}</p><div class="pictures">{cards}</div>'
            )
    return _LEGEND + "".join(groups)


def _confusion_note(metrics: Values) -> str:
    score = metrics["confusion"]["score_threshold"]
    least = "all detections" if score is None else f"detections of score {score:.2f} and more"
    return (
        f"Each row shows what the truths of a class were found as, by {least}, at IoU .50 whatever the class. "
        "The last column was not found; the last row was found where there is nothing. "
        "Numbers are counts, the stronger the colour the larger the share of the row."
    )


def _method(metrics: Values, sources: Values) -> str:
    panoptic, settings = metrics["panoptic"], metrics["settings"]
    pq = (
        f"no number: {panoptic['reason']}"
        if panoptic["pq"] is None
        else f"predictions of score {panoptic['score']:.2f} and more, made disjoint best first; truths cover "
        f"{100 * panoptic['labelled']:.0f} % of the pixels, and what lies in the rest is not counted as false"
    )
    sizes = {"own": "that of its own mask or box", "loadres": "as the COCO API's loadRes has it"}[settings["sizes"]]
    rows = {
        "Matching": "COCO's: IoU .50 to .95, best score first, crowds passed over; computed by hotcoco, equal to pycocotools",
        "Most detections": " / ".join(f"{count:,}" for count in settings["max_dets"]) + " of each image and class",
        "Size of a detection": sizes,
        "Boundary": "Boundary IoU, 2 % of the image's diagonal wide" if settings["boundary"] else "not measured",
        "Panoptic quality": pq,
        "Intervals": f"{settings['draws']:,} draws of images, bias-corrected, seed {settings['seed']}",
        "Error kinds": "TIDE's (Bolya et al., 2020), by "
        + tables.MEASURE_NAMES[metrics["primary"]].lower()
        + " overlap",
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())
    return f'<dl class="sources">{items}</dl>'


_CURVES_NOTE = "Mean over the classes that have truths, at the 101 recalls of COCO."
_SIZES_NOTE = "Small: below 32 x 32 pixels of area; medium: to 96 x 96; large: above."
_ERRORS_NOTE = "The longest bar is what to work on first."
_CLASSES_NOTE = "The line is the interval; a class in fewer than 5 images has none."
_CALIBRATION_NOTE = "Above the dotted line detections are right more often than their scores say, below less often."
_LEGEND = (
    '<p class="legend"><span class="key truth"></span>truth <span class="key found"></span>prediction '
    '<label hidden><input type="checkbox" id="truths" checked> show truths</label> '
    '<label hidden><input type="checkbox" id="predictions" checked> show predictions</label> '
    '<label hidden><input type="checkbox" id="others" checked> show the others</label></p>'
)
