"""What travels with a job, and the look at the image with which it begins."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml

from rayseg.label.spec import LabelSpec
from rayseg.submit import start
from rayseg.submit.bundle import write_bundle
from rayseg.submit.commands import Job

JOB = Job(
    "label", LabelSpec(images="s3://b/i", model="s3://b/m", out="s3://b/ö", address="http://head:8265", workers=2)
)


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "job", JOB, {"GPU": 1.0}, ["--overwrite"], "auto")
    return tmp_path / "job"


def test_spec_package_and_what_it_needs(bundle):
    assert yaml.safe_load((bundle / "job.yaml").read_text()) == {
        "images": "s3://b/i", "model": "s3://b/m", "out": "s3://b/ö", "workers": 2
    }  # fmt: skip
    record = json.loads((bundle / "job.json").read_text())
    assert record["words"] == ["label", "-f", "job.yaml", "--overwrite"] and record["needs"] == {"GPU": 1.0}
    assert dict(record["requires"])["torch"] and record["python"][0] == [3, 11]
    start.check_package(record)  # this very environment has all of it
    assert (bundle / "package" / "rayseg" / "cli.py").exists()
    assert not list((bundle / "package").rglob("*.pyc"))


def test_the_package_runs_from_where_it_has_come_to(bundle):
    code = "import rayseg.submit.commands, rayseg; print(rayseg.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(bundle / "package")},
        cwd=bundle,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(bundle / "package" / "rayseg" / "__init__.py")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"requires": [["no-such-package", "1.0"], ["numpy", "99.1"]]},
         rf"lacks what rayseg needs: no-such-package>=1.0 \(none\), numpy>=99.1 \({version('numpy')}\)"),
        ({"python": [[3, 99], [4, 0]], "python_text": ">=3.99"},
         rf"runs Python {'.'.join(platform.python_version_tuple()[:2])}, rayseg needs >=3.99"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_run_it_is_refused_with_what_it_lacks(change, words, capsys):
    job = {"python": [[3, 0], [4, 0]], "python_text": "", "requires": []} | change
    with pytest.raises(SystemExit) as stopped:
        start.check_package(job)
    assert stopped.value.code == 2
    import re

    assert re.search(words, capsys.readouterr().out)


def test_versions_are_compared_by_number():
    assert start.numbers("2.10.1+cu130") > start.numbers("2.9") > start.numbers("2")
