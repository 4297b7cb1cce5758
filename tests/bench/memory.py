"""Peak memory of a label run's driver and workers, for 2,000 and for 20,000 small images.

    uv run python tests/bench/memory.py

The model is `rectangles`, which costs nothing, so that ten times the images is a matter of minutes. Resident size is
counted without the pages of Ray's object store, which all processes share and which has a fixed size of its own; that
store's use is printed beside it. Wanted: less than 10 % between the two runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

EVERY_S = 0.2


def draw(folder: Path, count: int) -> None:
    """`count` JPEG files of 48x48."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{i:06d}.jpg")


def kind_of(process: psutil.Process, driver: int) -> str | None:
    """Which part of the run a process is; None for Ray's own servers."""
    if process.pid == driver:
        return "driver"
    title = " ".join(process.cmdline())
    if "LabelWorker" in title:
        return "model worker"
    return "read worker" if title.startswith("ray::") and ("Read" in title or "IDLE" in title) else None


def watch(command: list[str]) -> dict[str, float]:
    """Run `command`; peak MB by kind of process (the largest one of a kind), of all together, and of shared memory."""
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    driver = psutil.Process(started.pid)
    peaks: dict[str, float] = defaultdict(float)
    while started.poll() is None:
        total = 0.0
        for process in [driver, *driver.children(recursive=True)]:
            try:
                kind, memory = kind_of(process, driver.pid), process.memory_info()
            except psutil.Error:
                continue
            if kind is None:
                continue
            private = (memory.rss - memory.shared) / 1e6
            total += private
            peaks[kind] = max(peaks[kind], private)
            peaks["shared pages of one process"] = max(peaks["shared pages of one process"], memory.shared / 1e6)
        peaks["driver and workers together"] = max(peaks["driver and workers together"], total)
        time.sleep(EVERY_S)
    if started.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {started.returncode}")
    return dict(peaks)


def main() -> None:
    """Measure both runs and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=20_000)
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in (arguments.few, arguments.many):
            images, out = Path(scratch) / f"images-{count}", Path(scratch) / f"out-{count}"
            draw(images, count)
            command = [sys.executable, "-m", "rayseg.cli", "label", "--images", str(images), "--model", "rectangles"]
            found.append(watch([*command, "--out", str(out), "workers=2"]))
    few, many = found
    print(f"{'peak MB':32s}{arguments.few:>10,}{arguments.many:>10,}{'change':>10s}")
    for kind in sorted(many):
        print(f"{kind:32s}{few[kind]:10.0f}{many[kind]:10.0f}{many[kind] / few[kind] - 1:10.1%}")


if __name__ == "__main__":
    main()
