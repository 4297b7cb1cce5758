"""What is captured is read back as a data set; a store that is slow or away costs an answer nothing and drops are counted."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image
from serve.online import with_app

import rayseg
from rayseg import images, storage
from rayseg.errors import AccessDenied, Unreachable
from rayseg.formats.faults import BadAnnotation
from rayseg.models.predictor import load
from rayseg.serve import capture as captures
from rayseg.serve.capture import Capture
from rayseg.serve.service import ModelFacts


@pytest.fixture(scope="module")
def predictor():
    return load("rectangles")


def facts(predictor, name="default"):
    info = predictor.info
    return ModelFacts(name, info.uri, info.class_names, info.fingerprint, info.architecture)


def prediction(predictor, i):
    """An image's bytes and what is found in it."""
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)).save(sink, "PNG")
    return predictor.predict([images.decode(sink.getvalue())])[0], sink.getvalue()


def files(uri):
    return [entry.uri for page in storage.list_pages(f"{uri}/default/data") for entry in page]


def test_predictions_become_a_data_set_with_their_images(predictor, bucket, monkeypatch):
    monkeypatch.setattr(captures, "FILE_IMAGES", 4)
    capture = Capture(f"{bucket}/capture", facts(predictor), keep_images=True)
    predictions = [prediction(predictor, i) for i in range(10)]
    for i, (found, data) in enumerate(predictions):
        assert capture.offer(found, data, f"{bucket}/in/{i}.png" if i % 2 else None, f"request-{i}")
    assert capture.close(60) == 0
    assert (capture.kept, capture.written, capture.dropped) == (10, 10, 0)
    assert len(files(f"{bucket}/capture")) == 3
    dataset = rayseg.read(f"{bucket}/capture/default")
    assert tuple(category.name for category in dataset.categories) == predictor.class_names
    read = {image.attributes["request_id"]: image for image in dataset.images}
    assert len(read) == len({image.name for image in read.values()}) == 10
    for i, (found, data) in enumerate(predictions):
        image = read[f"request-{i}"]
        assert (image.data, image.uri) == (data, f"{bucket}/in/{i}.png" if i % 2 else None)
        assert image.attributes["fingerprint"] == predictor.fingerprint
        assert [one.category for one in image.annotations] == found.classes.tolist()
        assert [one.score for one in image.annotations] == found.scores.tolist()
        np.testing.assert_array_equal([one.box_xyxy for one in image.annotations], found.boxes_xyxy)
        masks = [(one.shape.counts, one.shape.image_hw) for one in image.annotations]
        assert masks == [(rle["counts"], (24, 32)) for rle in found.rles.to_coco()]


def test_without_image_bytes_the_files_name_the_images(predictor, tmp_path):
    capture = Capture(str(tmp_path), facts(predictor), keep_images=False)
    found, data = prediction(predictor, 1)
    capture.offer(found, data, "s3://photos/1.png")
    assert capture.close(60) == 0
    (image,) = rayseg.read(str(tmp_path / "default")).images
    assert (image.data, image.uri) == (None, "s3://photos/1.png")


def test_a_prediction_waits_no_longer_than_the_flush(predictor, tmp_path):
    capture = Capture(str(tmp_path), facts(predictor), keep_images=True, flush_s=0.01)
    capture.offer(*prediction(predictor, 1))
    deadline = time.monotonic() + 60
    while not capture.written and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(files(tmp_path)) == 1
    capture.close(60)


@pytest.mark.parametrize("error", [Unreachable, AccessDenied, OSError])
def test_a_store_that_fails_costs_answers_nothing_and_drops_are_counted(predictor, tmp_path, monkeypatch, error):
    monkeypatch.setattr(captures, "FILE_IMAGES", 2)
    monkeypatch.setattr(captures, "LONGEST_WAIT_S", 0.01)
    create, away = storage.create, threading.Event()

    def fails(uri, data):
        if away.is_set():
            return create(uri, data)
        raise error(uri, "will not")

    monkeypatch.setattr(storage, "create", fails)
    found, data = prediction(predictor, 1)
    capture = Capture(str(tmp_path), facts(predictor), keep_images=True, most_bytes=20 * (len(data) + 3000))
    taken = [capture.offer(found, data) for _ in range(100)]
    assert 20 <= sum(taken) < 60
    assert taken == sorted(taken, reverse=True)  # what comes once it is full is dropped
    assert (capture.kept, capture.dropped, capture.written) == (sum(taken), 100 - sum(taken), 0)
    away.set()
    assert capture.close(60) == 0
    assert capture.written == capture.kept == len(list(rayseg.read(str(tmp_path / "default")).images))


def test_a_file_whose_answer_was_lost_is_written_once_and_holds_up_nothing(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "FILE_IMAGES", 1)
    monkeypatch.setattr(captures, "LONGEST_WAIT_S", 0.01)
    create, lost = storage.create, []

    def unanswered(uri, data):
        create(uri, data)  # a second time it raises a Conflict
        if not lost:
            lost.append(uri)
            raise Unreachable(uri, "no answer")

    monkeypatch.setattr(storage, "create", unanswered)
    capture = Capture(str(tmp_path), facts(predictor), keep_images=True)
    for i in range(3):
        assert capture.offer(*prediction(predictor, i))
    assert capture.close(60) == 0
    assert (capture.written, len(files(tmp_path))) == (3, 3)


def test_a_store_that_hangs_does_not_hold_an_answer_or_the_end_up(predictor, tmp_path, monkeypatch):
    go_on, asked = threading.Event(), threading.Event()

    def hangs(uri, data):
        asked.set()
        go_on.wait(60)

    monkeypatch.setattr(storage, "create", hangs)
    monkeypatch.setattr(captures, "FILE_IMAGES", 1)
    capture = Capture(str(tmp_path), facts(predictor), keep_images=True)
    found, data = prediction(predictor, 1)
    assert capture.offer(found, data)
    assert asked.wait(60)
    assert all(capture.offer(found, data) for _ in range(20))  # while the writer is stuck, in no more than memory
    assert capture.close(0.01) == 21
    assert not capture.offer(found, data)
    go_on.set()


def test_many_threads_lose_and_double_nothing(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "FILE_IMAGES", 7)
    capture = Capture(str(tmp_path), facts(predictor), keep_images=True)
    found, data = prediction(predictor, 1)

    def offer(name):
        for i in range(50):
            assert capture.offer(found, data, request_id=f"{name}-{i}")

    threads = [threading.Thread(target=offer, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capture.close(60) == 0
    ids = [image.attributes["request_id"] for image in rayseg.read(str(tmp_path / "default")).images]
    assert sorted(ids) == sorted(f"{name}-{i}" for name in "abcd" for i in range(50))


def test_captures_of_models_with_other_classes_are_not_mixed_up(predictor, tmp_path):
    import dataclasses

    found, data = prediction(predictor, 1)
    for names in (predictor.class_names, ("cat", "dog", "bird")):
        other = dataclasses.replace(facts(predictor), class_names=names)
        capture = Capture(str(tmp_path), other, keep_images=True)
        capture.offer(found, data)
        assert capture.close(60) == 0
    with pytest.raises(BadAnnotation, match="different classes"):
        rayseg.read(str(tmp_path / "default"))
    for one in files(tmp_path):
        assert len(list(rayseg.read(one).images)) == 1


def test_an_endpoint_captures_what_it_answers_and_counts_it(predictor, tmp_path):
    """Whatever the caller chose to see of it: masks as an overlay, a single class."""
    found, data = prediction(predictor, 1)

    async def check(client, made):
        for query, accept in (("?classes=red&masks=none", "application/json"), ("", "image/png")):
            headers = {"Content-Type": "image/png", "Accept": accept}
            answer = await client.post(f"/v1/predict{query}", content=data, headers=headers)
            assert answer.status_code == 200
        made.replicas.replica.capture._most_bytes = 0
        assert (
            await client.post("/v1/predict", content=data, headers={"Content-Type": "image/png"})
        ).status_code == 200
        made.replicas.replica.close()
        exposition = made.service.metrics.exposition().decode()
        assert 'rayseg_captured_total{model="default",outcome="kept"} 2.0' in exposition
        assert 'rayseg_captured_total{model="default",outcome="dropped"} 1.0' in exposition

    with_app(check, capture=str(tmp_path), capture_images=True)
    read = list(rayseg.read(str(tmp_path / "default")).images)
    assert [image.data for image in read] == [data, data]
    assert [len(image.annotations) for image in read] == [len(found)] * 2
