"""On Ray: two workers, one of them killed on the way, learn what one process learns."""

import os
import signal
import threading

import psutil
import pytest
import ray
from tiny_training import SETTINGS

import rayseg
from rayseg import read, specs
from rayseg.datasets.synthetic import generate, write_coco
from rayseg.errors import JobError, Unreachable, UsageError
from rayseg.outputs import lock
from rayseg.train import checkpointing, metrics_log, waiting
from rayseg.train import run as driver
from rayseg.train.board import Board
from rayseg.train.records import Records, packed
from rayseg.train.run import absolute, run
from rayseg.train.session import Overtaken, Session
from rayseg.train.spec import TrainSpec
from rayseg.train.watching import LineReporter
from rayseg.train.worker import _Wish

STEPS = 14


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a small COCO data set."""
    root = tmp_path_factory.mktemp("data")
    write_coco(root, generate(6, seed=0, size_px=64, max_objects=3))
    return str(root)


def spec_of(data, out, **changes):
    values = {"data": data, "out": str(out), "model": "maskrcnn_resnet10_fpn"}
    values |= {"settings": SETTINGS | {"backbone_norm": "frozen_batch"}, "batch_size": 4, "micro_batch": 2}
    values |= {"steps": STEPS, "save_every_steps": 2, "warmup_steps": 2, "loaders": 1, "cpus_per_worker": 0.5}
    values |= {"loading": "tasks"}  # two cores would leave it to threads
    return specs.validate(TrainSpec, values | changes)


def kill_one_worker(out, ended):
    """Once there is a checkpoint, unless the run has ended."""
    while not checkpointing.all_of(out):
        if ended.wait(0.02):
            return
    for process in psutil.process_iter(["name", "cmdline"]):
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            os.kill(process.pid, signal.SIGKILL)
            return


def losses(out):
    return {int(row["step"]): float(row["loss"]) for row in metrics_log.read(str(out))}


@pytest.mark.long
def test_two_workers_of_which_one_is_killed(ray_cluster, data, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    Session(spec_of(data, alone), packed(read(data))).go()
    ended = threading.Event()
    killer = threading.Thread(target=kill_one_worker, args=[str(together), ended])
    killer.start()
    said = []
    report = LineReporter()
    report.say = said.append
    try:
        summary = run(spec_of(data, together, workers=2), report=report)
    finally:
        ended.set()
        killer.join()
    assert summary.steps == STEPS and summary.images == STEPS * 6 / 2  # an epoch of six has two steps
    assert any("going on from step" in one for one in said)
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    assert rayseg.load(str(together)).class_names == read(data).class_names
    # and the finished run is left as it is
    before = (together / "model.safetensors").read_bytes()
    assert run(spec_of(data, together, workers=1), report=report).steps == STEPS
    assert (together / "model.safetensors").read_bytes() == before
    with pytest.raises(JobError, match="learning_rate: was 0.001, now 0.5"):
        run(spec_of(data, together, learning_rate=0.5), report=report)


def test_the_summary_counts_the_images_that_were_left_out(ray_cluster, tmp_path):
    data = tmp_path / "data"
    write_coco(data, generate(6, seed=0, size_px=64, max_objects=3))
    broken = data / "images" / "000003.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    said = []
    report = LineReporter()
    report.say = said.append
    summary = run(spec_of(str(data), tmp_path / "out", on_error="skip", workers=2, steps=4), report=report)
    assert summary.left_out == summary.as_json()["left_out"] == 1 and "1 broken images left out" in summary.text()
    assert [one for one in said if "left out" in one] == [
        one for one in said if one.startswith("left out: 000003.jpg: ")
    ]
    assert sum("000003.jpg" in one for one in said) == 1


def test_a_model_that_is_not_a_trainings_is_left_alone(data, tmp_path):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a model"):
        run(spec_of(data, tmp_path), report=LineReporter())
    assert (tmp_path / "model.json").read_text() == "{}"


def test_two_runs_do_not_write_to_one_output(data, tmp_path):
    held = lock.acquire(str(tmp_path))
    try:
        with pytest.raises(JobError, match=f"another run is writing this output .*process {os.getpid()}"):
            run(spec_of(data, tmp_path), report=LineReporter())
    finally:
        held.release()
    assert not (tmp_path / "job.json").exists()


def test_a_run_waits_for_room_and_for_storage(no_cpu_left, data, tmp_path, monkeypatch):
    """It says what for; an image that storage cannot give for the moment costs a restart of the workers, not the run."""
    once = tmp_path / "once"

    class Away(Records):
        def training_image(self, rank):
            if not once.exists():
                once.touch()
                raise Unreachable("s3://bucket/a.jpg", "no answer for 60 s")
            return super().training_image(rank)

    def read_away(spec, report):
        found = packed(read(data))
        return Away(found.categories, found.data, found.offsets, found.instances), None

    monkeypatch.setattr(driver, "read_data", read_away)
    monkeypatch.setattr(waiting, "SAY_S", 0.5)
    said = []
    report = LineReporter()

    def say(message):
        said.append(message)
        if message.startswith("no worker has started yet: 1 wanted, with 1 CPU each; free in the cluster: 0"):
            ray.kill(no_cpu_left)

    report.say = say
    spec = spec_of(data, tmp_path / "out", steps=2, cpus_per_worker=1, loaders=0, max_failures=1)
    summary = run(spec, report=report)
    assert summary.steps == 2 and summary.images == 4 + 2
    assert "a worker failed: s3://bucket/a.jpg: no answer for 60 s" in said
    assert said[0].startswith("no worker has started yet")


def test_workers_end_where_another_run_took_over(ray_cluster):
    board = ray.remote(num_cpus=0)(Board).remote()
    wish = _Wish(board)

    def answer():
        ray.wait([wish._asked])
        return wish()

    assert answer() is False
    ray.get(board.stop.remote())
    answer()  # asked before the wish was there
    assert answer() is True
    ray.get(board.fail.remote("Overtaken", "another run took over"))
    answer()
    with pytest.raises(Overtaken, match="took over"):
        answer()


def test_names_of_weights_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.pth").touch()
    named = absolute(spec_of("data", "out", backbone_weights="ResNet50_Weights.IMAGENET1K_V2"))
    assert named.backbone_weights == "ResNet50_Weights.IMAGENET1K_V2" and named.out == f"{tmp_path}/out"
    assert absolute(spec_of("data", "out", backbone_weights="body.pth")).backbone_weights == f"{tmp_path}/body.pth"


def test_nothing_to_learn_is_said_at_once(tmp_path):
    from rayseg.datasets.synthetic import Sample

    one = next(generate(1, seed=0, size_px=64))
    empty = Sample(one.image, one.masks[:0], one.classes[:0])
    write_coco(tmp_path / "data", [empty])
    with pytest.raises(UsageError, match="nothing to learn"):
        run(spec_of(str(tmp_path / "data"), tmp_path / "out"), report=LineReporter())
    assert not (tmp_path / "out" / "lock.json").exists()
