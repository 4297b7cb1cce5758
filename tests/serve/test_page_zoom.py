"""The picture enlarged: what is pointed at and drawn, by wheel, drag, keys and buttons."""

from __future__ import annotations

from serve.page_steps import ANSWERED, colours, dropped


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

    steps = [
        ("mousePressed", 0.05, 0.5),
        ("mouseMoved", 0.5, 0.5),
        ("mouseMoved", 0.95, 0.5),
        ("mouseReleased", 0.95, 0.5),
    ]
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
    assert (
        page.text("#zoom-factor") == "1.5×" and page.look("document.querySelector('#zoom-out').ariaDisabled") == "false"
    )
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


def test_a_double_click_enlarges_around_its_place(page, picture):
    dropped(page, picture)
    x, y = page.place("#canvas")
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=count)
    assert page.text("#zoom-factor") == "2.3×"
    assert colours(page, 0.48, 0.45)[0] == (250, 0, 0) and colours(page, 0.52, 0.45)[0] == (0, 200, 0)
