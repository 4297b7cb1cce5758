"""What can be served, and what is said of what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayseg import specs
from rayseg.cli import app
from rayseg.errors import UsageError
from rayseg.serve import application
from rayseg.serve.auth import parse
from rayseg.serve.run import run
from rayseg.serve.spec import ServeSpec, models_of

JOB = Path(__file__).parents[2] / "jobs" / "serve.yaml"


def test_the_job_names_every_field_with_its_default():
    spec = specs.build(ServeSpec, str(JOB), (), {})
    assert set(yaml.safe_load(JOB.read_text())) == set(ServeSpec.model_fields)
    assert spec == ServeSpec(model="s3://my-models/maskrcnn/")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either `model` or `models`"),
        ({"model": "a", "models": {"b": "c"}}, "either `model` or `models`"),
        ({"model": "a", "min_replicas": 3, "max_replicas": 2}, "less than min_replicas"),
        ({"models": {"a/b": "c"}}, "no name"),
        ({"model": "a", "max_qeued": 3}, "did you mean max_queued"),
        ({"model": "a", "port": 70000}, "port"),
        ({"model": "a", "max_replicas": 0}, "max_replicas"),
    ],
)
def test_specs_that_cannot_be_are_explained(fields, said):
    with pytest.raises(UsageError, match=said):
        specs.validate(ServeSpec, fields)


def test_models_on_the_command_line():
    assert models_of([]) == {}
    assert models_of(["s3://models/a=b"]) == {"model": "s3://models/a=b"}
    assert models_of(["models/x"]) == {"model": "models/x"}
    assert models_of(["small=models/s", "large=s3://m/l=1"]) == {"models": {"small": "models/s", "large": "s3://m/l=1"}}
    assert models_of(["one=models/s"]) == {"models": {"one": "models/s"}}
    for words in (["models/a", "models/b"], ["a=x", "a=y"], ["a="]):
        with pytest.raises(UsageError, match="--model"):
            models_of([*words, "b=z"])


def test_a_config_for_serve_deploy_and_a_ray_service():
    from ray.serve.schema import ServeDeploySchema

    done = CliRunner().invoke(app, ["serve", "-f", str(JOB), "--print-config", "max_replicas=7", "address=ray://x"])
    assert done.exit_code == 0, done.output
    config = yaml.safe_load(done.stdout)
    ServeDeploySchema.model_validate(config)
    (one,) = config["applications"]
    assert one["import_path"] == application.IMPORT_PATH
    assert one["args"] == {"model": "s3://my-models/maskrcnn/", "max_replicas": 7}
    assert config["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_a_new_token_is_printed_with_its_line():
    done = CliRunner().invoke(app, ["serve", "--new-token", "alice"])
    assert done.exit_code == 0
    token, line = done.stdout.splitlines()[1].strip(), done.stdout.splitlines()[3].strip()
    assert parse(line, "printed").caller(f"Bearer {token}") == "alice"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host": "0.0.0.0"}, "no tokens"),
        ({"tokens_file": "/none"}, "tokens_file"),
        ({"read_prefixes": ["http://x/"]}, "read_prefixes"),
    ],
)
def test_servers_that_would_not_be_safe_do_not_start(fields, said, monkeypatch):
    monkeypatch.delenv("RAYSEG_SERVE_TOKENS", raising=False)
    with pytest.raises(UsageError, match=said):
        run(ServeSpec(model="rectangles", **fields), print)
    with pytest.raises(UsageError, match=said):
        application.build({"model": "rectangles", **fields})


def test_a_port_that_is_taken_is_said_before_anything_starts():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot listen there"):
        run(ServeSpec(model="rectangles", port=taken.getsockname()[1]), print)
