"""A search and an endpoint as jobs of a cluster, through the Jobs API with a token; a node of the endpoint's dies."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import yaml
from ray_nodes import free_port, wait_for
from ray_stage import Stage
from serve.online import picture, png
from tiny_training import SETTINGS

from rayseg.datasets.synthetic import generate, write_coco

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("jobs")) as stage:
        stage.add("head", 2)
        yield stage


def test_a_search_runs_as_a_job_and_leaves_the_best_spec_in_storage(stage, tmp_path):
    write_coco(tmp_path / "drawn", generate(4, seed=0, size_px=64, max_objects=2))
    data = stage.upload(tmp_path / "drawn", "data")
    training = {"data": data, "val": data, "model": "maskrcnn_resnet10_fpn", "epochs": 1, "batch_size": 2}
    spec = {
        "train": training | {"settings": json.loads(json.dumps(SETTINGS))},
        "search": {"learning_rate": {"loguniform": [1e-4, 1e-2]}},
        "out": f"{stage.bucket}/search",
        "trials": 2,
        "cpus_per_trial": 0.5,
    }
    job = stage.submit(yaml.safe_dump(spec))
    assert job.wait() == 0, job.said
    assert "search/best.yaml" in stage.objects("search/")
    bucket = stage.bucket.removeprefix("s3://")
    stored = stage.server.client().get_object(Bucket=bucket, Key="search/best.yaml")
    best = yaml.safe_load(stored["Body"].read())
    assert 1e-4 < best["learning_rate"] < 1e-2 and best["data"] == data


@contextlib.contextmanager
def endpoint(stage: Stage, spec: str) -> Iterator[httpx2.Client]:
    """A client of an endpoint that runs as a job, until that is cancelled."""
    port = free_port()
    path = stage.folder / "endpoint.yaml"
    path.write_text(f"model: rectangles\nport: {port}\n{spec}")
    sent = stage.rayseg("submit", str(path), "--address", stage.nodes.url, "--json")
    assert sent.wait() == 0, sent.said
    id = json.loads(next(line for line in sent.lines if line.startswith("{")))["id"]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield client
        cancelled = stage.rayseg("jobs", "cancel", id, "--address", stage.nodes.url)
        assert cancelled.wait() == 0, cancelled.said
        wait_for("its end", lambda: warm(client) is None, 90)
    asked = stage.rayseg("jobs", "status", id, "--address", stage.nodes.url)
    asked.wait()
    assert "stopped" in asked.said.lower()


def warm(client: httpx2.Client) -> int | None:
    """Replicas that are ready; None where nobody answers."""
    try:
        answer = client.get("/readyz")
    except httpx2.HTTPError:
        return None
    return answer.json()["replicas"]["default"] if answer.status_code == 200 else 0


def predict(client: httpx2.Client) -> int:
    answer = client.post("/v1/predict", content=png(picture()), headers={"content-type": "image/png"})
    assert answer.status_code != 200 or "instances" in answer.json()
    return answer.status_code


def test_an_endpoint_runs_as_a_job_until_it_is_cancelled(stage):
    with endpoint(stage, "cpus_per_replica: 0.5\n") as client:
        wait_for("the endpoint", lambda: warm(client) == 1, 180)
        assert predict(client) == 200


def test_an_endpoint_loses_a_node_under_load_and_gets_another(stage):
    """Each replica has a node of its own, as a node with a GPU would be; no request fails."""
    spec = "min_replicas: 2\nmax_replicas: 2\ncpus_per_replica: 4\nrequest_timeout_s: 120\n"
    first = stage.add("replica-1", 4)
    stage.add("replica-2", 4)
    statuses, done = Counter[int](), threading.Event()

    def caller() -> None:
        while not done.is_set():
            statuses[predict(client)] += 1

    with endpoint(stage, spec) as client:
        wait_for("two replicas", lambda: warm(client) == 2, 180)
        with ThreadPoolExecutor(4) as callers:
            calls = [callers.submit(caller) for _ in range(4)]
            wait_for("answers", lambda: statuses[200] > 50)
            first.kill()
            stage.add("replica-3", 4)
            wait_for("one replica", lambda: warm(client) == 1)
            wait_for("two replicas again", lambda: warm(client) == 2, 180)
            before = statuses[200]
            wait_for("more answers", lambda: statuses[200] > before + 50)
            done.set()
            for call in calls:
                call.result()
    assert set(statuses) == {200}, statuses
