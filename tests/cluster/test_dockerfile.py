"""cluster/Dockerfile: what can be known without building it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from kustomized import documents, ray_cluster_specs


@pytest.fixture
def dockerfile(cluster_folder: Path) -> str:
    return (cluster_folder / "Dockerfile").read_text()


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("hadolint") is None:
        pytest.skip("no hadolint: the Dockerfile is not linted")
    return subprocess.run(["hadolint", str(file)], check=False, capture_output=True, text=True, timeout=60)


def test_hadolint_finds_nothing(cluster_folder: Path) -> None:
    linted = hadolint(cluster_folder / "Dockerfile")
    assert linted.returncode == 0, linted.stdout


def test_hadolint_finds_what_is_wrong(dockerfile: str, tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(dockerfile.replace('"uv==${UV_VERSION}"', "uv"))
    assert "DL3013" in hadolint(broken).stdout


def test_both_targets_run_as_nobody_in_particular(dockerfile: str) -> None:
    for target in ("cpu", "cuda"):
        assert _stage(dockerfile, target).rstrip().endswith("USER 1000:1000")


def test_packages_do_not_change_with_the_code(dockerfile: str) -> None:
    """The layers of packages are built from pyproject.toml alone, so that only a change of it ships them again."""
    for target in ("cpu", "cuda"):
        packages = _stage(dockerfile, f"{target}-packages")
        assert "COPY" not in packages and "-r pyproject.toml" in packages
        stage = _stage(dockerfile, target)
        assert stage.index(f"COPY --from={target}-packages") < stage.index("uv pip install")
    assert re.findall(r"^COPY (.+)$", _stage(dockerfile, "builder"), re.M) == ["pyproject.toml ./"]
    assert "--torch-backend cpu" in _stage(dockerfile, "cpu-packages")
    assert "--torch-backend" not in _stage(dockerfile, "cuda-packages")


def test_what_is_copied_is_let_in(dockerfile: str, cluster_folder: Path) -> None:
    allowed = {line[1:] for line in (cluster_folder / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.M) for word in line.split()[:-1]}
    assert copied == allowed
    assert all((cluster_folder.parent / name).exists() for name in copied)


def test_ray_python_and_uv_are_the_same_everywhere(
    dockerfile: str, cluster_folder: Path, applied: dict[str, Path]
) -> None:
    project = tomllib.loads((cluster_folder.parent / "pyproject.toml").read_text())
    pins = dict(line.split("==", 1) for line in project["tool"]["uv"]["constraint-dependencies"])
    for file in applied.values():
        assert {spec["rayVersion"] for spec in ray_cluster_specs(file)} == {pins["ray"]}
    setup = "\n".join(yaml.safe_load((cluster_folder / "ray-up-aws.yaml").read_text())["setup_commands"])
    python, uv = re.search(r"PYTHON_IMAGE=python:(3\.\d+)", dockerfile), re.search(r"UV_VERSION=(\S+)", dockerfile)
    assert python and uv
    assert f"--python {python[1]}" in setup and f"uv=={uv[1]}" in setup
    jobs = [document for file in applied.values() for document in documents(file, "RayService")]
    assert jobs and project["project"]["version"] == "0.1.0", "the tag of the images in kustomize's files"


def _stage(dockerfile: str, name: str) -> str:
    parts = re.split(r"^FROM \S+ AS (\S+)$", dockerfile, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]
