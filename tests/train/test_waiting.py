"""A run that waits for workers says for what, once."""

import pytest
import ray

from rayseg.train import waiting
from rayseg.train.waiting import Waiting


@pytest.fixture
def said(monkeypatch):
    """What is said, without any grace, in a cluster that is half full."""
    monkeypatch.setattr(waiting, "SAY_S", 0.0)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.5})
    return []


def test_what_is_waited_for_is_said_once_for_each_start(said):
    wait = Waiting(2, {"CPU": 1.0, "GPU": 1.0}, said.append)
    wait.look()
    wait.look()
    text = "no worker has started yet: 2 wanted, with 1 CPU, 1 GPU each; free in the cluster: 1.5 of 4 CPU, 0 of 1 GPU"
    assert said == [text]
    wait.begin()
    wait.look()
    assert said == [text, text]


def test_nothing_is_said_of_workers_that_have_started(said):
    wait = Waiting(1, {"CPU": 1.0}, said.append)
    wait.end()
    wait.look()
    assert said == []


def test_nothing_is_said_while_workers_may_still_be_starting(said, monkeypatch):
    monkeypatch.setattr(waiting, "SAY_S", 40.0)
    Waiting(1, {"CPU": 1.0}, said.append).look()
    assert said == []
