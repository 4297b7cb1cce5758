"""Images per second of training: a plain torchvision loop with a DataLoader beside `rayseg train`, start-up apart.

    python tests/bench/train.py [--data COCO_FOLDER] [--steps 300] [--batch 4] [--rounds 2] [--workers 1 2]
                                [--loading auto tasks threads]

Both train the same network from the same seed on the same images with AdamW, mirrored at random, in batches of the same size
on all cores; the plain loop has a process per core that reads, `rayseg train` as many threads or Ray Data's tasks, and one
worker or several that share the cores and the batch. The first quarter of the steps does not count. Rounds take turns, so
that what else the machine does meets both; the best of each counts. Tasks load a thousand images ahead: what they take from
the network shows only in as many steps.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from pycocotools.coco import COCO
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import masks_to_boxes

from rayseg.datasets.synthetic import generate, write_coco
from rayseg.demo import ARCHITECTURE, SETTINGS
from rayseg.models.maskrcnn import build

CORES = len(os.sched_getaffinity(0))
SKIPPED = 0.25  # of the steps


class CocoFolder(Dataset):
    """As torchvision's own training reference reads COCO: pycocotools' masks, one image at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.coco = folder, COCO(folder / "instances.json")
        self.ids = sorted(self.coco.imgs)
        self.labels = {category: label for label, category in enumerate(sorted(self.coco.cats), 1)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        info = self.coco.imgs[self.ids[index]]
        image = torchvision.io.decode_image(str(self.folder / "images" / info["file_name"])) / 255
        rows = self.coco.loadAnns(self.coco.getAnnIds(imgIds=[info["id"]], iscrowd=False))
        masks = torch.from_numpy(np.stack([self.coco.annToMask(row) for row in rows]))
        boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
        if torch.rand(()) < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes = torch.stack([info["width"] - boxes[:, 2], boxes[:, 1], info["width"] - boxes[:, 0], boxes[:, 3]], 1)
        labels = torch.tensor([self.labels[row["category_id"]] for row in rows])
        return image, {"boxes": boxes.float(), "labels": labels, "masks": masks}


def plain(folder: Path, steps: int, batch: int) -> float:
    """Images per second of the plain loop."""
    data = CocoFolder(folder)
    model = build(ARCHITECTURE, len(data.labels), SETTINGS).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loader = DataLoader(data, batch, shuffle=True, num_workers=CORES, drop_last=True, collate_fn=lambda rows: rows)
    done, begin = 0, 0.0
    while True:
        for rows in loader:
            if done == int(SKIPPED * steps):
                begin = time.perf_counter()
            if done == steps:
                return (steps - int(SKIPPED * steps)) * batch / (time.perf_counter() - begin)
            losses = model([image for image, _ in rows], [target for _, target in rows])
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            done += 1


def rayseg(folder: Path, steps: int, batch: int, workers: int, loading: str, out: Path) -> float:
    """Images per second of `rayseg train`, from the clock in its metrics.csv."""
    settings = SETTINGS.model_dump(mode="json", exclude_defaults=True)
    spec = {"data": str(folder), "model": ARCHITECTURE, "settings": settings, "out": str(out), "steps": steps}
    spec |= {"batch_size": batch, "learning_rate": 1e-4, "workers": workers, "loaders": max(1, CORES // workers)}
    spec |= {"loading": loading}
    (out.parent / "spec.yaml").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "rayseg.cli", "train", "-f", str(out.parent / "spec.yaml"), "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (out / "metrics.csv").open() as file:
        elapsed = [float(row["elapsed_s"]) for row in csv.DictReader(file)]
    first = int(SKIPPED * steps)
    return (len(elapsed) - 1 - first) * batch / (elapsed[-1] - elapsed[first])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with images/ and instances.json; none: drawn images")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--loading", nargs="+", default=["auto"], choices=["auto", "tasks", "threads"])
    parser.add_argument("--plain", action="store_true", help="only the plain loop, and print its images per second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch) / "data"
        if given.data is None:
            # a whole number of batches, so that no step of either is smaller
            write_coco(folder, generate(given.batch * 40, 1, 128))
        if given.plain:
            print(plain(folder, given.steps, given.batch))
            return
        contestants = {
            f"{workers} worker{'s' if workers > 1 else ''}, loading {loading}": (workers, loading)
            for loading in given.loading
            for workers in given.workers
        }
        found: dict[str, list[float]] = {name: [] for name in ("plain", *contestants)}
        for number in range(given.rounds):
            command = [sys.executable, __file__, "--plain", "--data", str(folder)]
            command += ["--steps", str(given.steps), "--batch", str(given.batch)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found["plain"].append(float(said.splitlines()[-1]))
            for name, (workers, loading) in contestants.items():
                out = Path(scratch) / "out"
                found[name].append(rayseg(folder, given.steps, given.batch, workers, loading, out))
            rates = "; ".join(f"{name} {values[-1]:.2f}" for name, values in found.items())
            print(f"round {number}: {rates} images/s", flush=True)
        best = {name: max(values) for name, values in found.items()}
        for name in contestants:
            ratio = best[name] / best["plain"]
            print(f"best: plain {best['plain']:.2f}, {name} {best[name]:.2f} images/s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
