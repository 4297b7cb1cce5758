"""What a user does on the page, and what is seen there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from browser import Browser
from PIL import Image
from serve.fake_endpoint import Endpoint

from rayseg import load

ANSWERED = "!document.querySelector('#found').hidden && document.querySelector('#busy').hidden"
READY = "document.querySelector('#model-facts').textContent.includes('classes')"


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
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => { const pen = "
        f"new OffscreenCanvas({width}, 1).getContext('2d'); "
        f"pen.drawImage(canvas, -Math.round({x} * canvas.width), -Math.round({y} * canvas.height)); "
        f"done([...pen.getImageData(0, 0, {width}, 1).data]); }})))"
    )
    return [tuple(data[i : i + 3]) for i in range(0, len(data), 4)]


def asked(endpoint: Endpoint) -> int:
    return sum(path == "/v1/predict" for _, path, _ in endpoint.seen)


def look_again(page: Browser) -> None:
    """As when its reader comes back to the page."""
    page.look("document.dispatchEvent(new Event('visibilitychange'))")
