"""Chromium with the page in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from serve.page_steps import READY


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
