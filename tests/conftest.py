"""Fixtures that more than one test file needs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from seaweed import Seaweed

from rayseg import storage


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
