"""An inspection as one HTML file: the tables, the findings, and example images with their annotations over them.

Self-contained, bounded and safe as `rayseg.views.page` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape

from PIL import Image

from rayseg import storage
from rayseg.annotations import AnnotatedImage
from rayseg.datasets.findings import KINDS, Finding
from rayseg.datasets.image_checks import upright_pixels
from rayseg.datasets.inspection import Inspection
from rayseg.errors import RaysegError
from rayseg.views.annotation_drawing import drawing, words
from rayseg.views.colours import class_hex
from rayseg.views.inspection import by_frequency, histograms, summary_rows
from rayseg.views.page import controls, head, plural, tail
from rayseg.views.printable import printable
from rayseg.views.svg import figure

MAX_SIDE_PX = 640
EXAMPLES = 24  # at random, and as many with findings
MAX_MESSAGES = 100


def write_page(inspection: Inspection, target: str, *, title: str, max_side_px: int = MAX_SIDE_PX) -> int:
    """Write the page to `target`, a path or URI; returns its bytes.

    Raises StorageError where it cannot be written. An example that can no longer be read has a card that says so.
    """
    shown = [*inspection.flawed, *inspection.examples]
    names = inspection.statistics.classes
    found = Counter((one.category, printable(names[one.category].name)) for image in shown for one in image.annotations)
    scores = any(one.score is not None for image in shown for one in image.annotations)
    pieces = [head(f"{printable(title)}: inspection", "inspection.css"), _header(inspection, title)]
    pieces += ['<div class="report">', _findings(inspection), _summary(inspection), _classes(inspection)]
    pieces += [*_histograms(inspection), "</div>", controls(found, 0.0, scores=scores), '<main id="images">']
    flaws = _flaws(inspection)
    pieces += [_card(inspection, image, flaws.get(image.name, []), max_side_px) for image in shown]
    pieces += ["</main>", tail()]
    data = "\n".join(pieces).encode("utf-8")
    storage.write(target, data)
    return len(data)


def _header(inspection: Inspection, title: str) -> str:
    examples, flawed = len(inspection.examples), len(inspection.flawed)
    shown = f"{plural(flawed, 'image')} with findings and {examples:,} more" if flawed else plural(examples, "image")
    return f"<header><h1>{_text(title)}</h1>\n<p>Shown below: {shown} of {inspection.statistics.images:,}.</p></header>"


def _summary(inspection: Inspection) -> str:
    rows = "".join(
        f'<tr><th>{escape(what)}</th><td style="padding-left:.8rem">{_text(said)}</td></tr>'
        for what, said in summary_rows(inspection.statistics)
    )
    return f"<section><h2>Contents</h2><table>{rows}</table></section>"


def _classes(inspection: Inspection) -> str:
    classes = inspection.statistics.classes
    place = {id(one): i for i, one in enumerate(classes)}
    most = max((one.instances for one in classes), default=0) or 1
    rows = "".join(
        f'<tr><th scope="row">{_text(one.name)}</th>'
        + "".join(
            f'<td class="number">{n:,}</td>' for n in (one.instances, one.images, one.small, one.medium, one.large)
        )
        + _bar(one.instances, most, class_hex(place[id(one)]))
        + "</tr>"
        for one in by_frequency(classes)
    )
    titles = "".join(f'<th class="number">{t}</th>' for t in ("instances", "images", "small", "medium", "large"))
    return (
        f'<section class="classes"><h2>Classes</h2><table><thead><tr><th>class</th>{titles}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _histograms(inspection: Inspection) -> Iterable[str]:
    for heading, rows in histograms(inspection.statistics):
        most = max(count for _, count in rows)
        lines = "".join(
            f'<tr><th scope="row">{escape(label)}</th><td class="number">{count:,}</td>{_bar(count, most)}</tr>'
            for label, count in rows
        )
        yield f"<section><h2>{escape(heading.capitalize())}</h2><table>{lines}</table></section>"


def _bar(count: int, most: int, colour: str = "") -> str:
    own = f";--class:{colour}" if colour else ""
    return f'<td class="bar"><span style="width:{100 * count / most:.1f}%{own}"></span></td>' if count else "<td></td>"


def _findings(inspection: Inspection) -> str:
    blocks = [
        _found(f"{count:,} x {kind}: {KINDS[kind]}", [_said(one) for one in examples], count)
        for kind, count, examples in inspection.findings.rows()
    ]
    if inspection.faults:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in inspection.faults.most_common())
        blocks.append(
            _found(f"passed over while reading: {counts}", inspection.fault_messages, inspection.faults.total())
        )
    if not blocks:
        blocks.append("<p>Nothing.</p>")
    if not inspection.pixels_seen:
        blocks.append('<p class="count">Near duplicates were not looked for.</p>')
    return f'<section class="wide found"><h2>Found</h2>{"".join(blocks)}</section>'


def _found(summary: str, messages: list[str], count: int) -> str:
    shown = messages[:MAX_MESSAGES]
    items = "".join(f"<li>{_text(message)}</li>" for message in shown)
    more = f"<li>and {count - len(shown):,} more</li>" if count > len(shown) else ""
    return f"<details><summary>{_text(summary)}</summary><ul>{items}{more}</ul></details>"


def _said(finding: Finding) -> str:
    return " ".join(filter(None, (finding.image, finding.item, finding.message)))


def _flaws(inspection: Inspection) -> dict[str, list[Finding]]:
    flaws: dict[str, list[Finding]] = {}
    for _, _, examples in inspection.findings.rows():
        for one in examples:
            flaws.setdefault(one.image, []).append(one)
    return flaws


def _card(inspection: Inspection, image: AnnotatedImage, flaws: list[Finding], max_side_px: int) -> str:
    names = [category.name for category in inspection.categories]
    try:
        picture = Image.fromarray(upright_pixels(image))
        image_hw = picture.height, picture.width
        picture.thumbnail((max_side_px, max_side_px))
        lines = "\n".join(drawing(image, image_hw, (picture.height, picture.width), names))
        above = figure(picture, lines, _alt(image, image_hw, names))
    except RaysegError as error:
        above = f'<div class="failed">{_text(str(error))}</div>'
    split = f' <span class="count">{_text(image.split)}</span>' if image.split else ""
    said = "".join(f"<li>{_text(f'{one.kind}: {one.item} {one.message}')}</li>" for one in flaws[:MAX_MESSAGES])
    return (
        f'<figure>{above}\n<figcaption><span class="name" title="{_text(image.uri or "")}">{_text(image.name)}</span>'
        f"{split}{_listing(image, names)}"
        + (f'<ul class="flaw">{said}</ul>' if said else "")
        + "</figcaption></figure>"
    )


def _listing(image: AnnotatedImage, names: list[str]) -> str:
    if not image.annotations:
        return '<div class="count">no annotations</div>'
    items = "".join(f"<li>{_text(words(one, names))}</li>" for one in image.annotations)
    return (
        f'<details><summary>{plural(len(image.annotations), "instance")}</summary><ol start="0">{items}</ol></details>'
    )


def _alt(image: AnnotatedImage, image_hw: tuple[int, int], names: list[str]) -> str:
    counts = Counter(names[one.category] for one in image.annotations)
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no annotations"
    return printable(f"{image.name}, {image_hw[1]} x {image_hw[0]} pixels: {what}")


def _text(value: str) -> str:
    """Text from outside, for a page: printable and escaped."""
    return escape(printable(value))
