"""Label, train and evaluate on a cluster of three nodes, through the Jobs API with a token; a node dies during each.

    python tests/many_nodes/three_raylets.py

Everything is real but the machines: three raylets here, SeaweedFS, `rayseg submit --follow` as a process of its own. The
killed node is one that computes; a fresh one takes its place afterwards. Each job must end with exit code 0, `rayseg verify`
must pass on both label outputs, and the training's result must be a checkpoint that evaluation can use.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_model import save_random
from ray_nodes import RayNode, wait_for
from ray_stage import Job, Stage
from tiny_training import SETTINGS, TINY

from rayseg import read
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.models import checkpoints
from rayseg.models.maskrcnn import build


def spare(stage: Stage, workers: list[RayNode]) -> None:
    """Bring the cluster back to two nodes that compute."""
    while len(workers) < 2:
        workers.append(stage.add(f"worker-{time.monotonic_ns()}"))


def kill_one(workers: list[RayNode], title: str) -> None:
    """Kill a node that runs a process of this title."""
    busy = wait_for(title, lambda: [node for node in workers if node.processes(title)])
    workers.remove(busy[0])
    busy[0].kill()
    print(f"    killed a node with {title}", flush=True)


def ended_well(job: Job, what: str, begin: float) -> None:
    """Say so, or raise with what the job said."""
    code = job.wait()
    if code:
        raise SystemExit(f"{what} ended with {code}:\n{job.said[-6000:]}")
    print(f"{what}: exit code 0 after {time.monotonic() - begin:.0f} s; {job.lines[-1].strip()}", flush=True)


def label(stage: Stage, workers: list[RayNode], images: str, model: str) -> None:
    """A node dies once a part is stored."""
    begin, out = time.monotonic(), f"{stage.bucket}/labels"
    job = stage.submit(f"images: {images}\nmodel: {model}\nout: {out}\nflush_s: 1.0\n")
    stage.wait_for_object("labels/data/", ".parquet", job)
    kill_one(workers, "LabelWorker")
    ended_well(job, "label", begin)
    ended_well(stage.rayseg("verify", out), "verify", begin)


def train(stage: Stage, workers: list[RayNode], data: str) -> None:
    """A node dies once there is a checkpoint."""
    begin = time.monotonic()
    spec = f"data: {data}\nout: {stage.bucket}/model\nmodel: maskrcnn_resnet10_fpn\n"
    spec += f"settings: {json.loads(json.dumps(SETTINGS))}\n"
    spec += "steps: 12\nbatch_size: 4\nmicro_batch: 2\nsave_every_steps: 2\nworkers: 2\n"
    spec += "cpus_per_worker: 0.4\nloaders: 1\n"  # so that one node holds them all
    job = stage.submit(spec)
    stage.wait_for_object("model/checkpoints/", ".json", job)
    kill_one(workers, "RayTrainWorker")
    ended_well(job, "train", begin)


def evaluate(stage: Stage, workers: list[RayNode], data: str, model: str) -> None:
    """A node dies while the images are labelled."""
    begin, out = time.monotonic(), f"{stage.bucket}/eval"
    job = stage.submit(f"data: {data}\nmodel: {model}\nout: {out}\ndraws: 0\n", "--command", "eval")
    stage.wait_for_object("eval/labels/plan/", ".parquet", job)
    kill_one(workers, "LabelWorker")
    ended_well(job, "eval", begin)
    ended_well(stage.rayseg("verify", f"{out}/labels"), "verify", begin)


def untrained(folder: Path, class_names: list[str]) -> Path:
    """A checkpoint of the network that is trained here, before any training."""
    model = build("maskrcnn_resnet10_fpn", len(class_names), TINY)
    checkpoints.save(str(folder), model, "maskrcnn_resnet10_fpn", TINY, class_names)
    return folder


def main() -> None:
    """All three, one after the other, on one cluster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--first", choices=("label", "train", "eval"), default="label", help="leave out what is before")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Stage(Path(folder)) as stage:
        root = Path(folder) / "drawn"
        write_coco(root, generate(wanted.images, seed=0, size_px=96, max_objects=3))
        data = stage.upload(root, "data")
        model = stage.upload(Path(save_random(Path(folder) / "random")), "random")
        start = stage.upload(untrained(Path(folder) / "start", list(read(str(root)).class_names)), "start")
        stage.add("head", 0)
        workers: list[RayNode] = []
        todo = [
            lambda: label(stage, workers, f"{data}/images/", model),
            lambda: train(stage, workers, data),
            lambda: evaluate(stage, workers, data, start if wanted.first == "eval" else f"{stage.bucket}/model"),
        ]
        for work in todo[("label", "train", "eval").index(wanted.first) :]:
            spare(stage, workers)
            work()


if __name__ == "__main__":
    main()
