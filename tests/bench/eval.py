"""Side by side: `rayseg.evaluation`, pycocotools, faster-coco-eval and hotcoco on the same generated files, masks and boxes.

    uv run python tests/bench/eval.py                  5,000 images, 36,000 truths, 100,000 predictions, then 50,000 images
    uv run python tests/bench/eval.py --images 500     another size; the second is ten times as large
    uv run python tests/bench/eval.py --rounds 3       each contestant so often, in turn; the fastest round counts
    uv run python tests/bench/eval.py --small-only     without the ten times larger set

Every contestant is a process of its own that reads the two files and gives all 24 numbers, which must agree; its time is from
start to end, its memory the most that it held (`ru_maxrss`). rayseg also gives everything else that `evaluate` finds, but for
intervals and boundaries, which the others do not have; what those add is a line of its own. Images are 480 x 640, sizes of
objects COCO-like (log-normal, median 12 % of the image's side), predictions shifted copies and false ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PEERS = ("rayseg", "pycocotools", "faster-coco-eval", "hotcoco")
TRUTHS_PER_IMAGE, PREDICTIONS_PER_IMAGE = 7.2, 20.0
CLASSES, SHAPES = 80, 400


# ---- the data


def blobs(count: int, rng: np.random.Generator, side: int = 28) -> np.ndarray:
    """Mask grids (N, M, M) float32 of wobbly blobs."""
    ys, xs = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    grids = np.empty((count, side, side), np.float32)
    for grid in grids:
        angle = np.arctan2(ys - rng.normal() * 0.1, xs - rng.normal() * 0.1)
        wobble = sum(rng.normal() * 0.18 / k * np.cos(k * angle + rng.random() * 6.3) for k in range(1, 7))
        grid[:] = 1 / (1 + np.exp(-(0.75 + wobble - np.hypot(xs, ys)) * 10))
    return grids


def write_data(folder: Path, images: int) -> tuple[int, int]:
    """Write `truth.json` and `results.json`; the numbers of truths and predictions."""
    rng = np.random.default_rng(0)
    grids, labels = blobs(SHAPES, rng), rng.zipf(1.6, 1 << 16) % CLASSES + 1
    truths = predictions = 0
    with (folder / "truth.json").open("w") as truth, (folder / "results.json").open("w") as found:
        listed = [{"id": i + 1, "file_name": f"{i + 1:012d}.jpg", "height": 480, "width": 640} for i in range(images)]
        categories = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(CLASSES)]
        truth.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(categories)}, "annotations": [')
        found.write("[")
        for image in range(images):
            boxes, which, classes = objects(rng, labels)
            for one in truths_of(image + 1, boxes, grids[which], classes, rng):
                truth.write(("" if truths == 0 else ", ") + json.dumps({"id": truths + 1, **one}))
                truths += 1
            for one in predictions_of(image + 1, boxes, grids, which, classes, rng):
                found.write(("" if predictions == 0 else ", ") + json.dumps(one))
                predictions += 1
        truth.write("]}")
        found.write("]")
    return truths, predictions


def objects(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) in pixels, shapes (N,) and classes (N,) of one image."""
    count = max(int(rng.poisson(TRUTHS_PER_IMAGE)), 1)
    size, aspect = np.clip(np.exp(rng.normal(np.log(0.12), 0.9, count)), 0.015, 0.95), np.exp(rng.normal(0, 0.4, count))
    wh = np.clip(np.stack([size * aspect, size / aspect], 1), 0.01, 1)
    centre = rng.random((count, 2)) * (1 - wh) + wh / 2
    boxes = np.concatenate([centre - wh / 2, centre + wh / 2], 1) * [640, 480, 640, 480]
    return boxes, rng.integers(0, SHAPES, count), labels[rng.integers(0, len(labels), count)]


def truths_of(image: int, boxes: np.ndarray, grids: np.ndarray, classes: np.ndarray, rng: np.random.Generator):
    from rayseg.kernels import paste_rle, to_polygons

    rles = paste_rle(grids, boxes.astype(np.float32), (480, 640))
    tight, areas = rles.boxes_xywh().tolist(), rles.areas().tolist()
    for i, parts in enumerate(to_polygons(rles, 0.7)):
        if areas[i] == 0:
            continue
        crowd = bool(rng.random() < 0.01)
        polygons = [part[0].ravel().tolist() for part in parts]
        uncompressed = {"size": [480, 640], "counts": rles.select([i]).runs()[0].tolist()}
        yield {
            "image_id": image,
            "category_id": int(classes[i]),
            "iscrowd": int(crowd),
            "area": areas[i],
            "bbox": tight[i],
            "segmentation": uncompressed if crowd else polygons,
        }


def predictions_of(
    image: int, boxes: np.ndarray, grids: np.ndarray, which: np.ndarray, classes: np.ndarray, rng: np.random.Generator
):
    from rayseg.kernels import paste_rle

    count = int(rng.poisson(PREDICTIONS_PER_IMAGE))
    owner = rng.integers(0, len(boxes), count)
    sides = np.tile(boxes[owner, 2:] - boxes[owner, :2], 2)
    moved = boxes[owner] + rng.normal(size=(count, 4)) * sides * 0.08
    false = rng.random(count) < 0.35
    moved[false] += np.tile(rng.normal(size=(int(false.sum()), 2)), 2) * 120
    moved = np.clip(moved, 0, [640, 480, 640, 480]).astype(np.float32)
    labels = np.where(rng.random(count) < 0.12, rng.integers(1, CLASSES + 1, count), classes[owner])
    scores = np.clip(rng.beta(2, 2, count) * np.where(false, 0.6, 1.0) + 0.02, 0, 1).round(4)
    kept = np.flatnonzero((moved[:, 2:] - moved[:, :2] > 1).all(axis=1))
    if not len(kept):
        return
    rles = paste_rle(grids[which[owner[kept]]], moved[kept], (480, 640))
    tight = rles.boxes_xywh().tolist()
    for i, counts in enumerate(rles.strings()):
        yield {
            "image_id": image,
            "category_id": int(labels[kept[i]]),
            "score": float(scores[kept[i]]),
            "bbox": tight[i],
            "segmentation": {"size": [480, 640], "counts": counts.decode()},
        }


# ---- the contestants, each in a process of its own


def contest_rayseg(folder: Path, **extra: Any) -> list[float]:
    from rayseg.evaluation import evaluate

    settings: dict[str, Any] = {"draws": 0, "boundary": False, "examples_each": 0, **extra}
    metrics = evaluate(str(folder / "truth.json"), str(folder / "results.json"), data_format="coco", **settings)
    return [float(value or 0) for name in ("segm", "bbox") for value in metrics.measures[name].values()]


def contest_all_of_rayseg(folder: Path) -> list[float]:
    return contest_rayseg(folder, draws=200, boundary=True, examples_each=8)


def contest_pycocotools(folder: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return usual(folder, COCO, COCOeval)


def contest_faster(folder: Path) -> list[float]:
    from faster_coco_eval import COCO, COCOeval_faster

    return usual(folder, COCO, COCOeval_faster)


def contest_hotcoco(folder: Path) -> list[float]:
    from hotcoco import COCO, COCOeval

    return usual(folder, COCO, COCOeval)


def usual(folder: Path, dataset: Any, evaluator: Any) -> list[float]:
    """What a script does: masks with their own sizes, then boxes."""
    truth, numbers = dataset(str(folder / "truth.json")), []
    for measure, dropped in (("segm", "bbox"), ("bbox", "segmentation")):
        results = json.loads((folder / "results.json").read_text())
        found = truth.loadRes([{key: value for key, value in one.items() if key != dropped} for one in results])
        del results
        evaluation = evaluator(truth, found, measure)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        numbers += [float(value) for value in evaluation.stats[:12]]
    return numbers


CONTESTANTS: dict[str, Callable[[Path], list[float]]] = {
    "rayseg": contest_rayseg,
    "rayseg, all of it": contest_all_of_rayseg,
    "pycocotools": contest_pycocotools,
    "faster-coco-eval": contest_faster,
    "hotcoco": contest_hotcoco,
}


class Run(NamedTuple):
    """One contestant's process: seconds by the clock and of all cores, peak megabytes, the 24 numbers."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    numbers: list[float]


def measure(name: str, folder: Path) -> Run:
    """Run one contestant in a new process."""
    command = [sys.executable, __file__, "--contestant", name, "--folder", str(folder)]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status != 0:
        raise SystemExit(f"{name} failed with status {status}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(seconds, cpu_seconds, usage.ru_maxrss / 1024, json.loads(output.splitlines()[-1]))


def compare(folder: Path, rounds: int) -> None:
    """All contestants in turn, and how rayseg stands to the others; the fastest round of each counts."""
    best: dict[str, Run] = {}
    for _ in range(rounds):
        for name in CONTESTANTS:
            found = measure(name, folder)
            best[name] = min(found, best.get(name, found), key=lambda run: run.seconds)
    own, reference = best["rayseg"], best["pycocotools"]
    print(
        f"{'':20}{'seconds':>9}{'of CPU':>9}{'peak MB':>9}{'rayseg is faster':>19}{'by CPU':>9}{'furthest apart':>16}"
    )
    for name, run in best.items():
        apart = max(abs(a - b) for a, b in zip(run.numbers, reference.numbers, strict=True))
        times = f"{run.seconds:9.2f}{run.cpu_seconds:9.2f}{run.megabytes:9.0f}"
        print(
            f"{name:20}{times}{run.seconds / own.seconds:18.2f}x{run.cpu_seconds / own.cpu_seconds:8.2f}x{apart:16.1e}"
        )
    fast = reference.seconds >= 10 * own.seconds and best["faster-coco-eval"].seconds >= 1.3 * own.seconds
    small = own.megabytes <= min(reference.megabytes, best["faster-coco-eval"].megabytes)
    print(f"wanted 10x pycocotools and 1.3x faster-coco-eval: {'met' if fast else 'missed'}", end="; ")
    print(f"no more memory than either: {'met' if small else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small-only", action="store_true")
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(CONTESTANTS[options.contestant](options.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="rayseg-bench-") as name:
        folder = Path(name)
        truths, predictions = write_data(folder, options.images)
        print(f"{options.images:,} images, {truths:,} truths, {predictions:,} predictions; {os.cpu_count()} cores")
        measure("rayseg, all of it", folder)  # compiles what is not compiled yet
        compare(folder, options.rounds)
        small = measure("rayseg, all of it", folder)
        if options.small_only:
            return
        truths, predictions = write_data(folder, 10 * options.images)
        large = measure("rayseg, all of it", folder)
    print(f"{10 * options.images:,} images, {truths:,} truths, {predictions:,} predictions: all of rayseg's")
    print(f"{large.seconds:.1f} s ({large.cpu_seconds:.1f} s of CPU), peak {large.megabytes:,.0f} MB;", end=" ")
    growth = large.megabytes / small.megabytes
    print(
        f"ten times as many images: {large.cpu_seconds / small.cpu_seconds:.1f}x the CPU time, {growth:.2f}x the memory"
    )


if __name__ == "__main__":
    main()
