"""A search and an endpoint as jobs of a cluster, through the Jobs API with a token."""

import json

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


def test_an_endpoint_runs_as_a_job_until_it_is_cancelled(stage):
    port = free_port()
    path = stage.folder / "endpoint.yaml"
    path.write_text(f"model: rectangles\nport: {port}\ncpus_per_replica: 0.5\n")
    sent = stage.rayseg("submit", str(path), "--address", stage.nodes.url, "--json")
    assert sent.wait() == 0, sent.said
    id = json.loads(next(line for line in sent.lines if line.startswith("{")))["id"]

    def state() -> str:
        asked = stage.rayseg("jobs", "status", id, "--address", stage.nodes.url)
        asked.wait()
        return asked.said

    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx2.HTTPError:
                return False

        wait_for("the endpoint", ready, 180)
        answer = client.post("/v1/predict", content=png(picture()), headers={"content-type": "image/png"})
        assert answer.status_code == 200 and "instances" in answer.json()
        cancelled = stage.rayseg("jobs", "cancel", id, "--address", stage.nodes.url)
        assert cancelled.wait() == 0, cancelled.said
        wait_for("its end", lambda: not ready(), 90)
    assert "stopped" in state().lower()
