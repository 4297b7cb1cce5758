"""The evaluation's page and plots: whole, self-contained, honest about what is undefined, and safe with names from outside."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import evaluation_scenes as scenes
import numpy as np
import pytest
from PIL import Image

from rayseg.evaluation import evaluate
from rayseg.evaluation.examples import Example, Shape
from rayseg.formats.registry import read
from rayseg.kernels import encode
from rayseg.views.chart_files import chart_pngs, chart_svgs
from rayseg.views.evaluation_pictures import picture_card, window_around
from rayseg.views.evaluation_report import evaluation_report

VOID = {"meta", "link", "input", "br", "image", "path", "rect", "use", "line"}


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether every tag that opens closes in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.faults = [], [], [], []
        self.feed(text)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag}")

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag not in ("style", "script"))


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """A scene with readable images but one, a class without truths, and names that are HTML."""
    import json

    folder = tmp_path_factory.mktemp("report")
    truth, results = scenes.scene(6, images=25)
    for one in truth["categories"]:
        one["name"] = f"<b>{one['name']}</b> & $x_1$"
    for image in truth["images"]:
        Image.fromarray(np.full((image["height"], image["width"], 3), 90, np.uint8)).save(folder / image["file_name"])
    (folder / "truth.json").write_text(json.dumps(truth))
    results.append({**results[0], "image_id": 424242})
    metrics = evaluate(read(str(folder / "truth.json"), "coco", str(folder)), results, draws=30, examples_each=5)
    return metrics, json.loads(json.dumps(metrics.to_json())), folder


@pytest.fixture(scope="module")
def page(evaluation):
    metrics, values, _ = evaluation
    sources = {"Ground truth": "a<b.json", "Model": None}
    return Page(evaluation_report("A <title>", values, metrics.examples, sources).decode())


def test_it_is_whole_and_loads_nothing(page):
    assert page.faults == []
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attrs.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, name, value[:60])
        assert not any(name.startswith("on") for name in attrs)
    styles = " ".join(text for tag, text in page.texts if tag in ("style", "script"))
    assert "url(" not in styles and "@import" not in styles and "http" not in styles


def test_every_id_stands_once_and_every_link_leads_somewhere(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs.get("href") or attrs.get("xlink:href") for tag, attrs in page.tags if tag in ("a", "use")]
    assert len(links) > 8 and {link[1:] for link in links} <= set(ids)
    labelled = [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
    assert labelled and set(labelled) <= set(ids)


def test_names_from_outside_stay_text(page):
    assert "b" not in [tag for tag, _ in page.tags] and "A <title>" in page.text and "a<b.json" in page.text
    assert "<b>class 3</b> & $x_1$" in page.text and [tag for tag, _ in page.tags].count("script") == 1


def test_the_policy_admits_its_own_script_alone(page):
    script = next(text for tag, text in page.texts if tag == "script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_it_shows_every_part(page, evaluation):
    metrics, _, _ = evaluation
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == [
        "overview", "curves", "errors", "classes", "confusion", "calibration", "images", "method",
    ]  # fmt: skip
    assert f"{metrics.segm['AP']:.3f}" in page.text and f"{metrics.intervals['segm']['AP'][0]:.3f}" in page.text
    assert "of images that the ground truth does not have" in page.text, "what did not fit comes first"
    pictures = [attrs["href"] for tag, attrs in page.tags if tag == "image"]
    assert len(pictures) == len(metrics.examples) == 15 and all(one.startswith("data:image/jpeg") for one in pictures)
    plots = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and attrs["aria-label"].startswith("plot")]
    assert len(plots) == 6


def test_what_is_undefined_is_na(page, evaluation):
    cells = [text for tag, text in page.texts if tag in ("td", "span", "dd")]
    assert "n/a" in cells and not any(re.fullmatch(r"-1(\.0*)?|-0\.0+|nan|None", cell.strip()) for cell in cells)
    bare = next(one for one in evaluation[0].classes if one.truths == 0)
    row = re.search(
        rf'<th scope="row">{re.escape(escaped(bare.name))}</th>(.*?)</tr>', report_of(evaluation), re.DOTALL
    )[1]
    assert row.count("n/a") == 10


def escaped(text):
    from html import escape

    return escape(text)


def report_of(evaluation):
    _, values, _ = evaluation
    return evaluation_report("x", values, (), {}).decode()


def test_plots_follow_the_theme_of_the_page(evaluation):
    for name, svg in chart_svgs(evaluation[1]).items():
        assert svg.startswith("<svg") and "var(--ink)" in svg and "<text" in svg, name
        assert "#010203" not in svg and "<metadata" not in svg and "<image" not in svg and "DejaVu" not in svg


def test_plots_as_files(evaluation):
    files = chart_pngs(evaluation[1])
    assert set(files) == {"precision_recall", "sizes", "error_kinds", "classes", "confusion", "calibration"}
    for data in files.values():
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert min(pixels.shape[:2]) > 150 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
        assert pixels[0, 0].tolist() == [255, 255, 255]


def test_nothing_to_plot_is_no_plot_and_a_page_all_the_same(tmp_path):
    import json

    truth, _ = scenes.scene(1)
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "annotations": []}))
    values = json.loads(json.dumps(evaluate(read(str(tmp_path / "truth.json"), "coco"), [], draws=5).to_json()))
    assert set(chart_svgs(values)) == {"precision_recall", "sizes"}
    page = Page(evaluation_report("empty", values, (), {}).decode())
    assert page.faults == [] and "There are no predictions." in page.text and page.text.count("n/a") > 30


def test_hundreds_of_classes_are_summed_up(evaluation):
    values = {**evaluation[1]}
    names = [f"class {k}" for k in range(200)]
    counts = np.zeros((201, 201), int)
    counts[np.arange(200), np.arange(200)] = 5
    counts[3, 7] = 40
    values["confusion"] = {"score_threshold": 0.5, "rows_truth": [*names, "background"], "counts": counts.tolist()}
    row = next(iter(values["classes"].values()))
    values["classes"] = dict.fromkeys(names, row)
    svgs = chart_svgs(values)
    assert "class 3<" in svgs["confusion"] and "class 7<" in svgs["confusion"] and "other" in svgs["confusion"]
    assert svgs["confusion"].count("<text") < 200 and "the worst 40" in svgs["classes"]


# ---- cut-outs


@pytest.fixture
def example(tmp_path):
    """A false detection in an image of 200 x 300, whose pixel (x, y) is (x, y, 0)."""
    ys, xs = np.mgrid[:200, :300]
    Image.fromarray(np.stack([xs % 256, ys, xs * 0], 2).astype(np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 40:80, 100:150] = True
    shape = Shape(0, 0.9, (100.0, 40.0, 50.0, 40.0), encode(mask).strings()[0])
    return Example("false", 0, "a.png", str(tmp_path / "a.png"), (200, 300), shape, None, "background", None, (), ())


def test_a_cut_out_shows_its_object_with_room_around_it(example):
    window = window_around(example)
    assert (window.x, window.y, window.width, window.height) == (62, 2, 126, 116)
    card = Page(picture_card(example, ["cat"]))
    assert card.faults == [] and "cat 0.90: background" in card.text
    picture = next(attrs["href"] for tag, attrs in card.tags if tag == "image")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).convert("RGB"))
    assert pixels.shape[:2] == (387, 420)
    assert abs(int(pixels[193, 210, 0]) - 125) < 6 and abs(int(pixels[193, 210, 1]) - 60) < 6  # its middle
    path = next(attrs["d"] for tag, attrs in card.tags if tag == "path")
    corner = [int(side) for side in re.match(r"M(\d+) (\d+)", path).groups()]
    assert corner == pytest.approx([(100 - 62) * 420 / 126, (40 - 2) * 387 / 116], abs=2)


def test_boxes_alone_are_drawn_as_boxes(example):
    bare = replace(example.focus, rle=b"")
    card = Page(picture_card(replace(example, focus=bare), ["cat"]))
    path = next(attrs["d"] for tag, attrs in card.tags if tag == "path")
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+H[\d.]+z", path)


def test_a_missing_or_changed_image_keeps_its_outlines_and_says_why(example, tmp_path):
    for change, words in (
        ({"uri": None}, "say where they are with --images"),
        ({"uri": str(tmp_path / "gone.png")}, "cannot be read"),
        ({"image_hw": (300, 200), "focus": replace(example.focus, rle=b"")}, "the image is 300 x 200"),
    ):
        card = Page(picture_card(replace(example, **change), ["cat"]))
        assert (
            words in card.text
            and "image" not in [tag for tag, _ in card.tags]
            and "path" in [tag for tag, _ in card.tags]
        )


def test_what_something_really_is_is_said(example):
    partner = Shape(1, None, (95.0, 38.0, 50.0, 40.0), b"")
    card = Page(picture_card(replace(example, what="wrong class", partner=partner), ["cat", "d<o>g"]))
    assert "cat 0.90: wrong class, it is d<o>g" in card.text
    assert [attrs["class"] for tag, attrs in card.tags if tag == "path"] == ["truth", "found"]
