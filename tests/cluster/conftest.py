"""The manifests as they are applied, and the checkers that lie beside a checkout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from kustomized import render

OVERLAYS = ("cpu", "gpu", "spot")
SECRETS = "auth_token=a-token\nredis_password=a-password\n"


@pytest.fixture(scope="session")
def cluster_folder(request: pytest.FixtureRequest) -> Path:
    """The repository's cluster/."""
    return request.config.rootpath / "cluster"


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> Path:
    """The folder of checkers; tests that need one skip where it is absent."""
    folder = Path(os.environ.get("RAYSEG_TEST_TOOLS") or request.config.rootpath.parent / "shared" / "tools")
    if not folder.is_dir():
        pytest.skip(f"no checkers at {folder}; set RAYSEG_TEST_TOOLS")
    return folder


@pytest.fixture(scope="session")
def applied(cluster_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `kubectl apply -k` would send, a file for each overlay and for `jobs`, rendered by kubectl itself."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: the overlays are not rendered")
    folder = tmp_path_factory.mktemp("cluster")
    shutil.copytree(cluster_folder, folder / "cluster")
    (folder / "cluster" / "base" / "secrets.env").write_text(SECRETS)
    files = {}
    for name in (*(f"overlays/{overlay}" for overlay in OVERLAYS), "jobs"):
        files[name.split("/")[-1]] = file = folder / f"{name.split('/')[-1]}.yaml"
        file.write_text(render(folder / "cluster" / name))
    return files
