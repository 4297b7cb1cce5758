"""What an inspection looks like: text that fits and cannot be taken over, a page that loads nothing, the command."""

import contextlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from in_memory_data import boxed, dataset, square
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console
from typer.testing import CliRunner

from rayseg import cli
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets.inspection import inspect
from rayseg.errors import UsageError
from rayseg.formats import registry
from rayseg.formats.faults import Faults
from rayseg.kernels import encode
from rayseg.views.annotation_drawing import elements
from rayseg.views.inspection import bar, print_inspection, printable
from rayseg.views.inspection_page import write_page
from rayseg.views.progress import phases, progress

NASTY = "x\x1b[31m<script>alert('&')</script>\ud800[bold]\n.png"


def shown(inspection, width=100, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    print_inspection(inspection, "s3://b/set", Console(file=file, width=width, highlight=False))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


@pytest.fixture
def data(picture):
    """One sound image, one with a twin annotation, one that is not there and has a nasty name."""
    images = [
        AnnotatedImage("good.png", picture, (30, 40), (square(5, 5, 10), square(2, 2, 25, category=1)), "train"),
        AnnotatedImage("odd.png", picture, (30, 40), (boxed(2, attributes={"pose": 1}), boxed(2)), "train"),
        AnnotatedImage(NASTY, "/nowhere/" + NASTY, None, (), "val"),
    ]
    faults = Faults("skip")
    faults.add("a.json", "box", "line 3", NASTY)
    return dataset(images, names=("cat", "<b>dog</b>", NASTY), faults=faults)


# ---- text


def test_the_text_says_what_was_found(data):
    text = shown(inspect(data))
    for words in (
        "s3://b/set",
        "3, 1 without annotations",
        "2 train, 1 val",
        "1 x missing_image",
        "1 x duplicate_annotation",
        "odd.png annotation 1 is like annotation 0",
        "1 x near_duplicates",
        "passed over while reading",
        "a.json: line 3",
        "1 pose",
        "<b>dog</b>",
    ):
        assert words in text, words
    assert re.search(r"cat +1 +1 +1 +0 +0", text)
    assert shown(inspect(dataset([]))).rstrip().endswith("nothing found")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [20, 60, 200])
def test_any_terminal_can_show_it(data, width, encoding):
    text = shown(inspect(data), width, encoding)
    assert "\x1b" not in text and "\ud800" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_long_lists_are_cut_and_say_so(picture):
    names = [f"class {i}" for i in range(100)]
    images = [AnnotatedImage(f"{i}.png", f"/nowhere/{i}.png", annotations=(boxed(i),)) for i in range(100)]
    text = shown(inspect(dataset(images, names=names)))
    assert "60 more classes" in text and "100 x missing_image" in text and "and 95 more" in text


def test_bars_are_as_long_as_the_counts():
    assert bar(0, 10) == "" and bar(10, 10) == "█" * 24 and bar(1, 10**9) == "▏"
    assert bar(5, 10) == "█" * 12 and bar(5, 10, ascii_only=True) == "#" * 12 and bar(1, 10**9, ascii_only=True) == "#"


def test_printable_keeps_what_prints():
    assert printable("Grün 熊 a b") == "Grün 熊 a b"
    assert printable("a\x1b[0m\n\ud800\u202e") == r"a\x1b[0m\n\ud800\u202e"


# ---- page


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def attributes(self, tag, name):
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]


def page_of(data, tmp_path, **settings):
    target = tmp_path / "page.html"
    size_bytes = write_page(inspect(data, examples=10), str(target), title=NASTY, **settings)
    assert size_bytes == target.stat().st_size
    return Page(target.read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_text_stays_text(data, tmp_path):
    page = page_of(data, tmp_path)
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), tag
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, name, value[:60])
    styles = " ".join(text for tag, text in page.texts if tag == "style")
    assert "url(" not in styles and "import" not in styles and "prefers-color-scheme: dark" in styles
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in [tag for tag, _ in page.tags]
    assert "default-src 'none'" in page.attributes("meta", "content")[0]


def test_the_page_shows_images_with_findings_and_others(data, tmp_path):
    page = page_of(data, tmp_path)
    names = [text for tag, text in page.texts if tag == "span" and text in ("good.png", "odd.png")]
    assert names == ["odd.png", "good.png"]
    texts = " ".join(text for _, text in page.texts)
    assert "duplicate_annotation: annotation 1 is like annotation 0" in texts
    assert "1 image with findings and 1 more of 3" in texts and "missing_image" in texts
    assert page.attributes("svg", "aria-label")[1] == "good.png, 40 x 30 pixels: 1 cat, 1 <b>dog</b>"


def test_large_examples_are_shown_smaller_with_their_shapes(tmp_path):
    Image.new("RGB", (400, 200), "white").save(tmp_path / "large.png")
    images = [AnnotatedImage("large.png", str(tmp_path / "large.png"), (200, 400), (square(200, 100, 80, crowd=True),))]
    page = page_of(dataset(images), tmp_path, max_side_px=100)
    assert page.attributes("svg", "viewbox") == ["0 0 100 50"]
    assert page.attributes("path", "d") == ["M50 25L70 25L70 45L50 45z"]
    assert "cat (crowd)" in [text for tag, text in page.texts if tag == "title"]


def test_an_image_that_has_gone_since_has_a_card(data, tmp_path, picture):
    inspection = inspect(data, examples=5)
    (tmp_path / "p.png").unlink()
    write_page(inspection, str(tmp_path / "page.html"), title="set")
    page = Page((tmp_path / "page.html").read_text())
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "div"].count("failed") == 2


def test_scores_get_their_slider(picture, tmp_path):
    def slider_hidden(annotation):
        page = page_of(dataset([AnnotatedImage("a", picture, (30, 40), (annotation,))]), tmp_path)
        return page.attributes("label", "hidden") != []

    assert slider_hidden(boxed()) and not slider_hidden(boxed(score=0.5))


def drawn(annotation, image_hw=(50, 100), shown_hw=(50, 100)):
    return elements(annotation, image_hw, shown_hw)


def test_every_shape_is_drawn_where_it_is():
    ring = np.array([(1, 2), (11, 2), (11, 12.5)])
    hole = np.array([(8, 4), (9, 4), (9, 5)], np.float64)
    assert drawn(Annotation(0, shape=Polygons(((ring, hole),)))) == (
        '<path fill-rule="evenodd" d="M1 2L11 2L11 12.5zM8 4L9 4L9 5z"/>'
    )
    pixels = np.zeros((1, 50, 100), bool)
    pixels[0, 3:5, 7:10] = True
    mask = Mask(encode(pixels).strings()[0], (50, 100))
    assert drawn(Annotation(0, shape=mask)) == '<path fill-rule="evenodd" d="M7 3h3v2h-3z"/>'
    assert drawn(boxed(box=(1, 2, 3, 4)), shown_hw=(25, 50)) == '<path class="box" d="M0.5 1H1.5V2H0.5z"/>'
    assert drawn(Annotation(0, shape=Polyline(ring))) == '<path class="line" d="M1 2L11 2L11 12.5"/>'
    assert drawn(Annotation(0, shape=Points(ring))).count("<circle") == 3
    ellipse = drawn(Annotation(0, shape=Ellipse((10, 20), (5, 3), 30)), shown_hw=(25, 50))
    assert ellipse == '<ellipse cx="10" cy="20" rx="5" ry="3" transform="scale(0.5 0.5) rotate(30 10 20)"/>'


@pytest.mark.parametrize(
    "shape",
    [
        Polygons(()),
        Polygons(((np.array([(np.nan, 1.0), (2, 2), (3, 3)]),),)),
        Mask(b"\xff", (50, 100)),
        Mask(b"0", (5, 5)),
        Ellipse((1, 1), (0, 1)),
        Ellipse((1, float("nan")), (1, 1)),
        Points(np.array([(np.inf, 0.0)])),
        None,
    ],
)
def test_what_cannot_be_drawn_is_left_out(shape):
    assert drawn(Annotation(0, shape=shape)) == ""


# ---- the command


@pytest.fixture
def run(monkeypatch, data):
    """Runs `rayseg inspect set ...` on the data in memory; returns exit code and stdout."""
    asked = {}

    def read(uri, format=None, images=None, on_error="raise"):
        asked.update(uri=uri, format=format, images=images, on_error=on_error)
        return data

    monkeypatch.setattr(registry, "read", read)

    def run(*words):
        result = CliRunner().invoke(cli.app, ["inspect", "set", *words])
        if isinstance(result.exception, Exception):
            raise result.exception
        return result.exit_code, result.stdout

    run.asked = asked
    return run


def test_findings_are_information_unless_strict(run):
    code, text = run()
    assert code == 0 and "duplicate_annotation" in text
    assert run("--strict")[0] == 1
    assert run.asked == {"uri": "set", "format": None, "images": None, "on_error": "skip"}


def test_a_clean_set_passes_strict(run, monkeypatch, picture):
    clean = Dataset((Category("cat"),), [AnnotatedImage("a", picture, (30, 40), (boxed(),))])
    monkeypatch.setattr(registry, "read", lambda *_: clean)
    assert run("--strict")[0] == 0


def test_machine_output(run):
    code, text = run("--json", "--format", "coco", "--images", "photos", "--on-error", "raise", "--no-duplicates")
    said = json.loads(text)
    assert code == 0 and said["uri"] == "set" and said["images"] == 3
    assert {one["kind"]: one["count"] for one in said["findings"]} == {"missing_image": 1, "duplicate_annotation": 1}
    assert said["faults"]["counts"] == {"box": 1}
    assert run.asked == {"uri": "set", "format": "coco", "images": "photos", "on_error": "raise"}


def test_a_sample_and_a_page(run, tmp_path):
    code, text = run("--json", "--sample", "2", "--html", str(tmp_path / "look.html"))
    assert code == 0 and json.loads(text)["images"] == 2
    assert "<svg" in (tmp_path / "look.html").read_text()


def test_real_data_counted_as_pycocotools_counts(shared_data):
    path = shared_data / "coco_small" / "annotations" / "instances_val2017.json"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    arguments = ["inspect", str(path), "--format", "coco", "--no-duplicates", "--json"]
    said = json.loads(CliRunner().invoke(cli.app, arguments).stdout)
    assert (said["images"], said["instances"]) == (len(coco.imgs), len(coco.anns))
    for one in said["classes"]:
        (number,) = coco.getCatIds(catNms=[one["name"]])
        assert one["instances"] == len(coco.getAnnIds(catIds=[number]))
        assert one["images"] == len(coco.getImgIds(catIds=[number]))
        assert one["crowds"] == len(coco.getAnnIds(catIds=[number], iscrowd=True))
    assert {one["kind"] for one in said["findings"]} <= {"self_intersecting", "near_duplicates"}


def test_wrong_usage(run):
    with pytest.raises(UsageError, match="raise or skip"):
        run("--on-error", "ignore")


def test_progress_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("rayseg.views.progress.time.monotonic", lambda: next(clock))
    with progress("inspect") as show:
        for done in range(1, 7):
            show(done, 6)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["inspect: 3 of 6, 0.2 per second"]


def test_a_later_phase_begins_where_it_is_first_told_of(capsys, monkeypatch):
    clock = iter([0, 100, 108, 116])
    monkeypatch.setattr("rayseg.views.progress.time.monotonic", lambda: next(clock))
    with phases("convert", "upload") as (_, upload):
        for done in range(3):
            upload(done, 5)
    assert capsys.readouterr().err == "upload: 2 of 5, 0.1 per second\n"


def test_bars_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with phases("convert", "upload") as (convert, upload):
        convert(1, None)
        convert(2, 2)
        upload(1, 3)
    shown = capsys.readouterr().err
    assert "convert" in shown and "2/2" in shown
    assert "upload" in shown and "1/3" in shown
