"""Runs of a tiny network on a few drawn images: their specs, a worker's whole part, and one that is killed on the way."""

from __future__ import annotations

import os
import signal

import torch
from tiny_training import SETTINGS

from rayseg import read, specs
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.train import metrics_log
from rayseg.train.records import packed
from rayseg.train.session import Session
from rayseg.train.spec import TrainSpec

STEPS = 5


def write_data(folder, images=5):
    """A small COCO data set in `folder`; its path."""
    write_coco(folder, generate(images, seed=0, size_px=64, max_objects=3))
    return str(folder)


def spec_of(data, out, **changes):
    values = {"data": data, "out": str(out), "model": "maskrcnn_resnet10_fpn", "settings": SETTINGS, "batch_size": 2}
    values |= {"steps": STEPS, "save_every_steps": 2, "warmup_steps": 2, "loaders": 1, "average": 0.9}
    return specs.validate(TrainSpec, values | changes)


def go(spec, **hooks):
    """One worker's part of the run, in this process."""
    val = packed(read(spec.val)) if spec.val else None
    return Session(spec, packed(read(spec.data)), val, **hooks).go()


def go_and_be_killed(spec, step):
    """The same, until the process kills itself when it is told of `step`."""

    def tell(event):
        if event.get("step") == step:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    go(spec, tell=tell)


def losses(out):
    """The loss of each step by its number, as metrics.csv has it."""
    rows = metrics_log.read(str(out))
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): float(row["loss"]) for row in rows}
