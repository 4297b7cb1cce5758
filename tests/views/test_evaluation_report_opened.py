"""The evaluation's page as a browser has it: Chromium, light and dark, wide and narrow, without a word on its console."""

from __future__ import annotations

import io
import json
from pathlib import Path

import evaluation_scenes as scenes
import numpy as np
import pytest
from browser import open_page
from PIL import Image

from rayseg.evaluation import evaluate
from rayseg.views.evaluation_report import evaluation_report


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A page with every section and pictures in it."""
    folder = tmp_path_factory.mktemp("opened")
    truth, results = scenes.scene(6, images=25)
    for image in truth["images"]:
        pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    (folder / "truth.json").write_text(json.dumps(truth))
    metrics = evaluate(
        str(folder / "truth.json"), results, data_format="coco", images=str(folder), draws=20, examples_each=4
    )
    values = json.loads(json.dumps(metrics.to_json()))
    path = folder / "report.html"
    path.write_bytes(evaluation_report("Opened", values, metrics.examples, {"Ground truth": "truth.json"}))
    return path


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_a_word_on_the_console(chromium, report, tmp_path, width, dark):
    shot = tmp_path / "shot.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _, logged = open_page(chromium, tmp_path, report, f"--screenshot={shot}", f"--window-size={width},900", scheme)
    assert "CONSOLE" not in logged, [line for line in logged.splitlines() if "CONSOLE" in line]
    pixels = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"), float)
    assert pixels.shape == (900, width)
    assert (np.median(pixels) < 80) == dark, "the page is as light or dark as its reader likes it"
    assert pixels.std() > 15, "there is something on it"


def test_its_script_runs(chromium, report, tmp_path):
    """The policy admits it: columns can be sorted by, and the switches that need it are shown."""
    page, logged = open_page(chromium, tmp_path, report, "--dump-dom")
    assert '<th scope="col"><button type="button">class</button></th>' in page
    assert '<button type="button" id="theme">' in page and "CONSOLE" not in logged


def test_a_word_on_the_console_would_be_seen(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<script>throw new Error('seen')</script>")
    _, logged = open_page(chromium, tmp_path, page, "--dump-dom")
    assert "CONSOLE" in logged and "seen" in logged
