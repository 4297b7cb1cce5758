"""`rayseg train` killed in every way, as a user meets it: does the same command end where an undisturbed run ends?

    python tests/train/killing.py [--steps 24] [--workers 2] [--only worker driver SIGTERM repeat]

worker   kill -9 of one of the workers: the run replaces it
driver   kill -9 of the command: it is given again
SIGTERM  to the command, which saves and ends with 130: it is given again
repeat   a run from the job.json of the undisturbed one

Each is done in the middle of an epoch, between checkpoints. Printed are the step from which the run went on, the largest
difference of any step's loss from the undisturbed run's, and whether the model's bytes are the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_training import SETTINGS

from rayseg.datasets.synthetic import generate, write_coco

WAIT_S = 600
SAVE_EVERY = 4  # steps; an epoch has six


def write_spec(folder: Path, steps: int, workers: int) -> Path:
    write_coco(folder / "data", generate(12, seed=0, size_px=64, max_objects=3))
    spec = {"data": str(folder / "data"), "model": "maskrcnn_resnet10_fpn", "batch_size": 2, "micro_batch": 1}
    spec |= {"settings": SETTINGS | {"backbone_norm": "frozen_batch"}, "steps": steps, "workers": workers, "threads": 1}
    spec |= {"save_every_steps": SAVE_EVERY, "cpus_per_worker": 0.5, "warmup_steps": 4}
    spec |= {"augmentation": {"flip": 0.5, "colour": 0.5, "scale_jitter": [0.5, 1.5], "copy_paste": 0.5}}
    (folder / "spec.yaml").write_text(json.dumps(spec))
    return folder / "spec.yaml"


def start(spec: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rayseg.cli", "train", "-f", str(spec), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def rows(out: Path) -> dict[int, float]:
    with (out / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def saved(out: Path) -> int:
    """The step of the last checkpoint, 0 without one."""
    return max((int(card.parent.name[5:]) for card in out.glob("checkpoints/*/state.json")), default=0)


def wait_for_checkpoint(run: subprocess.Popen[str], out: Path, step: int) -> None:
    until = time.monotonic() + WAIT_S
    while saved(out) < step:
        if run.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"no checkpoint of step {step}: {run.communicate()[1]}")
        time.sleep(0.01)


def strike(how: str, run: subprocess.Popen[str]) -> None:
    if how == "worker":
        children = psutil.Process(run.pid).children(recursive=True)
        named = [one for one in children if "RayTrainWorker" in " ".join(one.cmdline())]
        named[-1].kill()
    else:
        run.send_signal(signal.SIGKILL if how == "driver" else signal.SIGTERM)


def killed(how: str, spec: Path, out: Path) -> str:
    """The run, struck once and brought to its end; what its end says of where it went on."""
    run = start(spec, out)
    wait_for_checkpoint(run, out, 2 * SAVE_EVERY)
    strike(how, run)
    said = run.communicate(timeout=WAIT_S)[1]
    if how == "worker":
        assert run.returncode == 0, said
    else:
        assert run.returncode == (-signal.SIGKILL if how == "driver" else 130), (run.returncode, said)
        run = start(spec, out)
        said = run.communicate(timeout=WAIT_S)[1]
        assert run.returncode == 0, said
    return next(line.split(" (")[0] for line in said.splitlines() if line.startswith("going on"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=["worker", "driver", "SIGTERM", "repeat"])
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec, whole = write_spec(folder, given.steps, given.workers), folder / "whole"
        run = start(spec, whole)
        said = run.communicate(timeout=WAIT_S)[1]
        assert run.returncode == 0, said
        for how in given.only:
            out = folder / how
            if how == "repeat":
                run = start(whole / "job.json", out)
                said = run.communicate(timeout=WAIT_S)[1]
                assert run.returncode == 0, said
                went = "from job.json"
            else:
                went = killed(how, spec, out)
            losses, expected = rows(out), rows(whole)
            assert losses.keys() == expected.keys() == set(range(given.steps))
            difference = max(abs(losses[step] - expected[step]) for step in expected)
            same = (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
            worst = max(worst, difference)
            print(
                f"{how}: {went}; largest difference of a loss {difference:.2e}; model {'the same' if same else 'differs'}",
                flush=True,
            )
    return 0 if worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
