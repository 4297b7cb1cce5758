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
from rayseg.train.records import packed
from rayseg.train.session import Overtaken

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
    outcome = go(spec_of(data, tmp_path))
    assert outcome.finished and outcome.images == 5 + 2 + 2  # of an epoch, and of two steps
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


def crash(*arguments):
    raise RuntimeError("cut off")


def scores(out):
    """The AP of each step that was measured, as metrics.csv has it."""
    rows = [row for row in metrics_log.read(str(out)) if row.get("mask_ap")]
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): float(row["mask_ap"]) for row in rows}


def test_a_last_step_that_was_saved_before_it_was_measured_may_be_the_best(data, tmp_path):
    outcome = go(spec_of(data, tmp_path, val=data, steps=3, evaluate_every=5, save_every_steps=1))
    assert outcome.best is not None
    assert [one.score for one in checkpointing.all_of(str(tmp_path))] == [None, outcome.best]
    assert rayseg.load(str(tmp_path)).info.metrics["segm"]["AP"] == outcome.best


def test_a_stop_in_the_middle_of_validation_loses_nothing(data, tmp_path):
    """What was learnt is saved before it is measured, and measured before the next session learns more."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = {"val": data, "steps": None, "epochs": 2, "save_every_steps": 100, "evaluate_every": 1}
    expected = go(spec_of(data, whole, **changes))
    outcome = go(spec_of(data, stopped, **changes), stop_wanted=lambda: bool(checkpointing.all_of(str(stopped))))
    assert not outcome.finished and outcome.steps == 3 and outcome.scores == {}
    assert [(one.step, one.score) for one in checkpointing.all_of(str(stopped))] == [(3, None)]
    outcome = go(spec_of(data, stopped, **changes))
    assert outcome.finished and outcome.best == expected.best
    assert sorted(scores(stopped)) == [2, 5] and scores(stopped) == scores(whole)


def test_a_score_that_is_measured_again_has_one_row(data, tmp_path, monkeypatch):
    spec = spec_of(data, tmp_path, val=data, steps=None, epochs=1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(checkpointing, "add_to", crash)  # between the row and the checkpoint
        go(spec)
    assert sorted(scores(tmp_path)) == [2]
    assert go(spec).finished and sorted(scores(tmp_path)) == [2]


def test_a_run_cut_off_after_its_last_step_only_finishes(data, tmp_path, monkeypatch):
    spec = spec_of(data, tmp_path, val=data, patience=1, steps=None, epochs=50, learning_rate=1e-9, batch_size=5)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(session, "finish", crash)
        go(spec)
    last = checkpointing.all_of(str(tmp_path))[-1].step
    assert last < 50
    outcome = go(spec)
    assert outcome.finished and outcome.steps == last
    assert rayseg.load(str(tmp_path)).info.metrics["segm"]["AP"] == outcome.best


@pytest.mark.parametrize(("error", "kept"), [(JobError, [0, 1]), (Overtaken, [])])
def test_rows_until_an_error_are_kept_unless_the_output_is_another_runs(data, tmp_path, error, kept):
    asked = []

    def stop_wanted():
        asked.append(None)
        if len(asked) == 3:
            raise error("it cannot go on")
        return False

    with pytest.raises(error):
        go(spec_of(data, tmp_path, save_every_steps=100), stop_wanted=stop_wanted)
    assert sorted(losses(tmp_path)) == kept


def test_broken_images_are_left_out_and_named_where_they_are_to_be_skipped(tmp_path):
    data, val = (write_data(tmp_path / name) for name in ("data", "val"))
    spec = spec_of(data, tmp_path / "out", val=val, on_error="skip")
    learnt_from, measured_on = packed(read(data, on_error="skip")), packed(read(val, on_error="skip"))
    (tmp_path / "data" / "images" / "000001.jpg").write_bytes(b"no image")
    (tmp_path / "val" / "images" / "000002.jpg").unlink()
    told = []
    outcome = session.Session(spec, learnt_from, measured_on, tell=told.append).go()
    assert outcome.finished and outcome.best is not None and (tmp_path / "out" / "report.html").exists()
    left_out = {event["why"] for event in told if event["event"] == "left_out"}
    assert len(left_out) == 2
    assert any(why.startswith("000001.jpg: ") for why in left_out) and any(
        "val/images/000002.jpg" in why for why in left_out
    )
