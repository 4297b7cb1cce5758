"""Label on nodes of two kinds: the head decodes, others run models; one of these joins, one dies.

    python tests/many_nodes/kinds_of_nodes.py

Through the Jobs API with a token. Kinds are Ray's custom resources, as `worker_resources` and `read_resources` of a spec ask for
them. Each node has a cache of its own and a proxy before the store: with two model workers per node, a node fetches the
checkpoint once. The suite runs the same with a model that costs nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from faulty_proxy import FaultyProxy
from random_model import save_random
from ray_nodes import RayNode, wait_for
from ray_stage import Job, Stage

PIECE_BYTES = 16 << 20  # of a download


class Watcher(threading.Thread):
    """Which processes of the pipeline were seen on which node, by name, until `stop`."""

    def __init__(self, nodes: dict[str, RayNode]) -> None:
        super().__init__(daemon=True)
        self.nodes, self.seen = nodes, defaultdict[str, set[str]](set)
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        """Look again and again."""
        while not self._done.wait(0.03):
            for name, node in list(self.nodes.items()):
                for title in ("LabelWorker", "ReadAndDecode"):
                    if node.process.poll() is None and node.processes(title):
                        self.seen[name].add(title)

    def stop(self) -> dict[str, set[str]]:
        """What was seen."""
        self._done.set()
        self.join()
        return self.seen


def draw(folder: Path, count: int) -> Path:
    """`count` JPEG files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).save(folder / f"{i:03d}.jpg")
    return folder


def label(
    stage: Stage, images: str, model: str, endpoints: tuple[str, str], per_node: int
) -> tuple[Job, dict[str, set[str]]]:
    """Label `images` into `BUCKET/labels`; a second model node joins, the first one dies once a part is stored.

    The job, which has ended, and which processes ran where.
    """
    nodes = {"decode": stage.add("head", 1, resources={"decode": 1})}
    nodes["model-1"] = stage.add("model-1", per_node, resources={"model": per_node}, endpoint=endpoints[0])
    job = stage.submit(
        f"images: {images}\nmodel: {model}\nout: {stage.bucket}/labels\nflush_s: 0.5\nworkers: {per_node}\n"
        "worker_resources: {model: 1}\nread_resources: {decode: 0.1}\n"
    )
    watcher = Watcher(nodes)
    try:
        wait_for("a part, or the end", lambda: job.process.poll() is not None or stage.objects("labels/data/"), 600)
        nodes["model-2"] = stage.add("model-2", per_node, resources={"model": per_node}, endpoint=endpoints[1])
        nodes["model-1"].kill()
        job.wait()
    finally:
        seen = watcher.stop()
    return job, seen


def check_places(seen: dict[str, set[str]]) -> None:
    """Models ran on model nodes alone, decoding nowhere else than on the head."""
    assert seen["decode"] == {"ReadAndDecode"}, seen
    assert "LabelWorker" in seen["model-1"] | seen["model-2"], seen
    assert "ReadAndDecode" not in seen["model-1"] | seen["model-2"], seen


def main() -> None:
    """With a real model, two workers per node, and enough images that the first node dies in the middle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=200)
    wanted = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, Stage(Path(scratch)) as stage:
        images = stage.upload(draw(Path(scratch) / "photos", wanted.images), "photos")
        local = Path(save_random(Path(scratch) / "random", detections=3))
        model, pieces = (
            stage.upload(local, "model"),
            math.ceil((local / "model.safetensors").stat().st_size / PIECE_BYTES),
        )
        with FaultyProxy(stage.server.endpoint) as first, FaultyProxy(stage.server.endpoint) as second:
            job, seen = label(stage, images, model, (first.url, second.url), per_node=2)
            print(f"label: exit code {job.wait()} after {time.monotonic() - begin:.0f} s; seen: {dict(seen)}")
            check_places(seen)
            for name, proxy in (("model-1", first), ("model-2", second)):
                found = sum(line.startswith("GET") and "model.safetensors" in line for line in proxy.requests)
                print(f"{name}: fetched the checkpoint in {found} pieces of 16 MB, one copy is {pieces}")
                assert found == pieces, proxy.requests
        checked = stage.rayseg("verify", f"{stage.bucket}/labels")
        assert checked.wait() == 0, checked.said
        print(checked.said)


if __name__ == "__main__":
    main()
