"""The gallery: self-contained, bounded, and safe with names and messages that come from outside."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rayseg import kernels
from rayseg.errors import JobError
from rayseg.formats.parts import RowError, part_bytes, rows_table
from rayseg.records import Instances
from rayseg.views.gallery import write_gallery

NASTY = """x" onload="alert(1)"><script>alert('&')</script>.jpg"""


def instances_of(masks, classes):
    rles = kernels.encode(masks)
    xywh = rles.boxes_xywh().astype(np.float32)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    scores = np.linspace(0.9, 0.3, len(masks), dtype=np.float32)
    return Instances(boxes, scores, np.array(classes, np.int64), rles, masks.shape[1:])


def write_output(folder, uris, results, names=("cat", "<b>dog</b>")):
    """A complete label output, as `rayseg label` leaves it, of two parts."""
    (folder / "data").mkdir(parents=True)
    parts = []
    for number, half in enumerate(np.array_split(np.arange(len(uris)), 2)):
        table = rows_table(half, [uris[i] for i in half], [results[i] for i in half], names)
        name = f"part-{number}.parquet"
        (folder / "data" / name).write_bytes(part_bytes(table, ordinals=half, metadata={}))
        parts.append({"name": name})
    found = [result for result in results if isinstance(result, Instances)]
    counts = {
        "inputs": len(uris),
        "labelled": sum(len(one) > 0 for one in found),
        "empty": sum(len(one) == 0 for one in found),
        "failed": len(uris) - len(found),
        "instances": sum(map(len, found)),
    }
    (folder / "manifest.json").write_text(json.dumps(counts | {"parts": parts}))
    return str(folder)


@pytest.fixture
def output(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    uris = [str(tmp_path / name) for name in ("plain.png", NASTY.replace("/", "_"), "gone.png", "odd.png")]
    for uri in uris[:2]:
        Image.fromarray(pixels).save(uri, format="PNG")
    masks = np.zeros((2, 30, 40), bool)
    masks[0, 3:20, 5:30] = True
    masks[0, 8:12, 10:20] = False
    masks[1, 22:28, 1:9] = True
    empty = instances_of(np.zeros((0, 30, 40), bool), [])
    error = RowError("decode", "truncated", "ends <early> & badly")
    return write_output(tmp_path / "out", uris, [instances_of(masks, [0, 1]), empty, empty, error])


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


@pytest.fixture
def page(output, tmp_path):
    target = tmp_path / "gallery.html"
    written = write_gallery(output, str(target), title="A <title>")
    assert written.size_bytes == target.stat().st_size
    assert (written.images, written.instances) == (4, 2)
    return Page(target.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_outside(page):
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, name, value[:60])
    styles_and_scripts = " ".join(text for tag, text in page.texts if tag in ("style", "script"))
    assert "url(" not in styles_and_scripts and "import" not in styles_and_scripts and "http" not in styles_and_scripts


def test_names_and_messages_from_outside_stay_text(page):
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    texts = " ".join(text for _, text in page.texts)
    assert "alert('&')" in texts and "ends <early> & badly" in texts and "<b>dog</b>" in texts
    assert "b" not in [tag for tag, _ in page.tags]


def test_every_image_has_its_card_and_what_is_wrong_is_said(page):
    texts = " ".join(text for _, text in page.texts)
    assert [tag for tag, _ in page.tags].count("figure") == 4
    assert "can no longer be read" in texts and "decode, truncated" in texts and "nothing found" in texts
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert labels[0] == "plain.png, 40 x 30 pixels: 1 cat, 1 <b>dog</b>"


def test_the_policy_admits_its_own_script_alone(page):
    import hashlib

    script = next(text for tag, text in page.texts if tag == "script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_masks_lie_where_they_are_in_the_image(page):
    paths = [attrs["d"] for tag, attrs in page.tags if tag == "path"]
    assert paths == ["M5 3h25v17h-25zM10 12h10v-4h-10z", "M1 22h8v6h-8z"]
    image = next(attrs["href"] for tag, attrs in page.tags if tag == "image")
    picture = Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2])))
    assert picture.size == (40, 30)


def test_large_images_are_shown_smaller_with_their_masks(tmp_path):
    uri = str(tmp_path / "large.png")
    Image.new("RGB", (400, 200)).save(uri)
    masks = np.zeros((1, 200, 400), bool)
    masks[0, 100:, 200:] = True
    out = write_output(tmp_path / "out", [uri], [instances_of(masks, [0])])
    write_gallery(out, str(tmp_path / "g.html"), max_side_px=100)
    page = Page((tmp_path / "g.html").read_text())
    assert [attrs["d"] for tag, attrs in page.tags if tag == "path"] == ["M50 25h50v25h-50z"]
    assert next(attrs["viewbox"] for tag, attrs in page.tags if tag == "svg") == "0 0 100 50"


def test_no_more_images_than_wanted(output, tmp_path):
    written = write_gallery(output, str(tmp_path / "g.html"), max_images=2)
    assert written.images == 2
    text = (tmp_path / "g.html").read_text()
    assert text.count("<figure>") == 2 and re.search(r"4 images: 1 labelled, 2 empty, 1 failed", text)


def test_an_unfinished_output_is_refused(tmp_path):
    with pytest.raises(JobError, match="manifest"):
        write_gallery(str(tmp_path), str(tmp_path / "g.html"))
