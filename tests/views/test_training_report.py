"""The page of a training: curves of what there is, samples beside the truth, no word of a spec that is not escaped."""

import io
import re

import numpy as np
import pytest
from browser import open_page
from PIL import Image

from rayseg.annotations import AnnotatedImage, Annotation
from rayseg.views.charts import LIGHT
from rayseg.views.training_charts import CHARTS, MOST_POINTS
from rayseg.views.training_report import Sample, training_report


def rows_of(count, measured_every=10):
    """Rows as `metrics.csv` has them: every value a string, a row without losses where AP was measured."""
    rows = []
    for step in range(count):
        loss = {"loss": str(2.0 / (1 + step)), "loss_mask": str(1.0 / (1 + step)), "learning_rate": "1e-3"}
        spent = {f"{name}_s": "0.1" for name in ("wait", "forward", "backward", "optimizer")}
        rows.append({"step": str(step), "epoch": str(step / 10), "mask_ap": "", "box_ap": "", **loss, **spent})
        if step % measured_every == 9:
            rows.append({"step": str(step), "epoch": str(step / 10), "mask_ap": str(step / count), "box_ap": "0.5"})
    return rows


def sample():
    truth = AnnotatedImage("<a>.png", None, (40, 60), (Annotation(0, (5, 5, 25, 20)), Annotation(1, (30, 5, 50, 30))))
    found = AnnotatedImage("<a>.png", None, (40, 60), (Annotation(0, (6, 5, 24, 21), score=0.75),))
    return Sample(np.full((40, 60, 3), 200, np.uint8), truth, found)


def test_the_curves_are_those_of_the_rows():
    figure = CHARTS["losses"]({"rows": rows_of(50)}, LIGHT)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert set(lines) == {"loss", "mask"}
    assert np.allclose(lines["loss"], [[step / 10, 2 / (1 + step)] for step in range(50)])
    scores = CHARTS["scores"]({"rows": rows_of(50)}, LIGHT).axes[0].lines
    assert np.allclose(scores[0].get_ydata(), [step / 50 for step in (9, 19, 29, 39, 49)])


def test_a_long_run_is_drawn_in_few_points_whose_mean_is_that_of_all():
    (*_, loss) = CHARTS["losses"]({"rows": rows_of(5000)}, LIGHT).axes[0].lines
    values = loss.get_ydata()
    assert len(values) == MOST_POINTS
    assert values.mean() == pytest.approx(np.mean([2 / (1 + step) for step in range(5000)]))


@pytest.mark.parametrize("rows", [[], [{"step": "0", "epoch": "", "loss": "nan"}]])
def test_what_there_is_nothing_of_is_left_out(rows):
    assert all(chart({"rows": rows}, LIGHT) is None for chart in CHARTS.values())
    html = training_report("none", rows, [], [], {}, {"seed": 0}).decode()
    assert "<figure" not in html and 'href="#losses"' not in html and 'href="#spec"' in html


def test_samples_stand_beside_their_truth_and_names_are_escaped():
    html = training_report("<b>", rows_of(5), [sample()], ["a<b", "c"], {"model": "x<y"}, {"out": "<z>"}).decode()
    pairs = re.findall(r'<div class="pair">(.*?)</div>', html, re.DOTALL)
    assert len(pairs) == 1 and pairs[0].count("<figure>") == 2
    assert "truth, 2" in pairs[0] and "found, 1" in pairs[0] and "a&lt;b 0.75" in pairs[0]
    assert not re.search(r"<a>|<b>|x<y|<z>|a<b", html)
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (400, False)])
def test_it_opens_without_a_word_on_the_console(chromium, tmp_path, width, dark):
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_bytes(training_report("Opened", rows_of(60), [sample()], ["a", "b"], {"steps": 60}, {"seed": 0}))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _, logged = open_page(chromium, tmp_path, page, f"--screenshot={shot}", f"--window-size={width},900", scheme)
    assert "CONSOLE" not in logged, [line for line in logged.splitlines() if "CONSOLE" in line]
    pixels = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"), float)
    assert pixels.shape == (900, width)
    assert (np.median(pixels) < 80) == dark
    assert pixels.std() > 15, "there is something on it"
