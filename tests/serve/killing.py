"""Post a batch to `rayseg serve`, kill the whole server half way, start it again, compare with `rayseg label`.

    uv run python tests/serve/killing.py --images 1000

Everything is real: `rayseg serve` and `rayseg label` as processes of their own, their Ray clusters, SeaweedFS as the store. The
server, its cluster and its replicas get SIGKILL at once when half of the images have their rows. Started again it must list
the batch and finish it; `rayseg verify` must pass, and the rows must be those of `rayseg label`: same instances, boxes within
0.01 px, masks of IoU 0.999 (a batch of another size may move the last bit of a float).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from label.killing import Stage, assert_same_rows, drawn_images, fill
from random_model import save_random
from seaweed import Seaweed

READY_S, BATCH_S = 600.0, 3600.0
STARTS = 4


class Server:
    """`rayseg serve` on a stage, as a user would start it."""

    def __init__(self, stage: Stage, port: int, words: list[str], log: Path) -> None:
        bucket = f"s3://{stage.bucket}"
        spec = [f"batches={bucket}/batches", f"read_prefixes=[{bucket}/images]", f"write_prefixes=[{bucket}/labels]"]
        command = [
            sys.executable,
            "-m",
            "rayseg.cli",
            "serve",
            "--model",
            stage.model,
            "--port",
            str(port),
            *spec,
            *words,
        ]
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command, env=os.environ | stage.server.env, stdout=file, stderr=file, start_new_session=True
            )

    def wait(self) -> None:
        """Until it is ready."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.runs:
            with contextlib.suppress(httpx2.HTTPError):
                if self.http.get("/readyz").status_code == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"rayseg serve is not ready, or has ended:\n{self.told()}")

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def told(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-3000:]

    def follow(self, id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The batch once `until` holds of it."""
        deadline = time.monotonic() + BATCH_S
        while not until(batch := self.http.get(f"/v1/batches/{id}").json()):
            if time.monotonic() > deadline or batch["state"] in ("failed", "cancelled"):
                raise AssertionError(f"the batch does not get there: {batch}\n{self.told()}")
            time.sleep(0.25)
        return batch

    def kill(self) -> int:
        """SIGKILL to all of it; the number of processes."""
        victims = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=30)
        self._process.wait()
        return len(victims)

    def stop(self) -> None:
        """As Ctrl-C does; all of it where that does not end it."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def serving(stage: Stage, port: int, words: list[str], log: Path) -> Iterator[Server]:
    server = started(stage, port, words, log)
    try:
        yield server
    finally:
        if server.runs:
            server.stop()


def started(stage: Stage, port: int, words: list[str], log: Path) -> Server:
    """A server that is ready; Ray itself does not always come up in time where much else is going on."""
    for left in reversed(range(STARTS)):
        server = Server(stage, port, words, log)
        try:
            server.wait()
            return server
        except AssertionError:
            if server.runs:
                server.kill()
            if not left:
                raise
    raise AssertionError


def one_batch(stage: Stage, port: int, words: list[str], log: Path) -> dict[str, dict[str, Any]]:
    """The rows of a batch whose server was killed half way."""
    out = f"s3://{stage.bucket}/labels/batch"
    with serving(stage, port, words, log) as server:
        posted = server.http.post("/v1/batches", json={"images": stage.images, "out": out})
        assert posted.status_code == 202, posted.text
        id = posted.json()["id"]
        before = server.follow(id, lambda batch: batch["total"] and batch["done"] >= batch["total"] / 2)
        killed = server.kill()
    print(f"killed {killed} processes at {before['done']} of {before['total']}, {before['rate']:.1f}/s", flush=True)
    assert before["done"] < before["total"], "it was done before the kill: use more images"
    begin = time.monotonic()
    with serving(stage, port, words, log) as server:
        listed = server.http.get("/v1/batches").json()["batches"]
        assert [batch["id"] for batch in listed] == [id], listed
        after = server.follow(id, lambda batch: batch["state"] == "done")
    print(f"done {time.monotonic() - begin:.0f} s after the restart: {after}", flush=True)
    checked = stage.verify(out)
    print(checked.stdout.strip(), flush=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return stage.rows(out)


def label_rows(stage: Stage) -> dict[str, dict[str, Any]]:
    """The rows of `rayseg label` on the same images."""
    out = f"s3://{stage.bucket}/labels/label"
    for _ in range(STARTS):
        process = stage.label(out)
        output, _ = process.communicate(timeout=BATCH_S)
        if process.returncode == 0:
            return stage.rows(out)
    raise AssertionError(output[-3000:])


def main() -> None:
    """Do it and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--model", help="checkpoint folder; default: the small Mask R-CNN with random weights")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("words", nargs="*", help="key=value of the server's spec")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Seaweed(Path(scratch) / "s3") as server:
        stage = Stage(server, "s3://kill/images/", arguments.model or save_random(Path(scratch) / "model"), "kill")
        server.make_bucket(stage.bucket)
        drawn_images(Path(scratch) / "images", arguments.images)
        fill(stage, Path(scratch) / "images")
        found = one_batch(stage, arguments.port, arguments.words, Path(scratch) / "serve.log")
        expected = label_rows(stage)
        assert_same_rows(found, expected)
        count = sum(len(row["instances"]) for row in expected.values())
        print(f"{len(found)} rows and {count} instances equal those of rayseg label")


if __name__ == "__main__":
    main()
