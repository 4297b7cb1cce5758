"""The page as its user has it: Chromium, a dropped file, a moved slider, a downloaded file; nothing on the console."""

from __future__ import annotations

import base64
import json

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from serve.fake_endpoint import problem
from serve.page_steps import ANSWERED, asked, dropped, slide

from rayseg import kernels
from rayseg.views.colours import class_rgb


def test_drop_slide_filter_and_download(page, endpoint, picture):
    found = dropped(page, picture)
    scores = [one["score"] for one in found]
    assert page.text("#count") == "4 of 4 instances shown"
    slide(page, *20 * ["ArrowRight"])
    assert 0 < sum(score >= 0.7 for score in scores) < 4, "the slider has something to do"
    assert page.text("#count") == f"{sum(score >= 0.7 for score in scores)} of 4 instances shown"
    assert page.look("document.querySelectorAll('#instances li').length") == sum(score >= 0.7 for score in scores)
    slide(page, "Home")
    assert page.text("#least") == "0.05", "the slider reaches down to what was asked for"
    page.click("#classes label:first-child input")
    assert page.text("#count") == "2 of 4 instances shown", "both reds are gone"
    assert asked(endpoint) == 1, "none of that asked again"

    downloaded = page.downloaded("#results")
    assert downloaded.name == "quadrants.results.json"
    truth = COCO()
    truth.dataset = {"images": [{"id": 1, "width": 200, "height": 120}], "categories": [{"id": i} for i in range(3)]}
    truth.createIndex()
    results = truth.loadRes(str(downloaded))
    wanted = [one for one in found if one["category_id"] != 0]
    for annotation, one in zip(results.loadAnns(results.getAnnIds()), wanted, strict=True):
        assert (annotation["category_id"], annotation["bbox"]) == (one["category_id"], one["bbox"])
        mask = kernels.Rles.from_coco([one["segmentation"]]).decode(0)
        assert np.array_equal(results.annToMask(annotation), mask)


def test_the_data_set_and_the_picture(page, picture):
    found = dropped(page, picture)
    page.click("#captions")
    dataset = COCO(str(page.downloaded("#dataset")))
    assert [one["name"] for one in dataset.loadCats([0, 1, 2])] == ["red", "green", "blue"]
    assert dataset.loadImgs(1)[0] == {"id": 1, "file_name": "quadrants.png", "width": 200, "height": 120}
    assert [one["score"] for one in dataset.loadAnns(dataset.getAnnIds())] == [one["score"] for one in found]

    drawn = np.asarray(Image.open(page.downloaded("#png")).convert("RGB"), int)
    before = np.asarray(Image.open(picture), int)
    for one in found:
        inner = np.zeros(before.shape[:2], bool)
        x, y, width, height = (round(value) for value in one["bbox"])
        inner[y + 4 : y + height - 4, x + 4 : x + width - 4] = True
        wanted = 0.6 * before[inner] + 0.4 * np.array(class_rgb(one["category_id"]))
        assert np.abs(drawn[inner] - wanted).max() <= 2, "tinted by two fifths in the class's colour"
    outside = ~np.any([kernels.Rles.from_coco([one["segmentation"]]).decode(0) for one in found], axis=0)
    for axis in (0, 1):
        outside &= np.roll(outside, 2, axis) & np.roll(outside, -2, axis)
    assert np.array_equal(drawn[outside], before[outside]), "beyond the outlines the image is as it was"


def test_pointing_and_the_keyboard_show_class_score_and_area(page, picture):
    found = dropped(page, picture)
    area = page.look(
        "(() => { const box = canvas.getBoundingClientRect(); return [box.x, box.y, box.width / 200]; })()"
    )
    x, y, width, height = found[1]["bbox"]
    page.point(area[0] + area[2] * (x + width / 2), area[1] + area[2] * (y + height / 2))
    said = f"{found[1]['score']:.3f}"
    assert page.until("!document.querySelector('#tip').hidden") and said in page.text("#tip")
    assert "green" in page.text("#tip") and f"{found[1]['area']:,} px" in page.text("#tip")
    assert page.look("document.querySelector('#instances [aria-selected=true]').innerText").startswith("green")
    page.point(area[0] + area[2] * 100, area[1] + area[2] * 60)
    assert page.look("document.querySelector('#tip').hidden"), "nothing lies in the middle"

    page.look("document.querySelector('#none').focus()")
    page.key("Tab")
    assert page.look("document.activeElement.id") == "instances"
    for key, expected in (("End", 3), ("ArrowUp", 2), ("Home", 0), ("ArrowUp", 0), ("ArrowDown", 1)):
        page.key(key)
        assert (
            page.look("document.querySelector('#instances').getAttribute('aria-activedescendant')")
            == f"instance-{expected}"
        )
        assert f"{found[expected]['score']:.3f}" in page.text("#tip")
    page.key("Tab")
    assert page.look("document.querySelector('#tip').hidden")


def test_a_busy_server_is_asked_again_and_a_bad_image_is_explained(page, endpoint, picture, tmp_path):
    endpoint.refusals.append(problem(503, "the queue is full", Retry_After="1"))
    dropped(page, picture)
    assert asked(endpoint) == 2
    bad = tmp_path / "bad.png"
    bad.write_bytes(picture.read_bytes()[:60])
    page.drop("#stage", bad)
    page.until("!document.querySelector('#problem').hidden")
    assert "Unprocessable" in page.text("#problem") and "Request " in page.text("#problem")
    assert page.look("document.querySelector('#problem button')") is None, "trying again would not help"
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    page.drop("#stage", text)
    page.until("document.querySelector('#problem').innerText.includes('notes.txt')")
    assert asked(endpoint) == 3, "what says that it is no image is not sent"
    refused = [line for line in page.console if "503" in line or "422" in line]
    assert len(refused) == len(page.console) == 2, "the browser's own notes of the refusals, and no others"
    page.console.clear()


def test_an_image_that_only_the_server_knows_lies_on_grey(page, picture, tmp_path):
    Image.open(picture).save(tmp_path / "same.tiff")
    dropped(page, picture)
    page.drop("#stage", tmp_path / "same.tiff")
    page.until(
        "document.querySelector('#canvas').getAttribute('aria-label').startsWith('same.tiff, 200 by 120 pixels: 2 red')"
    )
    assert "cannot show such an image" in page.text("#problem")
    page.click("#captions")
    drawn = np.asarray(Image.open(page.downloaded("#png")).convert("RGB"))
    assert drawn.shape == (120, 200, 3) and (drawn[0] == (0x77, 0x79, 0x7D)).all()


def test_another_try(page, endpoint, picture):
    endpoint.refusals.append(problem(500, "something failed"))
    page.drop("#stage", picture)
    page.until("document.querySelector('#problem button')")
    page.click("#problem button")
    page.until(ANSWERED)
    assert page.look("document.querySelector('#problem').hidden") and "4 instances in" in page.text("#status")
    assert len(page.console) == 1
    page.console.clear()


def test_paste_and_choose(page, endpoint, picture):
    encoded = base64.b64encode(picture.read_bytes()).decode()
    page.look(
        f"(() => {{ const bytes = Uint8Array.from(atob('{encoded}'), (one) => "
        "one.charCodeAt(0)); const data = new DataTransfer(); data.items.add(new File([bytes], 'pasted.png', {type: "
        "'image/png'})); document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); })()"
    )
    page.until("document.querySelector('#canvas').getAttribute('aria-label').startsWith('pasted.png, 200 by 120')")
    page.choose("#file", picture)
    page.until("document.querySelector('#canvas').getAttribute('aria-label').startsWith('quadrants.png, 200 by 120')")
    assert asked(endpoint) == 2


def test_text_from_outside_stays_text(page, endpoint, picture):
    endpoint.change = lambda document: [
        one.update(category="<img src=x onerror=alert(1)>") for one in document["instances"]
    ]
    dropped(page, picture)
    assert "<img src=x" in page.text("#classes")
    assert page.look("document.querySelectorAll('main img').length") == 0


def test_further_files_are_not_left_out_silently(page, endpoint, picture, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    page.drop("#stage", text, picture, picture, picture)
    page.until(ANSWERED)
    assert page.text("#status").endswith("milliseconds. 3 further files were left out; a folder of images is a batch.")
    page.drop("#stage", picture, picture)
    page.until("document.querySelector('#status').innerText.includes('1 further file was left out')")
    page.until(ANSWERED)
    dropped(page, picture)
    page.until("document.querySelector('#status').innerText.endsWith('milliseconds.')")
    assert asked(endpoint) == 3


def test_outlines_are_their_masks(page):
    """Filled by the even-odd rule, pixel by pixel, on masks of noise with holes, parts that touch by corners, and the frame."""
    rng = np.random.default_rng(3)
    masks = (rng.random((6, 17, 23)) < np.linspace(0.1, 0.9, 6)[:, None, None]).astype(np.uint8)
    apart = np.zeros((3, 17, 23), np.uint8)  # nothing; a block; one in a corner and one in the last column
    apart[1:, 5:9, 4:7] = apart[2, :2, :1] = apart[2, 9:, 22:] = 1
    masks = np.concatenate([masks, apart, np.ones((1, 17, 23), np.uint8)])
    counts = [one["counts"].decode() for one in kernels.encode(masks).to_coco()]
    found = page.look(
        "import('/page/rle.js').then(({ Tracer }) => { const tracer = new Tracer(23, 17); const pen = new OffscreenCanvas(1, 1)"
        f".getContext('2d'); return {json.dumps(counts)}.map((one) => {{ const path = tracer.path(one); const rows = []; "
        "for (let y = 0; y < 17; y++) for (let x = 0; x < 23; x++) "
        "rows.push(Number(pen.isPointInPath(path, x + 0.5, y + 0.5, 'evenodd'))); return rows; }); })"
    )
    assert np.array_equal(np.array(found).reshape(masks.shape), masks)


def test_damaged_masks_are_refused(page):
    thrown = page.look(
        "import('/page/rle.js').then(({ runsOf }) => ['', '1', 'o', '~~~~', '\\u0001', 'oooooooooo0', 'N4'].map((one) => {"
        " try { runsOf(one, 12); return false; } catch (error) { return error instanceof RangeError; } }))"
    )
    assert thrown == [True] * 7
