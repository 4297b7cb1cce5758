"""SIGTERM to a real `rayseg serve` with a request inside: it is answered, and the server ends well."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
from ray_nodes import free_port
from serve.online import png

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ray")]

WAIT_S = 240.0
INSIDE = "rayseg_requests_in_flight 2.0"  # the request, and the one that asks


def test_a_request_inside_is_answered_before_the_server_ends():
    port = free_port()
    words = ["min_replicas=1", "max_replicas=1", "cpus_per_replica=0.5"]
    command = [str(Path(sys.executable).with_name("rayseg")), "serve", "--model", "rectangles", "--port", str(port)]
    server = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.extend(server.stderr or ()), daemon=True)
    reading.start()
    body, answers = png(np.zeros((6000, 6000, 3), np.uint8)), []
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            until(lambda: client.get("/readyz").status_code == 200, server)
            asking = threading.Thread(
                target=lambda: answers.append(
                    httpx2.post(
                        f"http://127.0.0.1:{port}/v1/predict", content=body, headers={"content-type": "image/png"}
                    )
                )
            )
            asking.start()
            until(lambda: INSIDE in client.get("/metrics").text, server)
        server.send_signal(signal.SIGTERM)
        asking.join(WAIT_S)
        assert [answer.status_code for answer in answers] == [200]
        assert server.wait(WAIT_S) == 0
    finally:
        server.kill()
        server.wait()
        reading.join(30)
    assert any("shutting down" in line for line in said), said
    assert not any("Traceback" in line for line in said), said


def until(holds, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        try:
            if holds():
                return
        except httpx2.TransportError:
            time.sleep(0.1)
        time.sleep(0.01)
