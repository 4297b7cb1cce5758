"""A worker's whole part: whatever ends it, the same spec goes on, and ends where an uninterrupted run ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from tiny_training import SETTINGS

import rayseg
from rayseg import read, specs
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import JobError
from rayseg.train import metrics_log
from rayseg.train.records import packed
from rayseg.train.session import Session
from rayseg.train.spec import TrainSpec

STEPS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a small COCO data set."""
    root = tmp_path_factory.mktemp("data")
    write_coco(root, generate(5, seed=0, size_px=64, max_objects=3))
    return str(root)


def spec_of(data, out, **changes):
    values = {"data": data, "out": str(out), "model": "maskrcnn_resnet10_fpn", "settings": SETTINGS, "batch_size": 2}
    values |= {"steps": STEPS, "save_every_steps": 2, "warmup_steps": 2, "loaders": 1, "average": 0.9}
    return specs.validate(TrainSpec, values | changes)


def go(spec, **hooks):
    val = packed(read(spec.val)) if spec.val else None
    return Session(spec, packed(read(spec.data)), val, **hooks).go()


def losses(out):
    """The loss of each step by its number, as metrics.csv has it."""
    rows = metrics_log.read(str(out))
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): float(row["loss"]) for row in rows}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The output of a run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole")
    assert go(spec_of(data, out)).finished
    return out


def test_a_finished_run_is_a_checkpoint_folder(whole, data):
    model = rayseg.load(str(whole))
    assert model.class_names == read(data).class_names
    assert model.info.training["steps"] == STEPS and model.info.training["spec"]["data"] == data
    assert sorted(losses(whole)) == list(range(STEPS))


def test_the_same_seed_gives_the_same_weights(whole, data, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    go(spec_of(data, same, loaders=0, save_every_steps=100))
    go(spec_of(data, other, seed=1, steps=1))
    weights = [(out / "model.safetensors").read_bytes() for out in (whole, same, other)]
    assert weights[0] == weights[1] != weights[2]


def test_a_run_that_was_asked_to_stop_goes_on(whole, data, tmp_path):
    told = []
    outcome = go(spec_of(data, tmp_path), tell=told.append, stop_wanted=lambda: len(told) >= 3)
    assert not outcome.finished and 3 <= outcome.steps < STEPS
    assert not (tmp_path / "model.json").exists()
    assert go(spec_of(data, tmp_path)).finished
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-4)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(whole, data, tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from test_session import go, spec_of
def tell(event):
    if event.get("step") == 2:
        os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
go(spec_of({data!r}, {str(tmp_path)!r}), tell=tell)
"""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    assert subprocess.run([sys.executable, "-c", script], env=env, check=False).returncode == -signal.SIGKILL
    told = []
    assert go(spec_of(data, tmp_path), tell=told.append).finished
    assert "going on from step 2" in told[0]["message"]
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-4)


def test_images_of_a_loss_that_is_not_finite_are_named_and_kept(data, tmp_path):
    told = []
    with pytest.raises(JobError, match="diverged"):
        spec = spec_of(data, tmp_path, learning_rate=1e30, warmup_steps=0, max_skipped=2, steps=20, clip_norm=1e30)
        go(spec, tell=told.append)
    (first, *_) = sorted((tmp_path / "non-finite").iterdir())
    with safetensors.safe_open(first, "pt") as kept:
        names = json.loads(kept.metadata()["names"])
        assert kept.get_tensor("0.image").shape[0] == 3
    said = [event["message"] for event in told if "skipped" in event.get("message", "")]
    assert any("non-finite" in one and names[0] in one for one in said)


def test_training_ends_early_where_nothing_gets_better(data, tmp_path):
    spec = spec_of(data, tmp_path, val=data, patience=1, steps=None, epochs=50, learning_rate=1e-9, batch_size=5)
    outcome = go(spec)
    assert outcome.finished and outcome.steps < 50
    assert rayseg.load(str(tmp_path)).info.metrics["segm"]["AP"] == outcome.best
    assert {"mask_ap", "box_ap"} <= set(metrics_log.read(str(tmp_path))[0])
