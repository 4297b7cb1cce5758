"""Leave a job by Ctrl-C, look at it, cancel it, submit it again: it goes on from what it had stored.

    python tests/many_nodes/detaching.py

Through the Jobs API with a token, on a cluster of one node; no image may be lost or done twice.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from kinds_of_nodes import draw
from random_model import save_random
from ray_stage import Job, Stage

IMAGES = 300


def ended(job: Job, code: int) -> str:
    """What the command said, if it ended with `code`."""
    assert job.wait() == code, (job.wait(), job.said)
    return job.said


def main() -> None:
    """The whole story."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, Stage(Path(scratch)) as stage:
        images = stage.upload(draw(Path(scratch) / "photos", IMAGES), "photos")
        model = stage.upload(Path(save_random(Path(scratch) / "random", detections=3)), "model")
        stage.add("head", 1)
        at, out = ("--address", stage.nodes.url), f"{stage.bucket}/labels"
        spec = f"images: {images}\nmodel: {model}\nout: {out}\nflush_s: 0.5\n"

        job = stage.submit(spec)
        stage.wait_for_object("labels/data/", ".parquet", job)
        job.process.send_signal(signal.SIGINT)
        said = ended(job, 130)
        assert "detached" in said and "rayseg jobs logs" in said, said
        (found,) = json.loads(ended(stage.rayseg("jobs", "list", *at, "--json"), 0))
        assert found["status"] == "running" and found["out"] == out, found
        print("Ctrl-C: detached, and the job runs on")

        print(ended(stage.rayseg("jobs", "cancel", found["id"], *at), 0).strip())
        status = json.loads(ended(stage.rayseg("jobs", "status", found["id"], *at, "--json"), 0))
        assert status["status"] == "stopped", status
        words = ended(stage.rayseg("jobs", "logs", found["id"], *at), 0)
        assert "images left. Run the same command again" in words, words
        print("cancelled: what was finished is stored")

        said = ended(stage.submit(spec), 0)
        assert "resuming: " in said, said
        print(next(line for line in said.splitlines() if line.startswith("resuming")))
        print(ended(stage.rayseg("verify", out), 0))
        assert "does not exist" in ended(stage.rayseg("jobs", "status", "no-such-job", *at), 1)


if __name__ == "__main__":
    main()
