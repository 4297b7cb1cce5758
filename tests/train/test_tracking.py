"""Rows in MLflow: its own client reads them back; a server that is not there costs no training."""

import pytest
from tiny_runs import go, losses, spec_of, write_data

from rayseg.errors import JobError, UsageError
from rayseg.train import tracking

pytestmark = pytest.mark.xdist_group("forked")  # what else imports training is in there


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), images=3)


def test_every_row_is_in_one_mlflow_run_however_often_the_training_stops(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{tmp_path / 'mlruns'}"
    spec = spec_of(data, tmp_path / "out", steps=4, mlflow=uri, mlflow_experiment="tiny")
    told = []
    assert not go(spec, tell=told.append, stop_wanted=lambda: len(told) >= 2).finished
    assert go(spec).finished
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["learning_rate"] == "0.001"
    history = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "loss")}
    assert history == pytest.approx(losses(tmp_path / "out"), abs=1e-6) and len(history) == 4


def test_a_training_that_fails_does_not_go_on_in_mlflow(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{tmp_path / 'mlruns'}"

    def stop_wanted():
        raise JobError("it cannot go on")

    with pytest.raises(JobError):
        go(spec_of(data, tmp_path / "out", mlflow=uri, mlflow_experiment="tiny"), stop_wanted=stop_wanted)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.status == "KILLED"


def test_a_server_that_is_not_there_is_said_once(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = []
    spec = spec_of(data, tmp_path, steps=3, mlflow="http://127.0.0.1:9")
    assert go(spec, tell=told.append).finished
    assert sum("no more rows go to MLflow" in event.get("message", "") for event in told) == 1


def test_what_is_not_installed_is_said_before_anything_starts(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'rayseg\[mlflow\]'"):
        tracking.check(spec_of(data, tmp_path, mlflow="http://127.0.0.1:9"))
