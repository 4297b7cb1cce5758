"""Who can use the page: by keyboard, in a narrow window, with a token, without storage; and under which policy."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from browser import Browser
from PIL import Image
from serve.fake_endpoint import BATCH, TOKEN, problem
from serve.page_steps import ANSWERED, READY, asked, dropped, look_again


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
    browser.until(
        "document.querySelector('#model-facts').textContent === 'Service Unavailable. Asking again in 1 second.'"
    )
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


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_narrow_window_light_and_dark(page, picture, dark):
    page.appear(width=400, dark=dark)
    dropped(page, picture)
    assert page.look("document.documentElement.scrollWidth") == 400
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float)
    assert (np.median(pixels[-200:]) < 80) == dark


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
