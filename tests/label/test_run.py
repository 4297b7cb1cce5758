"""Whole label runs on a real Ray cluster, with a model that returns known rectangles."""

import io
import json
import os
import signal
import threading
import time

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from rayseg import storage
from rayseg.errors import JobError, ModelError, ObjectNotFound, StorageError, UsageError
from rayseg.label import commit, pipeline
from rayseg.label.run import run
from rayseg.label.spec import LabelSpec
from rayseg.outputs import ledger as ledgers
from rayseg.outputs.progress import LineReporter
from rayseg.outputs.verify import verify

pytestmark = pytest.mark.usefixtures("ray_cluster")


def png(seed, hw=(48, 64)):
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def fill(folder, count):
    for i in range(count):
        storage.write(storage.join(folder, f"{i:04d}.png"), png(i))
    return folder


def spec(images, out, **more):
    return LabelSpec(images=str(images), model="rectangles", out=str(out), workers=1, **more)


def rows(out):
    table = pq.read_table(f"{out}/data")
    return {row["uri"].rpartition("/")[2]: row for row in table.to_pylist()}


def tree(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


@pytest.fixture
def images(tmp_path):
    return fill(str(tmp_path / "in"), 40)


@pytest.fixture
def photos(images, data_folder):
    """Real photos where they are at hand, else the drawn images."""
    folder = data_folder / "coco_small" / "val2017"
    return str(folder) if folder.is_dir() else images


def test_every_image_gets_one_row_that_opens_in_duckdb_and_pandas(images, tmp_path):
    out = tmp_path / "out"
    summary = run(spec(images, out))
    assert (summary.counts.images, summary.counts.failed, summary.labelled_now) == (40, 0, 40)
    assert verify(str(out)).ok
    frame = duckdb.sql(f"select ordinal, uri, len(instances) as n from '{out}/data/*.parquet' order by ordinal").df()
    assert frame.ordinal.tolist() == list(range(40))
    assert frame.uri.tolist() == [f"{images}/{i:04d}.png" for i in range(40)]
    assert frame.n.sum() == summary.counts.instances > 0
    assert len(pd.read_parquet(out / "data")) == 40
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["inputs"], manifest["instances"]) == (40, summary.counts.instances)
    assert manifest["spec"]["images"] == images
    assert not (out / "lock.json").exists()


def test_bucket_to_bucket_gives_the_rows_of_the_same_run_on_local_files(photos, bucket, tmp_path):
    names = sorted(os.listdir(photos))
    for name in names:
        storage.write(f"{bucket}/in/{name}", storage.read(f"{photos}/{name}"))
    run(spec(photos, tmp_path / "out"))
    run(spec(f"{bucket}/in", f"{bucket}/out"))
    assert verify(f"{bucket}/out").ok
    for page in storage.list_pages(f"{bucket}/out/data"):
        for entry in page:
            storage.write(str(tmp_path / "copy" / "data" / entry.uri.rpartition("/")[2]), storage.read(entry.uri))
    local, remote = rows(tmp_path / "out"), rows(tmp_path / "copy")
    assert sorted(local) == sorted(remote) == names
    for name, row in local.items():
        assert {**remote[name], "uri": None} == {**row, "uri": None}


def test_a_slow_store_holds_the_run_up_and_is_not_flooded(images, tmp_path, monkeypatch):
    times = tmp_path / "times"
    times.mkdir()

    @ray.remote(num_cpus=0)
    def write_slowly(job, refs):
        begin = time.time()
        time.sleep(0.2)
        written = commit.write_part(job, ray.get(refs))
        (times / written.part.name).write_text(f"{begin} {time.time()}")
        return written

    monkeypatch.setattr(commit, "_write_part", write_slowly)
    run(spec(images, tmp_path / "out", part_bytes=1))
    assert verify(str(tmp_path / "out")).ok
    spans = [tuple(map(float, file.read_text().split())) for file in times.iterdir()]
    assert len(spans) > 1
    assert max(sum(begin <= at < end for begin, end in spans) for at, _ in spans) == 1  # as many as there are workers


def test_what_one_execution_does_not_take_the_next_one_does(images, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MOST_CHUNKS", 4)  # of 5
    summary = run(spec(images, tmp_path / "out", limit=9))
    assert (summary.labelled_now, summary.epochs) == (9, 1)
    assert verify(str(tmp_path / "out")).ok


def test_a_finished_run_is_left_alone_and_a_changed_one_refused(images, tmp_path):
    out = tmp_path / "out"
    run(spec(images, out))
    before = tree(out)
    assert run(spec(images, out)).labelled_now == 0
    assert tree(out) == before
    with pytest.raises(JobError, match=r"score_threshold: was None, now 0.9"):
        run(spec(images, out, score_threshold=0.9))
    assert tree(out) == before
    assert run(spec(images, out, flush_s=1.0)).labelled_now == 0  # how fast is not what
    again = run(spec(images, out, score_threshold=0.9), overwrite=True)
    assert again.labelled_now == 40
    assert verify(str(out)).ok


def test_a_run_that_lost_parts_does_only_what_is_missing(images, tmp_path):
    out = tmp_path / "out"
    run(spec(images, out, part_bytes=1))
    whole = rows(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["parts"]) > 2
    (out / "manifest.json").unlink()
    lost = manifest["parts"][0]
    (out / "data" / lost["name"]).unlink()
    summary = run(spec(images, out))
    assert summary.labelled_now == lost["rows"]
    assert verify(str(out)).ok
    assert rows(out) == whole


def test_retry_failed_redoes_only_the_rows_with_an_error(images, tmp_path):
    storage.write(f"{images}/0003.png", b"broken")
    out = tmp_path / "out"
    assert run(spec(images, out)).counts.failed == 1
    before = rows(out)
    assert before["0003.png"]["error"]["kind"] == "not_an_image"
    storage.write(f"{images}/0003.png", png(3))
    assert run(spec(images, out)).labelled_now == 0
    summary = run(spec(images, out), retry_failed=True)
    assert (summary.labelled_now, summary.counts.failed) == (1, 0)
    after = rows(out)
    assert after.pop("0003.png")["error"] is None
    assert verify(str(out)).ok
    before.pop("0003.png")
    assert after == before


def test_a_limit_plans_only_so_many(images, tmp_path):
    assert run(spec(images, tmp_path / "out", limit=7)).counts.images == 7
    assert verify(str(tmp_path / "out")).ok


@pytest.fixture
def interruptible():
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stores_what_is_done_and_says_how_to_go_on(tmp_path, images, interruptible):
    from rayseg.label.execution import Interrupted

    class Impatient(LineReporter):
        """Presses Ctrl-C once something was labelled."""

        def show(self, snapshot):
            if snapshot.done:
                signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="Run the same command again"):
        run(spec(images, out), report=Impatient())
    assert not (out / "manifest.json").exists()
    assert not (out / "lock.json").exists()
    assert any(name.startswith("data/") for name in tree(out))
    summary = run(spec(images, out))
    assert 0 < summary.labelled_now < 40
    assert verify(str(out)).ok


def test_a_coco_file_names_the_images_and_missing_ones_become_rows(images, tmp_path):
    names = ["0001.png", "no-such-file.png", "0002.png"]
    coco = {"images": [{"id": 10 + i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]}
    listing = tmp_path / "instances.json"
    listing.write_text(json.dumps(coco | {"annotations": [], "categories": []}))
    out = tmp_path / "out"
    summary = run(spec(listing, out, images_root=images))
    assert (summary.counts.images, summary.counts.failed) == (3, 1)
    assert rows(out)["no-such-file.png"]["error"]["kind"] == "object_not_found"
    assert verify(str(out)).ok


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": "{in}/empty"}, ObjectNotFound, "empty"),
        ({"images": "{in}/nowhere/list.txt"}, StorageError, "list.txt"),
        ({"model": "maskrcnn_resnet5_fpn"}, ModelError, "did you mean maskrcnn_resnet50_fpn"),
        ({"model": "{in}/no-model"}, ModelError, "no-model"),
        ({"out": "gs://bucket/out"}, StorageError, "gs://bucket/out"),
        ({"out": "{tmp}/a-file/out"}, StorageError, "a-file"),
        ({"out": "{in}/out"}, UsageError, "lies inside images"),
    ],
)
def test_bad_input_is_one_clear_message_and_nothing_that_looks_whole(images, tmp_path, change, error, message):
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "a-file").write_bytes(b"")
    fields = {"images": images, "model": "rectangles", "out": str(tmp_path / "out")}
    fields |= {key: value.format_map({"in": images, "tmp": tmp_path}) for key, value in change.items()}
    with pytest.raises(error, match=message):
        run(LabelSpec(**fields))
    left = tree(tmp_path / "out") if (tmp_path / "out").exists() else []
    assert not [name for name in left if name.endswith((".json", ".parquet"))]


def test_parts_without_a_job_are_not_mistaken_for_ones_own(images, tmp_path):
    out = tmp_path / "out"
    run(spec(images, out))
    (out / "job.json").unlink()
    (out / "manifest.json").unlink()
    with pytest.raises(JobError, match="holds parts but no job.json"):
        run(spec(images, out))
    run(spec(images, out), overwrite=True)
    assert verify(str(out)).ok
    assert ledgers.read_manifest(str(out))["inputs"] == 40


def test_every_odd_image_is_a_row(shared_data, tmp_path):
    source, out = shared_data / "odd_images", tmp_path / "out"
    summary = run(spec(source, out))
    files = {path for path in tree(source) if not path.endswith(".keep")}
    assert verify(str(out)).ok
    found = {os.path.relpath(row["uri"], source): row for row in pq.read_table(out / "data").to_pylist()}
    assert found.keys() | {"derived/directory_named.jpg/.keep"} >= files
    assert summary.counts.failed == sum(row["error"] is not None for row in found.values()) > 10
    upright = found["exif_orientation_all8/Portrait_6.jpg"]
    assert upright["height"] > upright["width"]
    assert found["derived/zero_bytes.jpg"]["error"]["kind"] == "empty"
    assert found["derived/UPPER.JPG"]["error"] is None
