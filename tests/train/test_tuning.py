"""A search: every trial's draws are the seed's, poor ones may end early, the best spec trains as it is written."""

import csv

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import spec_of, write_data

from rayseg import specs
from rayseg.errors import JobError, UsageError
from rayseg.train import tuning
from rayseg.train.spec import TrainSpec
from rayseg.train.tune_spec import Search, TuneSpec
from rayseg.train.watching import LineReporter


def tune_spec(data, out, **changes):
    training = spec_of(data, out, steps=None, epochs=2, val=data).model_dump(mode="json", exclude_unset=True)
    values = {"train": training, "out": str(out), "trials": 2, "at_once": 1, "cpus_per_trial": 0.5}
    search = {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "settings": {"box_head_size": {"choice": [16, 24]}}}
    return specs.validate(TuneSpec, values | {"search": search} | changes)


def test_the_best_spec_is_written_and_trials_are_not_done_twice(ray_cluster, tmp_path):
    data, out = write_data(tmp_path / "data", images=3), tmp_path / "out"
    spec = tune_spec(data, out, grace=9)  # none ends early
    found = tuning.run(spec, report=LineReporter())
    assert {one.number for one in found.trials} == {0, 1} and all(one.evaluations == 2 for one in found.trials)
    assert len({one.drawn["learning_rate"] for one in found.trials}) == 2
    best = specs.build(TrainSpec, str(out / "best.yaml"), (), {"out": "model"})
    assert best.learning_rate == found.trials[0].drawn["learning_rate"]
    assert best.settings["box_head_size"] == found.trials[0].drawn["settings.box_head_size"]
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert [float(row["learning_rate"]) for row in rows] == [one.drawn["learning_rate"] for one in found.trials]
    for one in found.trials:
        model = yaml.safe_load((out / "trials" / f"{one.number:04d}" / "model.json").read_text())
        assert model["training"]["spec"]["learning_rate"] == one.drawn["learning_rate"]
    before = (out / "trials" / "0000" / "model.json").stat().st_mtime_ns
    again = tuning.run(spec, report=LineReporter())
    assert again.trials == found.trials
    assert (out / "trials" / "0000" / "model.json").stat().st_mtime_ns == before
    with pytest.raises(JobError, match="seed: was 0, now 1"):
        tuning.run(spec.model_copy(update={"seed": 1}), report=LineReporter())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"learning_rat": {"choice": [1]}}}, "learning_rat: no such key; did you mean learning_rate"),
        ({"search": {"learning_rate": {"uniform": [2, 1]}}}, "low < high"),
        ({"search": {"learning_rate": {"choice": [1.0], "uniform": [0, 1]}}}, "expected one of choice"),
        ({"search": {"batch_size": {"choice": ["many"]}}}, "batch_size: .*found 'many'"),
        ({"search": {"workers": {"choice": [2]}}}, "a trial is one worker"),
        ({"search": {"val_split": {"choice": ["a", "b"]}}}, "search.val_split: cannot be drawn: .*same data"),
        ({"search": {}}, "at least one field"),
        ({"train": {"data": "d", "model": "m"}}, "train.val is required"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        tuning.run(tune_spec(str(tmp_path), tmp_path, **changes), report=LineReporter())
    assert not list(tmp_path.iterdir())


@given(st.dictionaries(st.sampled_from(["a", "b", "c.d", "c.e"]), st.integers(), max_size=4))
def test_fields_may_be_written_with_dots_or_nested(values):
    dotted = {name: {"choice": [value]} for name, value in values.items()}
    nested = {}
    for name, value in values.items():
        specs.assign(nested, name.split("."), {"choice": [value]})
    base = {"train": {"val": "v"}, "out": "o"}
    if values:
        found = [specs.validate(TuneSpec, base | {"search": search}).search for search in (dotted, nested)]
        assert found[0] == found[1] == {name: Search(choice=(value,)) for name, value in values.items()}
