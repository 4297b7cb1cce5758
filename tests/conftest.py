"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NAMES as BROWSERS
from browser import find_chromium
from seaweed import Seaweed

from rayseg import storage

# Ray reads these when it is imported. The token lives as long as the tests do.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex * 2
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # so that tests do not wait for its 2 s


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Ray share one process and start first: while they wait for Ray, the others run beside them."""
    on_ray = [
        item for item in items if "ray_cluster" in getattr(item, "fixturenames", ()) or item.path.stem == "test_cluster"
    ]
    for item in on_ray:
        item.add_marker(pytest.mark.xdist_group("ray"))
    first = set(on_ray)
    items.sort(key=lambda item: item not in first)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A running S3 server, started by the first test that asks for it."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The `s3://` URI of a fresh bucket, with the environment pointing at its server."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    storage.reset()
    yield seaweed.make_bucket(f"test-{uuid.uuid4().hex[:12]}")
    storage.reset()


@pytest.fixture(scope="session")
def ray_cluster(seaweed: Seaweed) -> Iterator[None]:
    """One Ray cluster for all tests; its workers know the S3 server."""
    from rayseg import cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (seaweed.env | {"RAYSEG_RETRY_S": "30"}).items():
            patch.setenv(name, value)
        cluster.connect()
    yield
    cluster.disconnect()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that opens pages; tests that need it skip where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    return found


@pytest.fixture(scope="session")
def running_endpoint() -> Iterator[Any]:
    """The web application on a port of loopback, without Ray."""
    from serve.fake_endpoint import Endpoint

    with Endpoint() as running:
        yield running


@pytest.fixture
def endpoint(running_endpoint: Any) -> Any:
    """That endpoint as if it had just been started."""
    running_endpoint.reset()
    return running_endpoint


@pytest.fixture(scope="session")
def data_folder(request: pytest.FixtureRequest) -> Path:
    """Where real images lie beside a checkout, if they do."""
    return Path(os.environ.get("RAYSEG_TEST_DATA") or request.config.rootpath.parent / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data(data_folder: Path) -> Path:
    """The folder of real images; tests that need it skip where it is absent."""
    if not data_folder.is_dir():
        pytest.skip(f"no real images at {data_folder}; set RAYSEG_TEST_DATA")
    return data_folder
