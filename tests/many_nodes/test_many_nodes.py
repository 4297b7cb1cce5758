"""Nodes of two kinds, through the Jobs API with a token: one joins, one dies, every image has its row all the same.

The long forms are commands: `kinds_of_nodes.py` and `three_raylets.py` beside this file, and `tests/label/killing.py`.
"""

import runpy
from pathlib import Path

import pytest
from ray_stage import Stage

from rayseg.outputs.verify import verify

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("ray"),
]  # not beside the other tests on Ray: two cores are few enough

IMAGES = 60
scenario = runpy.run_path(str(Path(__file__).parent / "kinds_of_nodes.py"))


def test_models_on_one_kind_of_node_decoding_on_another_and_a_node_dies(tmp_path, monkeypatch):
    with Stage(tmp_path) as stage:
        images = stage.upload(scenario["draw"](tmp_path / "photos", IMAGES), "photos")
        job, seen = scenario["label"](stage, images, "rectangles", (stage.server.endpoint,) * 2, per_node=1)
        assert job.wait() == 0, job.said
        assert "rayseg: checked: " in job.said and f"{IMAGES} images: {IMAGES} labelled" in job.said
        scenario["check_places"](seen)
        for name, value in stage.storage_env(stage.server.endpoint).items():
            monkeypatch.setenv(name, value)
        report = verify(f"{stage.bucket}/labels")
        assert report.ok and report.counts["labelled"] == IMAGES, report.text()
