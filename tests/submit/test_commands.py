"""Which command a spec is for, and what of it travels."""

import pytest
import yaml

from rayseg.errors import UsageError
from rayseg.submit.commands import read_job

LABEL = {"images": "s3://b/i", "model": "s3://b/m", "out": "s3://b/o"}
TRAIN = {"data": "s3://b/d", "model": "maskrcnn_resnet50_fpn", "out": "s3://b/o"}


def write(tmp_path, name, values):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize(
    ("name", "values", "command"),
    [
        ("anything.yaml", LABEL, "label"),
        ("anything.yaml", TRAIN | {"batch_size": 4}, "train"),
        ("anything.yaml", {"data": "d", "predictions": "p", "out": "o"}, "eval"),
        ("train-large.yaml", TRAIN, "train"),  # data, model and out would do for an evaluation too
        ("evaluate.yaml", TRAIN, "eval"),
        ("anything.yaml", {"models": {"a": "s3://b/m"}}, "serve"),
    ],
)
def test_the_keys_tell_the_command_and_where_they_do_not_the_file_name(tmp_path, name, values, command):
    assert read_job(write(tmp_path, name, values)).command == command


def test_where_neither_tells_it_has_to_be_said(tmp_path):
    file = write(tmp_path, "my-job.yaml", TRAIN)
    with pytest.raises(UsageError, match=r"my-job\.yaml: could be for train or eval: say which with --command"):
        read_job(file)
    assert read_job(file, command="train").command == "train"
    with pytest.raises(UsageError, match="did you mean train"):
        read_job(file, command="trian")


def test_a_misspelt_key_names_the_nearest_one(tmp_path):
    file = write(tmp_path, "label.yaml", LABEL | {"scroe_threshold": 0.5})
    with pytest.raises(UsageError, match="scroe_threshold: no such key; did you mean score_threshold"):
        read_job(file)


def test_words_override_the_file_and_the_address_stays_at_home(tmp_path):
    job = read_job(
        write(tmp_path, "label.yaml", LABEL | {"address": "http://head:8265"}), ["workers=3", "out=s3://b/2"]
    )
    assert job.spec.address == "http://head:8265"
    assert job.given == LABEL | {"workers": 3, "out": "s3://b/2"}


def test_the_record_of_a_run_is_a_spec_too(tmp_path):
    record = {"schema_version": 1, "spec": LABEL | {"limit": 5}}
    assert read_job(write(tmp_path, "job.json", record)).given == LABEL | {"limit": 5}
