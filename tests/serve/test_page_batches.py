"""The page's batches: live, cancelled, forgotten, with the keyboard."""

from __future__ import annotations

import json

from serve.fake_endpoint import BATCH, problem
from serve.page_steps import look_again


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
