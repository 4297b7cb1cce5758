"""A batch whose whole server gets SIGKILL half way: it is listed again, goes on, verifies, and equals `rayseg label`.

`killing.py` does the same with `rayseg serve` itself, more images and a network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pyarrow.parquet as pq
import pytest
from label.killing import assert_same_rows, drawn_images

from rayseg import storage
from rayseg.label.run import run
from rayseg.label.spec import LabelSpec
from rayseg.outputs.progress import LineReporter
from rayseg.outputs.verify import verify

IMAGES = 60


@contextmanager
def server(spec, *words):
    """A running server's client and process; it is killed in the end."""
    command = [sys.executable, str(Path(__file__).with_name("plain_server.py")), json.dumps(spec), *words]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            yield http, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def until(http, id, holds, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not holds(batch := http.get(f"/v1/batches/{id}").json()):
        assert time.monotonic() < deadline, batch
        time.sleep(0.02)
    return batch


def rows(out):
    found = {}
    for page in storage.list_pages(f"{out}/data"):
        for entry in page:
            with storage.open(entry.uri) as file:
                for row in pq.read_table(file).to_pylist():
                    assert row["uri"] not in found, "two rows for one image"
                    found[row["uri"]] = row
    return found


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_a_batch_survives_its_servers_death_and_equals_rayseg_label(bucket, tmp_path):
    drawn_images(tmp_path / "images", IMAGES)
    for file in sorted((tmp_path / "images").iterdir()):
        storage.write(f"{bucket}/images/{file.name}", file.read_bytes())
    storage.write(f"{bucket}/images/none.jpg", b"<html>")
    spec = {"model": "rectangles", "batches": f"{bucket}/batches", "max_replicas": 1}
    spec |= {"read_prefixes": [f"{bucket}/images"], "write_prefixes": [f"{bucket}/labels"]}
    body = {"images": f"{bucket}/images/", "out": f"{bucket}/labels/batch"}
    with server(spec, "2") as (http, _):
        id = http.post("/v1/batches", json=body).json()["id"]
        before = until(http, id, lambda batch: batch["done"] and batch["error"])
    assert 0 < before["done"] < before["total"] == IMAGES + 1
    assert storage.exists(f"{bucket}/labels/batch/lock.json")
    with server(spec) as (http, _):
        assert [batch["id"] for batch in http.get("/v1/batches").json()["batches"]] == [id]
        after = until(http, id, lambda batch: batch["state"] == "done")
    assert (after["done"], after["failed"], after["error"]) == (IMAGES + 1, 1, None)
    report = verify(body["out"])
    assert report.ok, report.text()
    quiet = LineReporter(every_s=3600)
    run(LabelSpec(images=body["images"], model="rectangles", out=f"{bucket}/labels/label"), report=quiet)
    assert_same_rows(rows(body["out"]), rows(f"{bucket}/labels/label"))
