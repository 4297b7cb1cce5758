"""A worker's whole part: whatever ends it, the same spec goes on, and ends where an uninterrupted run ends."""

import json
import signal

import forked
import pytest
import safetensors.torch
from tiny_runs import STEPS, go, go_and_be_killed, losses, spec_of, write_data
from tiny_training import SETTINGS

import rayseg
from rayseg import read
from rayseg.datasets.synthetic import generate
from rayseg.errors import JobError
from rayseg.train import checkpointing, metrics_log, session

pytestmark = pytest.mark.xdist_group("forked")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a small COCO data set."""
    return write_data(tmp_path_factory.mktemp("data"))


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
    killed = forked.start(go_and_be_killed, spec_of(data, tmp_path), 2)
    assert forked.exit_codes(killed) == [-signal.SIGKILL]
    told = []
    assert go(spec_of(data, tmp_path), tell=told.append).finished
    assert "going on from step 2" in told[0]["message"]
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-4)


def test_steps_that_had_no_row_yet_are_not_lost(data, tmp_path):
    """Rows of three steps, checkpoints every two: what a killed run had begun to add up is in its checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    go(spec_of(data, whole, report_every_steps=3))
    assert sorted(losses(whole)) == [2, 4]  # the last row is of two
    process = forked.start(go_and_be_killed, spec_of(data, killed, report_every_steps=3), 2)
    assert forked.exit_codes(process) == [-signal.SIGKILL]
    assert losses(killed) == {}
    assert go(spec_of(data, killed, report_every_steps=3)).finished
    assert losses(killed) == pytest.approx(losses(whole), abs=1e-4)


def test_a_machine_about_to_be_lost_saves_at_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_ASK_S", 0.0)
    asked, told = [], []

    def notice():
        asked.append(checkpointing.all_of(str(tmp_path)))
        return len(asked) == 3

    go(spec_of(data, tmp_path, save_every_steps=100, keep=9), notice=notice, tell=told.append)
    assert asked == [[], [], []]
    assert [one.step for one in checkpointing.all_of(str(tmp_path))] == [3, STEPS]
    assert sum("taken away" in event.get("message", "") for event in told) == 1


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"precision": "bf16"}, {"synchronised_norm": True}])
def test_every_precision_and_norm_ends_in_a_model_that_labels(data, tmp_path, change):
    settings = SETTINGS | {"backbone_norm": "batch"}
    outcome = go(spec_of(data, tmp_path, settings=settings, steps=2, **change))
    assert outcome.finished and outcome.skipped == 0
    image = next(generate(1, seed=9, size_px=64)).image
    assert rayseg.load(str(tmp_path)).predict([image])[0].image_hw == (64, 64)


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
