"""Nodes of two kinds, through the Jobs API with a token: one joins, one dies, every image has its row all the same.

The long forms are commands: `three_raylets.py` beside this file, and `tests/label/killing.py`.
"""

import math
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from PIL import Image
from random_model import save_random
from ray_nodes import wait_for
from ray_stage import Stage

pytestmark = pytest.mark.xdist_group("ray")  # not beside the other tests on Ray: two cores are few enough

IMAGES = 48


class Watcher(threading.Thread):
    """Which processes of the pipeline were seen on which node, by name, until `stop`."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.seen, self.done = nodes, defaultdict(set), threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.1):
            for name, node in list(self.nodes.items()):
                for title in ("LabelWorker", "ReadAndDecode"):
                    if node.process.poll() is None and node.processes(title):
                        self.seen[name].add(title)


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path) as stage:
        rng = np.random.default_rng(0)
        photos = tmp_path / "photos"
        photos.mkdir()
        for i in range(IMAGES):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(photos / f"{i:02d}.jpg")
        stage.images = stage.upload(photos, "photos")
        stage.model = stage.upload(Path(save_random(tmp_path / "random", detections=3)), "model")
        stage.weights_bytes = (tmp_path / "random" / "model.safetensors").stat().st_size
        yield stage


def test_models_on_one_kind_of_node_decoding_on_another_and_a_node_dies(stage):
    with FaultyProxy(stage.server.endpoint) as first, FaultyProxy(stage.server.endpoint) as second:
        stage.add("head", 0)
        decode = stage.add("decode", 1, resources={"decode": 1})
        one = stage.add("model-1", 2, resources={"model": 2}, endpoint=first.url)
        out = f"{stage.bucket}/labels"
        job = stage.submit(
            f"images: {stage.images}\nmodel: {stage.model}\nout: {out}\nflush_s: 0.5\nworkers: 2\n"
            "worker_resources: {model: 1}\nread_resources: {decode: 0.1}\n"
        )
        nodes = {"decode": decode, "model-1": one}
        watcher = Watcher(nodes)
        wait_for("both models", lambda: len(one.processes("LabelWorker")) == 2 or job.process.poll() is not None)
        nodes["model-2"] = two = stage.add("model-2", 2, resources={"model": 2}, endpoint=second.url)
        stage.wait_for_object("labels/data/", ".parquet", job)
        one.kill()
        assert job.wait(300) == 0, job.said
        watcher.done.set()
        watcher.join()
    assert "rayseg: checked: " in job.said
    verified = stage.rayseg("verify", out)
    assert verified.wait() == 0, verified.said
    assert f"{IMAGES} labelled" in verified.said
    assert "LabelWorker" in watcher.seen["model-1"] and "ReadAndDecode" not in watcher.seen["model-1"]
    assert "LabelWorker" not in watcher.seen["decode"]
    assert two.process.poll() is None
    pieces = math.ceil(stage.weights_bytes / (16 << 20))
    for proxy in (first, second):  # two workers each, one download in pieces of 16 MB
        assert sum("model.safetensors" in line and line.startswith("GET") for line in proxy.requests) == pieces
