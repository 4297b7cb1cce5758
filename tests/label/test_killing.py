"""A short form of `killing.py`: driver, worker and server each get SIGKILL once; the rows are those of a quiet run."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from label.killing import assert_same_rows
from PIL import Image

from rayseg import storage
from rayseg.label.run import run
from rayseg.label.spec import LabelSpec
from rayseg.outputs.progress import LineReporter
from rayseg.outputs.verify import verify

pytestmark = pytest.mark.usefixtures("ray_cluster")

IMAGES = 1500
AWAY_S = 1.0


class Once(LineReporter):
    """Calls `act` when the first part is stored and the run goes on."""

    def __init__(self, act):
        super().__init__(every_s=3600)
        self.act = act
        self.acted = False

    def show(self, snapshot):
        if snapshot.stored and not self.acted and snapshot.done < snapshot.total:
            self.acted = True
            self.act()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.png")
    return str(folder)


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory, ray_cluster):
    out = str(tmp_path_factory.mktemp("undisturbed"))
    run(spec(images, out))
    return rows(out)


def spec(images, out):
    return LabelSpec(images=images, model="rectangles", out=out, part_bytes=1, workers=1)


def rows(out):
    found = {}
    for page in storage.list_pages(f"{out}/data"):
        for entry in page:
            with storage.open(entry.uri) as file:
                for row in pq.read_table(file).to_pylist():
                    assert row["uri"] not in found, "two rows for one image"
                    found[row["uri"]] = row
    return found


def check(out, undisturbed):
    assert verify(out).ok
    assert_same_rows(rows(out), undisturbed)


def test_a_killed_worker_costs_nothing(images, undisturbed, tmp_path):
    def kill_a_worker():
        for process in psutil.Process().children(recursive=True):
            if "LabelWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return
        pytest.fail("no worker to kill")

    report = Once(kill_a_worker)
    run(spec(images, str(tmp_path)), report=report)
    assert report.acted
    check(str(tmp_path), undisturbed)


def test_a_store_that_goes_away_and_comes_back_costs_nothing(images, undisturbed, bucket, seaweed):
    def power_cut():
        seaweed.kill()
        time.sleep(AWAY_S)
        seaweed.start()

    report = Once(power_cut)
    run(spec(images, f"{bucket}/out"), report=report)
    assert report.acted
    check(f"{bucket}/out", undisturbed)


def test_after_a_killed_driver_the_same_command_goes_on(images, undisturbed, tmp_path):
    out = str(tmp_path)
    command = [sys.executable, "-m", "rayseg.cli", "label", "--images", images, "--model", "rectangles", "--out", out]
    process = subprocess.Popen([*command, "part_bytes=1", "workers=1"], env=os.environ, stderr=subprocess.DEVNULL)
    while process.poll() is None and not parts(out):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not storage.exists(f"{out}/manifest.json")
    summary = run(spec(images, out))
    assert 0 < summary.labelled_now < IMAGES
    check(out, undisturbed)


def parts(out):
    return (
        [name for name in os.listdir(f"{out}/data") if name.endswith(".parquet")]
        if os.path.isdir(f"{out}/data")
        else []
    )
