"""What is wrong with address, token, versions, paths and resources is found, and said, before anything is sent."""

import os
import socket

import pytest
import ray
from ray.runtime_env import RuntimeEnv
from ray_dashboard import NODE, Dashboard
from typer.testing import CliRunner

from rayseg.cli import app
from rayseg.errors import JobError, UsageError
from rayseg.label.spec import LabelSpec
from rayseg.submit import client
from rayseg.submit.commands import Job
from rayseg.submit.run import Submission, needs_of, submit
from rayseg.submit.server import check_versions, reach
from rayseg.train.spec import TrainSpec

PLAIN = Submission()
JOB = Job("train", TrainSpec(data="s3://b/d", model="maskrcnn_resnet50_fpn", out="s3://b/o"))


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dashboard():
    with Dashboard(ray.__version__) as server:
        yield server


def refused(dashboard, error, words, job=JOB, how=PLAIN):
    with pytest.raises(error, match=words) as found:
        submit(job, dashboard.url, how, print)
    assert not [one for one in dashboard.asked if one[0] != "GET"], "something was sent"
    return str(found.value)


def test_the_cluster_tells_what_it_is(dashboard):
    server = reach(dashboard.url + "/")
    assert (server.ray_version, server.python_version) == (ray.__version__, "3.12.3")
    assert server.resources() == NODE["resources_total"]
    assert not server.is_here()  # a tunnel ends on this machine, its cluster does not run here


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "expected that of a cluster's dashboard"),
        ("local", "found 'local' in --address"),
        ("ray://head:10001", "Ray Client; jobs are submitted to the dashboard: http://HEAD:8265"),
        ("ftp://head", "expected http:// or https://, found ftp://"),
    ],
)
def test_what_is_no_address_of_a_dashboard(address, words):
    with pytest.raises(UsageError, match=words):
        reach(address)


def test_the_address_is_found_in_this_order(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", dashboard.url)
    assert reach(None).url == dashboard.url
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", dashboard.url)
    assert reach(None).url == dashboard.url
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert reach(None, dashboard.url).url == reach(dashboard.url, "http://127.0.0.1:1").url == dashboard.url


def test_nothing_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(JobError, match=r"no Ray cluster answers there \(Connection refused\)"):
            reach(url)
    with pytest.raises(JobError, match="no Ray cluster answers there"):
        reach("http://no-such-host.invalid:8265")


@pytest.mark.parametrize("answer", [(200, "text/html", "<html>"), None, {"hello": "world"}])
def test_something_else_answers(dashboard, answer):
    dashboard.answers["/api/version"] = answer
    refused(dashboard, JobError, "expected a Ray dashboard, found")


def test_the_token(dashboard, monkeypatch):
    dashboard.token = os.environ["RAY_AUTH_TOKEN"]
    assert reach(dashboard.url).nodes
    dashboard.token = "another"
    assert "RAY_AUTH_TOKEN" in refused(dashboard, JobError, "unauthorised: the cluster refuses the token")
    dashboard.token, dashboard.answers["/api/version"] = (
        None,
        (401, "text/plain", "Unauthorized: Missing authentication token"),
    )
    refused(dashboard, JobError, "asks for a token and none was sent")


def test_another_ray():
    with Dashboard("2.9.3") as dashboard:
        said = refused(dashboard, JobError, "the cluster runs Ray 2.9.3, this rayseg " + ray.__version__)
        assert "cluster/Dockerfile" in said


def test_a_python_that_cannot_run_the_package():
    with Dashboard(ray.__version__, "3.9.18") as dashboard:
        refused(
            dashboard, JobError, r"the cluster runs Python 3.9.18, rayseg needs Python .*3\.11", how=Submission("ship")
        )
        check_versions(reach(dashboard.url), shipped=False)  # an image with rayseg has its own right Python


def test_a_path_of_this_machine(dashboard, tmp_path):
    job = Job("train", JOB.spec.model_copy(update={"data": str(tmp_path)}))
    refused(dashboard, UsageError, f"data: {tmp_path} is a path on this machine", job)


def test_a_model_that_needs_more_than_any_node_has_is_said_at_once(dashboard, capsys):
    job = Job("train", JOB.spec.model_copy(update={"gpu": True}))
    serve = LabelSpec(images="s3://b/i", model="m", out="s3://b/o", gpus_per_worker=0.5, worker_resources={"model": 1})
    assert needs_of(job.spec) == {"GPU": 1.0} and needs_of(JOB.spec) == {}
    assert needs_of(serve) == {"GPU": 0.5, "model": 1}
    dashboard.answers["/api/jobs/"] = (400, "text/plain", "not today")
    with pytest.raises(JobError, match="400: not today"):  # an autoscaler may still add a node: the job itself decides
        submit(job, dashboard.url, Submission("image"), print)
    assert "no node has 1 GPU now" in capsys.readouterr().out


def test_a_flag_that_the_command_does_not_have(dashboard):
    refused(dashboard, UsageError, "--dry-run: rayseg train has no such option", how=Submission(words=("--dry-run",)))


def test_the_job_that_is_sent(dashboard):
    dashboard.answers |= {"/api/jobs/": {"job_id": "x", "submission_id": "x"}}
    server, job_id = submit(JOB, dashboard.url, Submission("image", env=(("A", "1"),)), print)
    (sent,) = dashboard.posted
    assert sent["submission_id"] == job_id and job_id.startswith("rayseg-train-")
    assert sent["metadata"]["rayseg_out"] == "s3://b/o"
    assert sent["runtime_env"]["env_vars"]["A"] == "1"
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert server.url == dashboard.url


def agent_said(status, last):
    text = f"Traceback:\nRuntimeError: Request failed with status code {status}: Traceback:\n{last}\n."
    return 500, "text/plain", text


def test_a_cluster_that_falters_is_sent_the_job_again_and_takes_it_once(dashboard, monkeypatch):
    monkeypatch.setattr(client, "PAUSE_S", 0.0)
    no_agent = (500, "text/plain", "No available agent to submit job, please try again later.")
    taken = agent_said(400, "ValueError: Job with submission_id x already exists.")
    dashboard.answers["/api/jobs/"] = [no_agent, agent_said(500, "RpcError: deadline exceeded"), taken]
    client.Client(dashboard.url).start("x", "true", RuntimeEnv(), {})
    assert len(dashboard.posted) == 3


def test_what_the_cluster_refuses_is_said_at_once(dashboard):
    dashboard.answers["/api/jobs/"] = [agent_said(400, "ValueError: Job with submission_id x already exists.")]
    with pytest.raises(JobError, match=r"answered 500: ValueError: Job with submission_id x already exists\.$"):
        client.Client(dashboard.url).start("x", "true", RuntimeEnv(), {})


def test_on_the_command_line_an_error_is_one_message_and_its_exit_code(dashboard, tmp_path):
    spec = tmp_path / "label.yaml"
    spec.write_text("images: photos\nmodel: rectangles\nout: s3://b/o\n")
    done = CliRunner().invoke(app, ["submit", str(spec), "--address", dashboard.url])
    assert isinstance(done.exception, UsageError) and done.exception.exit_code == 2
    done = CliRunner().invoke(app, ["submit", str(spec), "images=s3://b/i", "--env", "NO_SUCH_NAME"])
    assert "NO_SUCH_NAME" in str(done.exception)
