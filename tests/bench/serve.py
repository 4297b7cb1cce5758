"""What `rayseg serve` adds to a Predictor, in one run: latency at concurrency 1, throughput at concurrency 32.

    uv run python tests/bench/serve.py
    uv run python tests/bench/serve.py --model s3://models/m1 --replicas 4

latency     each JPEG of 640x480 is decoded and predicted here, and sent to the endpoint, in turns; the model answers at once
            (`rectangles`), so what is measured is everything around it. Wanted: p50 added under 5 ms.
throughput  images per second while 32 callers ask, each the next as soon as it has its answer, over those of the Predictor in
            this process on the same images, all cores, the best of several batch sizes, the mean of before and after. The
            model has random weights. Wanted: 0.9 or more.

The callers run on the same machine and cores as the server.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_model import save_random

import rayseg
from rayseg import images
from rayseg.models.predictor import Predictor

HEADERS = {"Content-Type": "image/jpeg"}
START_S = 300
WARM_UP_S = 6.0
SIZES = (1, 2, 4, 8)
OWN_IMAGES = 48


def jpegs(count: int) -> list[bytes]:
    """Drawn images of 640x480."""
    from rayseg.datasets.synthetic import draw

    encoded = []
    for i in range(count):
        with io.BytesIO() as file:
            image = draw(seed=11, index=i, size_px=640, max_objects=12).image[:480]
            Image.fromarray(image).save(file, "JPEG", quality=90)
            encoded.append(file.getvalue())
    return encoded


@contextlib.contextmanager
def server(model: str, replicas: int, cpus: float) -> Iterator[int]:
    """A running `rayseg serve`: its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [f"min_replicas={replicas}", f"max_replicas={replicas}", f"cpus_per_replica={cpus}", "max_queued=256"]
    command = [sys.executable, "-m", "rayseg.cli", "serve", "--model", model, "--port", str(port), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise SystemExit("the server did not start")


def ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/predict", body, HEADERS)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {answer[:300]!r}")


def latencies(predictor: Predictor, port: int, bodies: list[bytes], rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each prediction here, and of each over HTTP, in turns."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    here, over = [], []
    for i in range(rounds + 20):
        body = bodies[i % len(bodies)]
        begin = time.perf_counter()
        predictor.predict([images.decode(body)])
        middle = time.perf_counter()
        ask(connection, body)
        end = time.perf_counter()
        if i >= 20:
            here.append(1000 * (middle - begin))
            over.append(1000 * (end - middle))
    return np.array(here), np.array(over)


def own_rate(predictor: Predictor, bodies: list[bytes]) -> float:
    """Images per second of the Predictor alone, decoded by it too; the best of batches of 1, 2, 4 and 8."""
    best = 0.0
    for size in SIZES:
        batches = [bodies[i : i + size] for i in range(0, len(bodies), size)]
        predictor.predict([images.decode(body) for body in batches[0]])
        begin = time.perf_counter()
        for batch in batches:
            predictor.predict([images.decode(body) for body in batch])
        best = max(best, len(bodies) / (time.perf_counter() - begin))
    return best


def served_rate(port: int, bodies: list[bytes], callers: int, seconds: float) -> float:
    """Images per second of `callers` that each wait for their answer, all of them at work for all of the time."""
    answered: list[float] = []
    begin = time.perf_counter() + WARM_UP_S  # in which the server finds its batch size
    end = begin + seconds

    def caller(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in itertools.cycle(bodies[number:] + bodies[:number]):
            ask(connection, body)
            answered.append(time.perf_counter())
            if answered[-1] > end:
                return

    with ThreadPoolExecutor(callers) as threads:
        for done in [threads.submit(caller, number) for number in range(callers)]:
            done.result()  # a caller that failed fails the measurement
    return sum(begin < moment <= end for moment in answered) / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="requests of the latency measurement")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the throughput measurement")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--detections", type=int, default=20, help="objects the random model may find per image")
    parser.add_argument("--model", help="a checkpoint to use instead")
    arguments = parser.parse_args()
    bodies = jpegs(64)
    with server("rectangles", 1, 0.5) as port:
        here, over = latencies(rayseg.load("rectangles"), port, bodies, arguments.rounds)
    p50, p99 = (np.percentile(over, q) - np.percentile(here, q) for q in (50, 99))
    print(f"latency     here p50 {np.percentile(here, 50):.2f} ms, p99 {np.percentile(here, 99):.2f} ms")
    print(f"            HTTP p50 {np.percentile(over, 50):.2f} ms, p99 {np.percentile(over, 99):.2f} ms")
    print(f"            added p50 {p50:.2f} ms (wanted under 5), p99 {p99:.2f} ms")
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or save_random(Path(scratch) / "model", arguments.detections)
        before = own_rate(rayseg.load(model), bodies[:OWN_IMAGES])
        with server(model, arguments.replicas, 1.0 if torch.cuda.is_available() else 0.5) as port:
            served = served_rate(port, bodies, arguments.callers, arguments.seconds)
        after = own_rate(rayseg.load(model), bodies[:OWN_IMAGES])
    own = (before + after) / 2
    print(
        f"throughput  Predictor {own:.2f} images/s ({before:.2f} before, {after:.2f} after), {torch.get_num_threads()} threads"
    )
    print(f"            HTTP {served:.2f} images/s, {arguments.callers} callers, {arguments.replicas} replicas")
    print(f"            ratio {served / own:.2f} (wanted 0.9)")


if __name__ == "__main__":
    main()
