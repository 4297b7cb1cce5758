"""Reading a COCO file of a million annotations, against pycocotools: seconds and peak memory, each in a process of its own.

    python tests/bench/coco.py [--annotations N] [--file PATH] [--rounds N]

The file is generated: polygons of 6 to 60 points with two decimals, every fiftieth in two parts, every hundredth a crowd as
run lengths, 9 annotations per image in no order, as in COCO 2017.

    rayseg read      rayseg.read(...): categories, info, where everything lies
    rayseg all       and every image and annotation gone through, polygons as arrays
    rayseg first     and the first image
    pycocotools      COCO(...)
    json             json.load(...), which holds what pycocotools holds
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_SHAPES = 5000  # different ones, used over and over
_PER_IMAGE = 9


def generate(path: Path, count: int, seed: int = 0) -> None:
    """Write a COCO file of `count` annotations."""
    rng = np.random.default_rng(seed)
    shapes = [_shape(rng, number) for number in range(_SHAPES)]
    images = -(-count // _PER_IMAGE)
    owners, classes = rng.integers(0, images, count).tolist(), rng.integers(1, 91, count).tolist()
    categories = [{"supercategory": "thing", "id": number, "name": f"class {number}"} for number in range(1, 91)]
    with path.open("w") as file:
        file.write('{"info":{"year":2017},"licenses":[{"id":4}],"images":[')
        for number in range(images):
            image = {"license": 4, "file_name": f"{number:012d}.jpg", "coco_url": f"http://images.example/{number:012d}.jpg",
                     "height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52", "id": 3 * number + 9}  # fmt: skip
            file.write(("," if number else "") + json.dumps(image, separators=(",", ":")))
        file.write('],"annotations":[')
        for number in range(count):
            ids = f'"image_id":{3 * owners[number] + 9},"category_id":{classes[number]},"id":{number + 1}'
            file.write(f"{',' if number else ''}{{{shapes[number % _SHAPES]},{ids}}}")
        file.write(f'],"categories":{json.dumps(categories)}}}')


def _shape(rng: np.random.Generator, number: int) -> str:
    """The members of an annotation but for its ids, as JSON text."""
    if number % 100 == 99:
        runs = rng.integers(1, 400, 800)
        counts = [*runs.tolist(), 480 * 640 - int(runs.sum())]
        value = {
            "segmentation": {"counts": counts, "size": [480, 640]},
            "area": 5,
            "iscrowd": 1,
            "bbox": [0, 0, 640, 480],
        }
        return json.dumps(value, separators=(",", ":"))[1:-1]
    rings = [_ring(rng) for _ in range(2 if number % 50 == 0 else 1)]
    points = np.concatenate(rings).reshape(-1, 2)
    low, size = points.min(axis=0), np.round(np.ptp(points, axis=0), 2)
    value = {
        "segmentation": [ring.tolist() for ring in rings],
        "area": float(size.prod() * 0.7),
        "iscrowd": 0,
        "bbox": [*low.tolist(), *size.tolist()],
    }
    return json.dumps(value, separators=(",", ":"))[1:-1]


def _ring(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(6, 60))
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radii = rng.uniform(20, 60) * (1 + 0.2 * rng.standard_normal(count))
    centre = rng.uniform(80, 400, 2)
    return np.round(
        np.stack([centre[0] + radii * np.cos(turns), centre[1] + radii * np.sin(turns)], axis=1), 2
    ).reshape(-1)


# ---- what is measured; each returns how many annotations it has seen


def rayseg_read(path: str) -> int:
    import rayseg

    dataset = rayseg.read(path, "coco")
    return len(dataset.categories)


def rayseg_first(path: str) -> int:
    import rayseg

    return len(next(iter(rayseg.read(path, "coco").images)).annotations)


def rayseg_all(path: str) -> int:
    import rayseg

    return sum(len(image.annotations) for image in rayseg.read(path, "coco").images)


def pycocotools(path: str) -> int:
    from pycocotools.coco import COCO

    return len(COCO(path).anns)


def plain_json(path: str) -> int:
    with open(path) as file:
        return len(json.load(file)["annotations"])


READERS: dict[str, Callable[[str], int]] = {
    "rayseg read": rayseg_read,
    "rayseg first": rayseg_first,
    "rayseg all": rayseg_all,
    "pycocotools": pycocotools,
    "json": plain_json,
}


def measure(name: str, path: str) -> None:
    """In a process of its own: print wall seconds, CPU seconds, peak MiB, annotations seen."""
    begin, busy = time.perf_counter(), time.process_time()
    seen = READERS[name](path)
    wall, cpu = time.perf_counter() - begin, time.process_time() - busy
    print(json.dumps([wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seen]))


def run(path: Path, rounds: int) -> None:
    """Print a table: the median of the rounds, each reader against pycocotools."""
    found = {name: [_spawn(name, path) for _ in range(rounds)] for name in READERS}
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    theirs = medians["pycocotools"]
    print(f"{'':14}{'seconds':>10}{'CPU s':>10}{'peak MiB':>10}{'CPU ratio':>11}{'memory ratio':>14}")
    for name, (wall, cpu, memory, _) in medians.items():
        print(f"{name:14}{wall:10.1f}{cpu:10.1f}{memory:10.0f}{cpu / theirs[1]:11.2f}{memory / theirs[2]:14.3f}")
    assert medians["rayseg all"][3] == theirs[3], "rayseg and pycocotools see different numbers of annotations"


def _spawn(name: str, path: Path) -> list[float]:
    words = [sys.executable, __file__, "--measure", name, "--file", str(path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description="COCO reading against pycocotools")
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path, help="a COCO file to read instead of a generated one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, str(options.file))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder, "instances_train.json")
        if options.file is None:
            generate(path, options.annotations)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {os.cpu_count()} CPUs, median of {options.rounds}")
        rayseg_read(str(path))  # compiles, where nothing is in the cache yet
        run(path, options.rounds)


if __name__ == "__main__":
    main()
