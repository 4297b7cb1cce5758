"""The RayJobs and the endpoint: their commands and settings are ones that rayseg takes."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from kustomized import documents
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from rayseg import specs
from rayseg.errors import UsageError
from rayseg.evaluation.spec import EvalSpec
from rayseg.label.spec import LabelSpec
from rayseg.serve.application import serve_config
from rayseg.serve.limits import BodyGate
from rayseg.serve.spec import ServeSpec
from rayseg.specs import Spec
from rayseg.train.spec import TrainSpec
from rayseg.train.tune_spec import TuneSpec

RUNS: dict[str, tuple[str, type[Spec]]] = {
    "label": ("label", LabelSpec),
    "train": ("train", TrainSpec),
    "train-demo": ("train", TrainSpec),
    "evaluate": ("eval", EvalSpec),
    "tune": ("tune", TuneSpec),
}
TAKE_GPUS_THEMSELVES = {"evaluate", "tune"}  # where the cluster has them, no setting of the overlay says so


@pytest.fixture(scope="module")
def jobs_folder(request: pytest.FixtureRequest) -> Path:
    return request.config.rootpath / "jobs"


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("overlay", ("cpu", "gpu", "spot"))
def test_a_jobs_command_is_valid(
    name: str, overlay: str, cluster_folder: Path, jobs_folder: Path, applied: dict[str, Path]
) -> None:
    command, spec_type = RUNS[name]
    rayseg, verb, _, file, *words = _command(cluster_folder / "jobs" / f"{name}.yaml", _settings(applied[overlay]))
    assert (rayseg, verb) == ("rayseg", command)
    assert file == f"/opt/rayseg/jobs/{name}.yaml", "where cluster/Dockerfile puts them"
    spec = specs.build(spec_type, str(jobs_folder / f"{name}.yaml"), words, {})
    with pytest.raises(UsageError, match="no such key"):
        specs.build(spec_type, str(jobs_folder / f"{name}.yaml"), [*words, "otu=s3://x"], {})
    on_gpus = getattr(spec, "gpus_per_worker", None) == 1.0 or getattr(spec, "gpu", None) is True
    assert on_gpus == (overlay != "cpu" and name not in TAKE_GPUS_THEMSELVES)
    assert spec.out.startswith("s3://my-")  # type: ignore[attr-defined]


def test_every_job_has_a_manifest_and_runs_on_the_standing_cluster(cluster_folder: Path, jobs_folder: Path) -> None:
    made = {file.stem: next(documents(file)) for file in (cluster_folder / "jobs").glob("*.yaml")}
    assert {file.stem for file in jobs_folder.glob("*.yaml")} <= set(made)
    for name, job in made.items():
        if job["kind"] != "RayJob":
            continue
        assert job["metadata"] == {"name": name, "namespace": "rayseg"}
        assert job["spec"]["clusterSelector"] == {"ray.io/cluster": "rayseg"}
        assert job["spec"]["submissionMode"] == "HTTPMode", (
            "elsewhere the submitter's shell would fill in the variables"
        )
        assert "backoffLimit" not in job["spec"], "KubeRay refuses it beside clusterSelector"


def test_rays_schema_knows_every_field_of_the_endpoint(applied: dict[str, Path]) -> None:
    config = _serve_config(applied["jobs"])
    ServeDeploySchema.model_validate(config)
    assert list(_unknown(ServeDeploySchema, config)) == []


def test_a_misspelt_field_of_the_endpoint_is_found(applied: dict[str, Path]) -> None:
    """Ray itself lets fields pass that it does not know."""
    config = _serve_config(applied["jobs"])
    config["applications"][0]["route_prefx"] = "/"
    config["http_options"]["prt"] = 8000
    assert sorted(_unknown(ServeDeploySchema, config)) == ["applications.0.route_prefx", "http_options.prt"]
    config["applications"][0]["args"]["max_replcas"] = 3
    with pytest.raises(UsageError, match="did you mean max_replicas"):
        specs.validate(ServeSpec, config["applications"][0]["args"])


def test_the_endpoint_is_what_rayseg_itself_would_write(applied: dict[str, Path]) -> None:
    config = _serve_config(applied["jobs"])
    spec = specs.validate(ServeSpec, config["applications"][0]["args"])
    written = serve_config(spec)
    assert written["applications"][0] | {"args": None} == config["applications"][0] | {"args": None}
    assert written["http_options"].items() <= config["http_options"].items()
    assert written["proxy_location"] == config["proxy_location"]
    assert spec.tokens_file, "it listens on all addresses"


def test_the_endpoints_secret_is_where_it_looks(applied: dict[str, Path]) -> None:
    (service,) = documents(applied["jobs"], "RayService")
    looked_for = Path(_serve_config(applied["jobs"])["applications"][0]["args"]["tokens_file"])
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "tokens"]
        (volume,) = [v for v in pod["volumes"] if v["name"] == "tokens"]
        assert Path(mount["mountPath"]) / volume["secret"]["items"][0]["path"] == looked_for
        assert mount["readOnly"]


def test_the_endpoints_proxies_limit_bodies(applied: dict[str, Path]) -> None:
    (service,) = documents(applied["jobs"], "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        env = {one["name"]: one["value"] for one in group["template"]["spec"]["containers"][0]["env"]}
        module, _, name = env["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
        (gate,) = getattr(importlib.import_module(module), name)()
        assert gate.cls is BodyGate


def _command(file: Path, settings: dict[str, str]) -> list[str]:
    entrypoint = next(documents(file))["spec"]["entrypoint"]
    return shlex.split(Template(entrypoint).substitute(settings))  # an unknown variable is an error


def _settings(applied: Path) -> dict[str, str]:
    (found,) = [d["data"] for d in documents(applied, "ConfigMap") if d["metadata"]["name"] == "rayseg-settings"]
    assert all(re.fullmatch(r"[A-Z_]+", name) for name in found)
    return found


def _serve_config(applied: Path) -> dict[str, Any]:
    (service,) = documents(applied, "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def _unknown(schema: type[BaseModel], values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Dotted names of keys that are no fields of `schema`, nor of the schemas of its fields."""
    for key, value in values.items():
        field = schema.model_fields.get(key)
        if field is None:
            yield path + key
            continue
        inner = [t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        for at, one in (
            [("", value)] if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
        ):
            if inner and isinstance(one, dict):
                yield from _unknown(inner[0], one, f"{path}{key}.{at}{'.' if at != '' else ''}")


def _types(annotation: Any) -> Iterator[Any]:
    inner = getattr(annotation, "__args__", ())
    if not inner:
        yield annotation
    for one in inner:
        yield from _types(one)
