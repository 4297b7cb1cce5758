"""`rayseg jobs` in words, and the job files that come with the package."""

from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined
from ray.job_submission import JobDetails, JobStatus

from rayseg.errors import JobError
from rayseg.submit import jobs
from rayseg.submit.commands import read_job

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_job_file_is_a_valid_spec_and_has_a_manifest_of_its_name(file):
    job = read_job(str(file))
    assert file.stem.startswith(job.command), "its name tells the command"
    manifest = (ROOT / "cluster" / "jobs" / file.name).read_text()
    assert f"jobs/{file.name}" in manifest or job.command == "serve"
    documents = [document for document in yaml.safe_load_all(manifest) if document]
    kind = "RayService" if job.command == "serve" else "RayJob"
    assert kind in {document["kind"] for document in documents}


@pytest.mark.parametrize("name", ["label", "evaluate", "train", "serve"])
def test_a_job_file_shows_every_field_with_its_default_and_a_comment(name):
    file = ROOT / "jobs" / f"{name}.yaml"
    text = file.read_text()
    spec = read_job(str(file)).spec
    given = yaml.safe_load(text)
    assert set(given) == set(type(spec).model_fields), "every field"
    places = {"images", "model", "models", "out", "data", "val", "epochs", "batches"}  # examples
    for field, info in type(spec).model_fields.items():
        if info.default is PydanticUndefined or field in places:
            continue
        assert getattr(spec, field) == info.default, f"{field} is shown with another value than its default"
    assert text.startswith("# ") and f"jobs/{name}.yaml" in text


def details(name, **changes):
    values = {
        "type": "SUBMISSION",
        "submission_id": name,
        "status": JobStatus("RUNNING"),
        "entrypoint": "python start.py",
    }
    return JobDetails(**values | changes)


class Client:
    def __init__(self, *found):
        self.found, self.stopped = list(found), []

    def list_jobs(self):
        return self.found

    def stop_job(self, job_id):
        self.stopped.append(job_id)
        return True

    def get_job_info(self, job_id):
        return self.found[0] if len(self.found) == 1 else self.found.pop(0)


def test_the_list_is_newest_first_and_leaves_drivers_out():
    told = {"rayseg_command": "label", "rayseg_out": "s3://b/o"}
    old = details(
        "old", start_time=1_000_000, end_time=3_661_000, status=JobStatus("FAILED"), driver_exit_code=2, metadata=told
    )
    new = details("new", start_time=5_000_000, end_time=5_061_000, status=JobStatus("SUCCEEDED"))
    driver = details(None, type="DRIVER")
    rows = jobs.records(Client(old, driver, new))
    assert [row["id"] for row in rows] == ["new", "old"]
    assert rows[1] | {"started": None, "ended": None, "message": None} == {
        "id": "old", "command": "label", "status": "failed", "started": None, "ended": None, "seconds": 2661.0,
        "exit_code": 2, "out": "s3://b/o", "message": None,
    }  # fmt: skip
    lines = jobs.table(rows).splitlines()
    assert lines[1].split() == ["new", "other", "succeeded", "1970-01-01", "01:23:20", "1:01"]
    assert lines[2].split()[-2:] == ["44:21", "s3://b/o"]
    assert jobs.table([]) == "no jobs"


def test_one_job_says_why_it_failed():
    one = jobs.record(details("x", status=JobStatus("FAILED"), message="no such image", driver_exit_code=1))
    assert "no such image" in jobs.text(one) and "exit code 1" in jobs.text(one)


def test_cancel_waits_for_the_end(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_S", 0.0)
    client = Client(details("x"), details("x"), details("x", status=JobStatus("STOPPED")))
    assert jobs.cancel(client, "x").status == "STOPPED" and client.stopped == ["x"]
    monkeypatch.setattr(jobs, "CANCEL_S", 0.0)
    with pytest.raises(JobError, match="still running"):
        jobs.cancel(Client(details("x")), "x")
