"""`--dry-run`: what would be labelled, how long it would take and what it would cost, without touching the output."""

from collections import Counter

import pytest
from PIL import Image

from rayseg.label import estimate as estimating
from rayseg.label.estimate import SAMPLE_IMAGES, _survey, driver_bytes, estimate
from rayseg.label.spec import LabelSpec
from rayseg.storage import Entry


def spec_of(images, tmp_path, **changes):
    return LabelSpec(images=str(images), model="rectangles", out=str(tmp_path / "out"), **changes)


def test_a_measured_rate_needs_neither_model_nor_images(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"s3://nowhere/{i}.jpg\n" for i in range(3600)))
    found = estimate(
        spec_of(listed, tmp_path, flush_s=10.0).model_copy(update={"model": "s3://nowhere/model"}),
        nodes=5, price_per_node_hour=2.0, rate=2.0,
    )  # fmt: skip
    assert (found.images, found.seconds, found.cost) == (3600, 360.0, 1.0)
    assert (found.plan_files, found.parts, found.sampled, found.size_bytes) == (1, 36, 0, None)
    assert "about 6:00 on 5 nodes of 2.0 images/s" in found.text() and "36 parts" in found.text()
    assert found.as_json()["driver_bytes"] == driver_bytes(3600, 36)
    assert not (tmp_path / "out").exists()


def test_a_sample_is_timed_here(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 48), (200, 10, 10)).save(photos / f"{i}.jpg")
    (photos / "broken.jpg").write_bytes(b"no image")
    found = estimate(spec_of(photos, tmp_path))
    assert (found.images, found.sampled, found.failed_in_sample) == (4, 4, 1)
    assert found.seconds == pytest.approx(4 / found.rate) and found.size_bytes > 0
    assert "1 failed" in found.text()


def test_nothing_that_can_be_labelled_gives_no_estimate(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    found = estimate(spec_of(tmp_path / "broken.jpg", tmp_path))
    assert found.seconds is found.cost is found.parts is None
    assert "no estimate" in found.text()


def test_the_memory_of_a_driver_grows_with_the_images_by_little(tmp_path):
    small, large = driver_bytes(1_000_000, 1000), driver_bytes(100_000_000, 5000)
    assert large - small < 1.2e9


def test_a_limit_and_sizes_that_are_not_known():
    pages = [[Entry(f"{i}", 10 if i < 25 else -1) for i in range(start, start + 10)] for start in range(0, 50, 10)]
    assert _survey(pages, None)[:2] == (50, None)
    count, size_bytes, chosen = _survey(pages, 17)
    assert (count, size_bytes) == (17, 170)
    assert len(set(chosen)) == SAMPLE_IMAGES and all(int(entry.uri) < 17 for entry in chosen)


def test_every_image_of_a_long_stream_is_as_likely_in_the_sample(monkeypatch):
    taken, rounds, length = Counter(), 4000, 60
    pages = [[Entry(str(i), 1) for i in range(start, min(start + 7, length))] for start in range(0, length, 7)]
    seeds = iter(range(rounds))
    seeded = estimating.random.Random
    monkeypatch.setattr(estimating.random, "Random", lambda _: seeded(next(seeds)))
    for _ in range(rounds):
        taken.update(entry.uri for entry in _survey(pages, None)[2])
    expected = rounds * SAMPLE_IMAGES / length
    assert len(taken) == length and sum(taken.values()) == rounds * SAMPLE_IMAGES
    assert all(abs(count - expected) < 6 * expected**0.5 for count in taken.values())
