"""What a job record lets go on: the same training or search, and another one where nothing has been learnt yet."""

import json

import pytest
from tiny_runs import spec_of
from tiny_training import Line

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset
from rayseg.errors import JobError
from rayseg.train import checkpointing, job, tracking
from rayseg.train.loop import Loop
from rayseg.train.recipe import Recipe
from rayseg.train.records import packed
from rayseg.train.tune_spec import TuneSpec


def records_of(*names):
    box = Annotation(0, (0, 0, 8, 8))
    return packed(Dataset((Category("a"),), [AnnotatedImage(name, "nowhere.png", (9, 9), (box,)) for name in names]))


DATA = records_of("a", "b")


def recorded(out):
    return json.loads(storage.read(f"{out}/job.json"))["spec"]


def save_checkpoint(out):
    checkpointing.save(str(out), Loop(Line(), Recipe()), None, {})


def save_model(out):
    storage.write(f"{out}/model.json", b"{}")


@pytest.mark.parametrize("learn", [save_checkpoint, save_model])
def test_a_try_gives_way_to_another_spec_until_something_is_learnt(tmp_path, learn):
    job.begin(spec_of("data", tmp_path, model="maskrcnn_resnet10_fpm"), DATA, None)
    storage.write(f"{tmp_path}/{tracking.NAME}", b"{}")
    right = job.begin(spec_of("data", tmp_path), DATA, None)
    assert recorded(tmp_path)["model"] == right.model == "maskrcnn_resnet10_fpn"
    assert not storage.exists(f"{tmp_path}/{tracking.NAME}")  # it was the first try's
    learn(tmp_path)
    with pytest.raises(JobError, match="model: was 'maskrcnn_resnet10_fpn', now 'maskrcnn_resnet18_fpn'"):
        job.begin(spec_of("data", tmp_path, model="maskrcnn_resnet18_fpn"), DATA, None)
    with pytest.raises(JobError, match="data: were .*'images': 2.*, now .*'images': 3"):
        job.begin(spec_of("data", tmp_path), records_of("a", "b", "c"), None)
    assert recorded(tmp_path)["model"] == right.model


def test_a_run_goes_on_with_the_micro_batch_it_began_with(tmp_path):
    begun = job.begin(spec_of("data", tmp_path, batch_size=4, workers=2), DATA, None)
    storage.write(f"{tmp_path}/{tracking.NAME}", b"{}")
    assert begun.micro_batch == 2
    assert job.begin(spec_of("data", tmp_path, batch_size=4, workers=4), DATA, None).micro_batch == 2
    assert storage.exists(f"{tmp_path}/{tracking.NAME}")


def search(out, **changes):
    train = {"data": "data", "val": "data", "model": "maskrcnn_resnet10_fpn", **changes.pop("train", {})}
    values = {"out": str(out), "train": train, "search": {"learning_rate": {"uniform": [0.1, 0.2]}}}
    return TuneSpec.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"epochs": 3}}, "train.epochs: was None, now 3"),
        ({"search": {"learning_rate": {"uniform": [0.1, 0.3]}}}, r"learning_rate: .*\[0.1, 0.2\].*\[0.1, 0.3\]"),
        ({"search": {"weight_decay": {"uniform": [0.1, 0.2]}}}, "search.weight_decay: was None"),
        ({"seed": 1}, "seed: was 0, now 1"),
    ],
)
def test_trials_are_not_those_of_another_search(tmp_path, changes, message):
    job.begin_search(search(tmp_path, seed=7), DATA, DATA)
    storage.write(f"{tmp_path}/trials/0000/metrics.csv", b"step\n")  # a trial that has learnt nothing
    job.begin_search(search(tmp_path), DATA, DATA)
    save_checkpoint(tmp_path / "trials" / "0001")
    job.begin_search(search(tmp_path, trials=99, at_once=2, train={"loaders": 1}), DATA, DATA)
    with pytest.raises(JobError, match=message):
        job.begin_search(search(tmp_path, **changes), DATA, DATA)
    with pytest.raises(JobError, match="data: were"):
        job.begin_search(search(tmp_path), records_of("a"), DATA)


def test_a_search_and_a_training_do_not_share_an_output(tmp_path):
    job.begin_search(search(tmp_path), DATA, DATA)
    with pytest.raises(JobError, match="expected what rayseg train .* writes, found tune"):
        job.begin(spec_of("data", tmp_path), DATA, None)
