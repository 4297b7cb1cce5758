"""Reading and decoding without Ray: chunks in plan order, errors as rows, outages as errors of the run."""

import io

import numpy as np
import pytest
from PIL import Image

from rayseg import storage
from rayseg.errors import Unreachable
from rayseg.label import chunks
from rayseg.label.source import ReadJob, prepared_images, read_chunks
from rayseg.models.preprocess import Preprocess
from rayseg.outputs.plan import write_plan
from rayseg.storage import Entry

SIZES = [(40, 60), (300, 200), (64, 64), (1, 1), (17, 500)]


def png(image):
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    pictures = {f"{i}.png": rng.integers(0, 256, (*hw, 3), np.uint8) for i, hw in enumerate(SIZES)}
    for name, image in pictures.items():
        storage.write(str(tmp_path / "in" / name), png(image))
    storage.write(str(tmp_path / "in" / "5.png"), b"<html>not found</html>")
    storage.write(str(tmp_path / "in" / "6.png"), b"")
    names = [*pictures, "5.png", "6.png", "7-is-gone.png"]
    out = str(tmp_path / "out")
    plan = write_plan(out, [[Entry(str(tmp_path / "in" / name), -1) for name in names]])
    return ReadJob(out, plan, Preprocess(), 3, 100_000_000, 1 << 28), pictures


def read(job, ordinals):
    return [chunks.unpack(block) for block in read_chunks(job, np.array(ordinals))]


def test_chunks_hold_the_images_in_order_and_errors_in_place(job):
    job, pictures = job
    found = read(job, range(8))
    assert [len(table) for table, _ in found] == [3, 3, 2]
    assert [i for table, _ in found for i in table["ordinal"].to_pylist()] == list(range(8))
    images = [image for table, _ in found for image in prepared_images(table)]
    for image, expected in zip(images, pictures.values(), strict=False):
        assert image.image_hw == expected.shape[:2]
        np.testing.assert_array_equal(image.pixels, expected)
    errors = [error for table, _ in found for error in table["error"].to_pylist()]
    assert errors[:5] == [None] * 5
    assert [(error["stage"], error["kind"]) for error in errors[5:]] == [
        ("decode", "not_an_image"),
        ("decode", "empty"),
        ("read", "object_not_found"),
    ]
    assert "7-is-gone.png" in errors[7]["message"]
    assert all(seconds["decode"] > 0 for _, seconds in found[:2])


def test_any_subset_of_the_plan_can_be_asked_for(job):
    job, _ = job
    found = read(job, [1, 2, 5, 7])
    assert [table["ordinal"].to_pylist() for table, _ in found] == [[1, 2, 5], [7]]
    assert [uri.rpartition("/")[2] for table, _ in found for uri in table["uri"].to_pylist()] == [
        "1.png",
        "2.png",
        "5.png",
        "7-is-gone.png",
    ]


def test_large_images_travel_resized_and_small_ones_as_they_are(job):
    import dataclasses

    job, pictures = job
    resizing = dataclasses.replace(job, preprocess=Preprocess(min_size=32, max_size=64))
    images = [image for table, _ in read(resizing, range(5)) for image in prepared_images(table)]
    assert [image.resized for image in images] == [False, True, False, False, True]
    for image, expected in zip(images, pictures.values(), strict=True):
        assert image.image_hw == expected.shape[:2]
        if image.resized:
            np.testing.assert_array_equal(image.pixels, Preprocess(min_size=32, max_size=64).resize(expected).numpy())


def test_storage_that_does_not_answer_stops_the_run_instead_of_failing_its_images(job, monkeypatch):
    job, _ = job

    def away(uri, max_bytes=None):
        raise Unreachable(uri, "no answer")

    monkeypatch.setattr(storage, "read", away)
    with pytest.raises(Unreachable):
        read(job, range(3))
