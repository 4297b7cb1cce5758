"""Storage as jobs will use it, the token, and a cluster asked node by node."""

import json
import os

from seaweed import READER
from typer.testing import CliRunner

from rayseg import storage
from rayseg.cli import app
from rayseg.doctor.checks import check_storage, check_token
from rayseg.doctor.run import examine


def test_a_bucket_that_takes_conditional_puts(bucket):
    found = list(check_storage(f"{bucket}/labels"))
    assert [(line.what, line.state) for line in found] == [("storage", "ok"), ("storage's clock", "ok")]
    assert not [entry for page in storage.list_pages(bucket) for entry in page], "nothing stays"


def test_what_is_wrong_with_storage_and_what_to_do(seaweed, bucket, monkeypatch):
    def fault(uri):
        (line,) = check_storage(uri)
        assert line.state == "fail"
        return line.advice

    assert "make the bucket" in fault("s3://no-such-bucket-here/x")
    assert "conditional writes" in fault("gs://bucket/x")
    for credentials, advice in ((READER, "s3:PutObject"), (("nobody", "nothing"), "AWS_ACCESS_KEY_ID")):
        for name, value in seaweed.env_of(credentials).items():
            monkeypatch.setenv(name, value)
        storage.reset()
        assert advice in fault(f"{bucket}/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RAYSEG_RETRY_S", "0.1")
    storage.reset()
    assert "AWS_ENDPOINT_URL" in fault(f"{bucket}/x")


def test_a_local_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (line,) = check_storage(str(tmp_path / "file" / "below"))
    assert line.state == "fail" and line.advice


def test_the_token_mode():
    assert check_token("token").state == "ok"
    assert check_token("disabled").state == "warn" and "RAY_AUTH_MODE=token" in check_token("disabled").advice


def test_every_node_of_a_cluster_is_asked(ray_cluster):
    import ray

    lines = examine(ray.get_runtime_context().gcs_address, [])
    found = {line.what: line for line in lines}
    assert found["cluster"].found.startswith("1 nodes") and found["token"].state == "ok"
    assert found["clocks"].state == "ok" and found["versions"].node
    assert not [line for line in lines if line.state == "fail"]


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = CliRunner().invoke(app, ["doctor", "--storage", str(tmp_path / "out"), "--json"])
    lines = json.loads(done.stdout)["lines"]
    assert done.exit_code == 0 and lines[-1]["what"] == "storage" and lines[-1]["state"] == "ok"
    monkeypatch.setenv("RAYSEG_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "fail  model cache" in done.stdout and "RAYSEG_CACHE" in done.stdout
    assert os.path.isfile(tmp_path / "file")
