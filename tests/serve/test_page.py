"""The page as its user has it: Chromium, a dropped file, a moved slider, a downloaded file; nothing on the console."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from browser import Browser
from PIL import Image
from pycocotools.coco import COCO
from serve.fake_endpoint import BATCH, TOKEN, Endpoint, problem

from rayseg import kernels, load
from rayseg.views.colours import class_rgb

ANSWERED = "!document.querySelector('#found').hidden && document.querySelector('#busy').hidden"
READY = "document.querySelector('#model-facts').textContent.includes('classes')"


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory) -> Iterator[Browser]:
    opened = Browser(chromium, tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser, endpoint) -> Iterator[Browser]:
    """The page, ready; in the end it has said nothing and asked nobody but its own server."""
    browser.console.clear()
    browser.requests.clear()
    browser.appear(width=1280)
    browser.open(endpoint.url + "/")
    browser.until(READY)
    yield browser
    assert browser.console == []
    for method, url in browser.requests:
        assert url.startswith((endpoint.url + "/", "blob:" + endpoint.url)), url
        path = urlsplit(url).path
        assert path == "/" or path.startswith(("/page/", "/v1/")) or url.startswith("blob:"), (method, url)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """Four quadrants: red, green, blue and a darker red, so that the rectangles have classes and scores of their own."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[:60, :100, 0], pixels[:60, 100:, 1], pixels[60:, :100, 2], pixels[60:, 100:, 0] = 250, 200, 150, 60
    path = tmp_path_factory.mktemp("picture") / "quadrants.png"
    Image.fromarray(pixels).save(path)
    return path


def dropped(page: Browser, picture: Path) -> list[dict]:
    """Drop it; what the model itself finds."""
    page.drop("#stage", picture)
    page.until(ANSWERED)
    return load("rectangles").predict([np.asarray(Image.open(picture))])[0].to_coco(1)


def slide(page: Browser, *keys: str) -> None:
    """Move the slider with the keyboard: an arrow is a hundredth."""
    page.look("document.querySelector('#score').focus()")
    for key in keys:
        page.key(key)


def colours(page: Browser, x: float, y: float, width: int = 1) -> list[tuple[int, ...]]:
    """Of a row of the canvas, with all that was asked for drawn; the place is in shares of it."""
    data = page.look(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => { const pen = new OffscreenCanvas("
        f"{width}, 1).getContext('2d'); pen.drawImage(canvas, -Math.round({x} * canvas.width), -Math.round({y} * canvas.height)); "
        f"done([...pen.getImageData(0, 0, {width}, 1).data]); }})))"
    )
    return [tuple(data[i : i + 3]) for i in range(0, len(data), 4)]


def asked(endpoint: Endpoint) -> int:
    return sum(path == "/v1/predict" for _, path, _ in endpoint.seen)


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


def test_an_enlarged_picture_is_pointed_at_and_drawn_where_it_is(page, picture):
    dropped(page, picture)
    x, y, across, down = page.look("(({x, y, width, height}) => [x, y, width, height])(canvas.getBoundingClientRect())")

    def corner() -> str:
        """What lies under the pointer at the canvas's upper left."""
        page.point(x + across / 2, y - 4)
        page.point(x + 0.17 * across, y + 0.17 * down)
        return page.text("#tip").split()[0] if page.look("!document.querySelector('#tip').hidden") else ""

    def colour() -> tuple[int, ...]:
        """Of the canvas there, past the outline and the name."""
        return colours(page, 0.17, 0.25)[0]

    def wheel(delta_y: float, *, ctrl: bool) -> None:
        place = {"x": x + 0.75 * across, "y": y + 0.25 * down}
        wheel = {"type": "mouseWheel", "deltaX": 0, "deltaY": delta_y, "modifiers": 2 if ctrl else 0}
        page.send("Input.dispatchMouseEvent", **place, **wheel)

    assert corner() == "red"
    red = colour()
    assert red[0] > red[1] + 50
    wheel(-400, ctrl=True)
    page.until("document.querySelector('#zoom-factor').textContent !== '1×'")
    factor = float(page.text("#zoom-factor").removesuffix("×"))
    assert factor > 3 and page.look("scrollY") == 0
    assert corner() == "green", "the upper right quarter fills the canvas"
    green = colour()
    assert green[1] > green[0] + 50

    steps = [("mousePressed", 0.05, 0.5), ("mouseMoved", 0.5, 0.5), ("mouseMoved", 0.95, 0.5), ("mouseReleased", 0.95, 0.5)]
    for _ in range(8):  # across the picture, as far as its edge
        for kind, u, v in steps:
            where = {"x": x + u * across, "y": y + v * down}
            page.send("Input.dispatchMouseEvent", type=kind, **where, button="left", buttons=1, clickCount=1)
    assert colour()[0] > green[0] + 50, "dragged to the right, it shows what lies left"

    page.look("document.querySelector('#canvas').focus()")
    page.key("0")
    assert page.text("#zoom-factor") == "1×" and page.look("document.querySelector('#zoom-out').ariaDisabled") == "true"
    assert colour() == red
    page.click("#zoom-in")
    assert float(page.text("#zoom-factor").removesuffix("×")) == 1.5
    page.drop("#stage", picture)
    page.until("document.querySelector('#zoom-factor').textContent === '1×'")
    page.until(ANSWERED)


def test_zoom_by_keys_and_buttons(page, picture):
    dropped(page, picture)
    page.look("document.querySelector('#captions').click()")
    page.look("document.querySelector('#canvas').focus()")
    factors = []
    for key in ("+", "+", "-", "0", *12 * ["+"]):
        page.key(key)
        factors.append(page.text("#zoom-factor"))
    assert factors[:4] == ["1.5×", "2.3×", "1.5×", "1×"] and factors[-1] == "40×"
    pixels = set(colours(page, 0, 0.4, width=800))
    assert {(250, 0, 0), (0, 200, 0)} <= pixels and len(pixels) <= 3, "pixels are squares, not blurred into each other"
    for key in 3 * ["ArrowRight"] + ["ArrowDown"]:
        page.key(key)
    assert colours(page, 0.02, 0.4) == [(60, 0, 0)]
    for key in 3 * ["ArrowLeft"] + ["ArrowUp"]:
        page.key(key)
    assert colours(page, 0.02, 0.4) == [(250, 0, 0)]

    page.key("0")
    page.look("document.querySelector('#zoom-out').focus()")
    assert page.look("document.activeElement.ariaDisabled") == "true"
    page.look("document.querySelector('#zoom-in').focus()")
    page.key("Enter")
    assert page.text("#zoom-factor") == "1.5×" and page.look("document.querySelector('#zoom-out').ariaDisabled") == "false"
    page.look("document.querySelector('#zoom-out').focus()")
    page.key("Enter")
    assert page.text("#zoom-factor") == "1×"
    assert page.look("document.activeElement.id") == "zoom-out", "the focus stays where nothing more is to be done"


def test_the_zoom_is_announced_when_it_has_come_to_rest(page, picture):
    dropped(page, picture)
    page.look(
        "(() => { window.heard = []; new MutationObserver((changes) => { for (const { target } of changes) { const live = "
        "(target.closest ? target : target.parentElement).closest('output, [role=status], [role=alert], [aria-live]'); "
        "if (live) heard.push(live.textContent); } }).observe(document.body, "
        "{ childList: true, characterData: true, subtree: true }); })()"
    )
    page.look(
        "(() => { for (let i = 0; i < 8; i++) canvas.dispatchEvent(new WheelEvent('wheel', "
        "{ ctrlKey: true, deltaY: -25, cancelable: true })); })()"
    )
    page.until("heard.length > 0")
    assert page.text("#zoom-factor") == "2.2×" and page.look("heard") == ["Enlarged 2.2 times."]
    page.look("document.querySelector('#canvas').focus()")
    page.key("0")
    page.until("heard.length > 1")
    assert page.look("heard[1]") == "All of it is shown."


def test_the_tip_goes_with_its_instance(page, picture):
    found = dropped(page, picture)
    left, top, across = page.look("(({x, y, width}) => [x, y, width])(canvas.getBoundingClientRect())")
    x, y, width, height = found[1]["bbox"]
    scale = across / 200
    pointer = {"x": left + scale * (x + width / 2), "y": top + scale * (y + height / 2)}
    tip = "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('#tip').getBoundingClientRect())"
    page.point(**pointer)
    page.until("!document.querySelector('#tip').hidden")
    page.send("Input.dispatchMouseEvent", type="mouseWheel", **pointer, deltaX=0, deltaY=-200, modifiers=2)
    page.until("document.querySelector('#zoom-factor').textContent !== '1×'")
    tip_x, tip_y, *_ = page.look(tip)
    assert 0 < tip_x - pointer["x"] < 20 and 0 < tip_y - pointer["y"] < 20, "beside the pointer still"

    page.look("document.querySelector('#canvas').focus()")
    page.key("0")
    page.until(f"Math.abs({tip}[0] - {left + scale * x}) < 4")
    tip_x, tip_y, _, tip_height = page.look(tip)
    edges = (top + scale * y - (tip_y + tip_height), tip_y - (top + scale * (y + height)))
    assert 0 < max(edges) < 20, "just above or below its instance"
    for key in ("+", "+", "+", *9 * ["ArrowLeft"]):
        page.key(key)
    page.until("document.querySelector('#tip').hidden")
    for _ in range(9):
        page.key("ArrowRight")
    page.until("!document.querySelector('#tip').hidden")


def test_dragging_an_enlarged_picture_selects_no_text(page, picture):
    dropped(page, picture)
    page.click("#zoom-in")
    x, y = page.place("#canvas")
    to_x, to_y = page.place("#count")
    for kind, u, v in (("mousePressed", x, y), ("mouseMoved", x + 9, y), ("mouseMoved", to_x, to_y), ("mouseReleased", to_x, to_y)):
        page.send("Input.dispatchMouseEvent", type=kind, x=u, y=v, button="left", buttons=1, clickCount=1)
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=count)
    assert float(page.text("#zoom-factor").removesuffix("×")) > 3, "a double click enlarges"
    assert page.look("getSelection().toString()") == ""


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


def test_everything_to_be_used_has_a_name_and_a_place_in_the_order(page, picture):
    dropped(page, picture)
    nodes = [node for node in page.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    used = {"button", "link", "checkbox", "slider", "spinbutton", "combobox", "listbox", "option", "textbox", "image"}
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node]
    nameless = [role for role, name in named if role in used and not name.strip()]
    assert not nameless
    assert {"slider", "listbox", "option", "checkbox"} <= {role for role, _ in named}
    assert any(role == "image" and "quadrants.png" in name for role, name in named)
    assert next(name for role, name in named if role == "option").replace(" ,", ",") == "red, score 0.99, area 1,600 px"
    page.look("document.querySelector('.skip').focus()")
    order = []
    while len(order) < 60 and (not order or page.look("document.activeElement !== document.body")):
        page.key("Tab")
        order.append(page.look("document.activeElement.id || document.activeElement.textContent"))
    places = [order.index(one) for one in ("theme", "another", "score", "all", "instances", "png")]
    assert places == sorted(places)


def test_text_from_outside_stays_text(page, endpoint, picture):
    endpoint.change = lambda document: [
        one.update(category="<img src=x onerror=alert(1)>") for one in document["instances"]
    ]
    dropped(page, picture)
    assert "<img src=x" in page.text("#classes")
    assert page.look("document.querySelectorAll('main img').length") == 0


def test_skipping_to_the_content_stays_in_the_view(page):
    page.click("nav a[href='#batches']")
    page.until("document.title.startsWith('Batches')")
    page.look("addEventListener('hashchange', () => { window.changed = true; }, { once: true })")
    page.look("document.querySelector('.skip').focus()")
    page.key("Enter")
    page.until("window.changed && document.activeElement.id === 'main'")
    assert page.look("!document.querySelector('#batches').hidden && document.querySelector('#image').hidden")
    assert page.text("nav [aria-current]") == "Batches"


def test_the_models_are_asked_for_until_they_are_there(browser, endpoint):
    endpoint.refused_path = "/v1/models"
    endpoint.refusals += [problem(status, "starting", Retry_After="0.02") for status in (502, 429, *8 * [503])]
    endpoint.batches["b1"] = {**BATCH, "id": "b1", "images": "s3://in/", "out": "s3://out/"}
    endpoint.refusals.append(problem(503, "starting", Retry_After="1"))
    browser.appear(width=1280)
    browser.open(endpoint.url + "/?batches#batches")
    browser.until("document.querySelector('#model-facts').textContent === 'Service Unavailable. Asking again in 1 second.'")
    browser.until("document.querySelectorAll('#list li').length === 1")
    assert browser.look("document.querySelector('#image').hidden"), "the view that was asked for, meanwhile"
    browser.until(READY)
    assert browser.look("document.querySelector('#post [name=model]').value") == "rectangles"
    assert browser.look("document.querySelector('#problem').hidden") and not endpoint.refusals


@pytest.fixture
def forgetful(browser) -> Iterator[Browser]:
    """A browser that lets no page keep anything, as some do where cookies are blocked."""
    denied = "{ get() { throw new DOMException('denied', 'SecurityError'); } }"
    source = f"for (const name of ['sessionStorage', 'localStorage']) Object.defineProperty(window, name, {denied});"
    made = browser.send("Page.addScriptToEvaluateOnNewDocument", source=source)
    yield browser
    browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])


def test_without_the_browsers_storage_things_last_as_long_as_the_page(forgetful, endpoint, picture):
    endpoint.wants_token = True
    forgetful.appear(width=1280)
    forgetful.open(endpoint.url + "/")
    forgetful.until("document.activeElement.id === 'token-value'")
    forgetful.write(TOKEN)
    forgetful.key("Enter")
    forgetful.until(READY)
    dropped(forgetful, picture)
    assert forgetful.text("#theme") == "Auto"
    forgetful.click("#theme")
    assert forgetful.text("#theme") == "Light"
    assert forgetful.look("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_further_files_are_not_left_out_silently(page, endpoint, picture, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    page.drop("#stage", text, picture, picture, picture)
    page.until(ANSWERED)
    assert page.text("#status").endswith(
        "milliseconds. 3 further files were left out; a folder of images is a batch."
    )
    page.drop("#stage", picture, picture)
    page.until("document.querySelector('#status').innerText.includes('1 further file was left out')")
    page.until(ANSWERED)
    dropped(page, picture)
    page.until("document.querySelector('#status').innerText.endsWith('milliseconds.')")
    assert asked(endpoint) == 3




def test_a_token_is_asked_for_and_kept(browser, endpoint, picture):
    endpoint.wants_token = True
    browser.appear(width=1280)
    browser.open(endpoint.url + "/")
    for given in ("wrong", TOKEN):
        browser.until("document.activeElement.id === 'token-value'")
        browser.write(given)
        browser.key("Enter")
        browser.until(
            READY if given == TOKEN else "document.querySelector('#token-hint').innerText.includes('not know')"
        )
    dropped(browser, picture)
    browser.open(endpoint.url + "/?again")
    browser.until(READY)
    assert endpoint.tokens_seen[-1] == f"Bearer {TOKEN}"
    assert TOKEN not in browser.look("document.documentElement.outerHTML")
    browser.click("#forget")
    browser.until("document.readyState === 'complete' && !document.querySelector('#token').hidden")


def test_a_token_that_is_being_written_is_left_alone(browser, endpoint, picture):
    endpoint.wants_token = True
    endpoint.batches["b1"] = {**BATCH, "id": "b1", "images": "s3://in/", "out": "s3://out/"}
    browser.appear(width=1280)
    browser.open(endpoint.url + "/?written#batches")
    browser.until("document.activeElement.id === 'token-value'")
    browser.look("fetch('v1/models').then(() => null)")  # by now the list of batches has been refused too
    browser.write(TOKEN[:5])
    asked_before = len(endpoint.seen)
    browser.look("document.querySelector('#theme').focus()")
    look_again(browser)
    browser.click("nav a[href='#image']")
    browser.click("nav a[href='#batches']")
    browser.look("document.querySelector('#theme').focus()")
    browser.look("fetch('v1/models').then(() => null)")
    assert [path for _, path, _ in endpoint.seen[asked_before:]] == ["/v1/models"], "nothing is looked for meanwhile"
    browser.drop("body", picture)
    browser.until("document.querySelector('#under').hidden === false && document.querySelector('#busy').hidden")
    assert asked(endpoint) == 1
    assert browser.look("document.querySelector('#token-value').value") == TOKEN[:5]
    assert browser.look("document.activeElement.id") != "token-value"
    browser.look("document.querySelector('#token-value').focus()")
    browser.key("End")
    browser.write(TOKEN[5:])
    browser.key("Enter")
    browser.until(ANSWERED)
    assert browser.look("document.activeElement.id") == "main"
    browser.click("nav a[href='#batches']")
    browser.until("document.querySelectorAll('#list li').length === 1")
    browser.look("sessionStorage.clear()")


def test_batches_live(page, endpoint):
    running = {
        **BATCH,
        "id": "b1",
        "images": "s3://in/",
        "out": "s3://out/",
        "state": "running",
        "total": 1000,
        "done": 100,
    }
    endpoint.batches["b1"] = running | {"rate": 50.0, "eta_s": 18.0}
    page.click("nav a[href='#batches']")
    page.until("document.querySelector('#list progress')?.value === 0.1")
    assert "100 of 1,000 images · 50 per second · 18 seconds left" in page.text("#list")
    endpoint.batches["b1"]["done"] = 900
    page.until("document.querySelector('#list progress').value === 0.9")
    page.click("#list button")
    page.until("document.querySelector('#cancel').open")
    page.key("Escape")
    assert endpoint.batches["b1"]["state"] == "running"
    page.click("#list button")
    page.click("#cancel .danger")
    page.until("document.querySelector('#list .pill').innerText === 'cancelled'")
    assert "b1: cancelled" in page.look("document.querySelector('#batch-status').textContent")

    endpoint.refusals.append(problem(503, "no room for that"))
    page.click("#list button")
    page.until("document.querySelector('#batch-problem').innerText.includes('no room for that')")
    looked = len(endpoint.seen)
    page.click("nav a[href='#image']")
    page.click("nav a[href='#batches']")
    page.until("document.querySelector('#batch-status').textContent !== ''")
    assert "no room" in page.text("#batch-problem"), "looking again does not take it away"
    page.click("#list button")
    page.until("document.querySelector('#list').children.length === 0")
    assert len(endpoint.seen) > looked and len(page.console) == 1
    page.console.clear()
    page.click("#new summary")
    for name, value in (("images", "s3://in/more/"), ("out", "s3://out/more")):
        page.click(f"#post [name={name}]")
        page.write(value)
    page.key("Enter")
    page.until("document.querySelectorAll('#list li').length === 1")
    assert [(one["images"], one["out"]) for one in endpoint.batches.values()] == [("s3://in/more/", "s3://out/more")]


def look_again(page: Browser) -> None:
    """As when its reader comes back to the page."""
    page.look("document.dispatchEvent(new Event('visibilitychange'))")


def batch(name: str, state: str = "done") -> dict:
    return {**BATCH, "id": name, "images": f"s3://in/{name}/", "out": f"s3://out/{name}", "state": state, "total": 10}


def test_the_focus_stays_while_batches_come_and_go(page, endpoint):
    def listed(*names: str) -> None:
        wanted = "|".join(f"s3://in/{name}/ to s3://out/{name}" for name in names)
        page.until(
            "[...document.querySelectorAll('#list .paths')].map((one) => one.innerText).join('|') === "
            f"{json.dumps(wanted)}"
        )

    def focused() -> str:
        return page.look("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")

    endpoint.batches = {name: batch(name) for name in ("first", "second", "third")}
    page.click("nav a[href='#batches']")
    listed("first", "second", "third")
    page.look("document.querySelector('[aria-label=\"Forget batch second\"]').focus()")
    endpoint.batches = {"new": batch("new", "running"), **endpoint.batches}
    look_again(page)
    listed("new", "first", "second", "third")
    assert focused() == "Forget batch second", "one has come"
    del endpoint.batches["first"]
    look_again(page)
    listed("new", "second", "third")
    assert focused() == "Forget batch second", "one has gone"
    endpoint.batches = dict(reversed(endpoint.batches.items()))
    look_again(page)
    listed("third", "second", "new")
    assert focused() == "Forget batch second", "they are in another order"

    page.key("Enter")
    listed("third", "new")
    assert "s3://in/new/" in focused() and page.look("document.activeElement.localName") == "li", "the next card"
    assert page.look("document.querySelector('#batch-status').textContent") == "Batch second is forgotten."
    page.key("Tab")
    assert focused() == "Cancel batch new"
    del endpoint.batches["new"]
    look_again(page)
    listed("third")
    assert "s3://in/third/" in focused(), "the one before, where there is no next"
    page.key("Tab")
    page.key("Enter")
    listed()
    assert focused() == "Batches"

    page.look("document.querySelector('#new summary').focus()")
    page.key("Enter")
    page.key("Tab")
    page.write("s3://in/more/")
    page.key("Tab")
    page.write("s3://out/more")
    page.key("Enter")
    listed("more")
    assert focused() == "New batch", "the form is gone"


def test_what_has_ended_meanwhile_is_not_cancelled_and_what_has_gone_is_forgotten(page, endpoint):
    endpoint.batches = {"one": batch("one", "running"), "two": batch("two")}
    page.click("nav a[href='#batches']")
    page.until("document.querySelectorAll('#list li').length === 2")
    page.click("[aria-label='Cancel batch one']")
    endpoint.batches["one"].update(state="done", done=10)
    page.click("#cancel .danger")
    page.until("document.querySelector('#list .pill').innerText === 'done'")
    assert ("DELETE", "/v1/batches/one", {}) in endpoint.seen and "one" in endpoint.batches

    page.click("[aria-label='Forget batch one']")
    page.until("document.querySelectorAll('#list li').length === 1")
    assert ("DELETE", "/v1/batches/one", {"forget": "true"}) in endpoint.seen and list(endpoint.batches) == ["two"]

    endpoint.batches["two"].update(state="running")  # asked for again by somebody else
    page.click("[aria-label='Forget batch two']")
    page.until("!document.querySelector('#batch-problem').hidden")
    assert "batch two is under way" in page.text("#batch-problem")
    page.until("document.querySelector('#list .pill').innerText === 'running'")

    endpoint.batches["two"].update(state="done")
    look_again(page)
    page.until("document.querySelector('#list button').innerText === 'Forget'")
    endpoint.batches.clear()
    page.click("[aria-label='Forget batch two']")
    page.until("document.querySelectorAll('#list li').length === 0")
    assert page.look("document.querySelector('#batch-problem').hidden"), "gone is gone"
    assert len(page.console) == 2, "the browser's own notes of the 409 and the 404"
    page.console.clear()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_narrow_window_light_and_dark(page, picture, dark):
    page.appear(width=400, dark=dark)
    dropped(page, picture)
    assert page.look("document.documentElement.scrollWidth") == 400
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float)
    assert (np.median(pixels[-200:]) < 80) == dark


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


def test_the_files_as_they_are_served(endpoint):
    with httpx2.Client(base_url=endpoint.url, trust_env=False) as client:
        first = client.get("/")
        assert first.headers["content-type"] == "text/html; charset=utf-8" and b"{class_colours}" not in first.content
        again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head("/page/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
        for header, value in (("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")):
            assert first.headers[header] == value
        for name in ("index.html", "..%2fspec.py", "__init__.py", "x", "%00"):
            assert client.get(f"/page/{name}").status_code == 404


def test_the_policy_is_strict(page):
    policy = page.look("fetch('.').then((answer) => answer.headers.get('Content-Security-Policy'))")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy and "http" not in policy
    page.look("(() => { try { document.body.innerHTML = '<b>x</b>'; } catch {} })()")
    assert page.look("document.querySelector('main') !== null"), "markup from text is refused"
    page.console.clear()  # which says so
