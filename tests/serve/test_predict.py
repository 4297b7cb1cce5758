"""POST /v1/predict through the whole web application: what it answers, and what it does not take."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from random_model import save_random
from serve.online import check_problem, picture, png, with_app

import rayseg
from rayseg import images, kernels, storage
from rayseg.errors import ImageError, ModelError
from rayseg.serve import answers, options
from rayseg.serve.labelling import ChunkFailed
from rayseg.serve.problems import Problem

PNG = {"content-type": "image/png"}


def test_the_answer_is_the_predictors():
    image = picture()
    (expected,) = rayseg.load("rectangles").predict([image])

    async def check(client, made):
        for sent in (
            {"content": png(image), "headers": PNG},
            {"content": png(image), "headers": {"content-type": "application/octet-stream"}},
            {"files": {"image": ("photo.png", png(image), "image/png")}},
        ):
            response = await client.post("/v1/predict", **sent)
            assert response.status_code == 200, response.text
            answer = response.json()
            assert (answer["width"], answer["height"]) == (64, 48)
            assert answer["fingerprint"] == made.service.facts["default"].fingerprint
            assert set(answer["timing_ms"]) == {"queue", "decode", "forward", "finish"}
            rows = [{name: row[name] for name in row if name != "category"} for row in answer["instances"]]
            assert [{"image_id": 0, **row} for row in rows] == expected.to_coco()
            assert [row["category"] for row in answer["instances"]] == [
                ("red", "green", "blue")[i] for i in expected.classes
            ]

    with_app(check)


def test_a_networks_answers_are_the_predictors_whoever_asks_at_the_same_time(tmp_path):
    model = save_random(tmp_path / "model", detections=5)
    pictures = [picture(96, 128, seed) for seed in range(4)] + [picture(128, 96, seed) for seed in range(2)]
    threads = torch.get_num_threads()

    async def check(client, made):
        predictor = made.replicas.replica.predictor
        answers = await asyncio.gather(
            *(client.post("/v1/predict", content=png(image), headers=PNG) for image in pictures)
        )
        for image, answer in zip(pictures, answers, strict=True):
            (expected,) = predictor.predict([image])
            assert len(expected) == 5
            rows = [{name: row[name] for name in row if name != "category"} for row in answer.json()["instances"]]
            for row, other in zip(rows, expected.to_coco(), strict=True):
                assert row["bbox"] == pytest.approx(other["bbox"], abs=0.01)  # a batch rounds otherwise than one alone
                assert row["score"] == pytest.approx(other["score"], abs=1e-5)
                assert row["category_id"] == other["category_id"]
                ours, theirs = (coco_mask.decode(one["segmentation"]) for one in (row, other))
                assert (ours != theirs).mean() < 1e-3

    try:
        with_app(check, model=model, max_batch=4)
    finally:
        torch.set_num_threads(threads)


def test_an_image_in_storage_is_read_from_there(bucket, seaweed, tmp_path):
    image = picture(seed=1)
    name = bucket.removeprefix("s3://")
    seaweed.client().put_object(Bucket=name, Key="in/a b#?.png", Body=png(image))
    seaweed.client().put_object(Bucket=name, Key="in/large.png", Body=bytes(100_001))
    (tmp_path / "a.png").write_bytes(png(image))

    async def check(client, made):
        async def ask(uri):
            return await client.post("/v1/predict", json={"uri": uri})

        direct = (await client.post("/v1/predict", content=png(image), headers=PNG)).json()
        for uri in (f"{bucket}/in/a b#?.png", str(tmp_path / "a.png")):
            answer = await ask(uri)
            assert answer.json()["instances"] == direct["instances"]
        for uri in (f"{bucket}/in/none.png", f"{bucket}/in/large.png", str(tmp_path / "none.png"), str(tmp_path)):
            problem = check_problem(await ask(uri), 422, "uri-unreadable")
            assert "127.0.0.1" not in problem["detail"]  # nor where the store is
        check_problem(await ask(f"{bucket}/secret.png"), 403, "uri-not-allowed")

    with_app(check, read_prefixes=[f"{bucket}/in", str(tmp_path)], max_body_bytes=100_000)


def test_a_store_that_does_not_answer_is_a_503(monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "RAYSEG_RETRY_S": "0.01", "AWS_ACCESS_KEY_ID": "a",
                        "AWS_SECRET_ACCESS_KEY": "b"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    storage.reset()

    async def check(client, made):
        problem = check_problem(await client.post("/v1/predict", json={"uri": "s3://photos/a.jpg"}), 503, "busy")
        assert "127.0.0.1" not in problem["detail"]

    try:
        with_app(check, read_prefixes=["s3://photos"])
    finally:
        monkeypatch.undo()
        storage.reset()


def test_options():
    image = picture(seed=2)
    predictor = rayseg.load("rectangles")
    (full,) = predictor.predict([image])
    scores = np.sort(full.scores)[::-1]
    middle = float(scores[1] + scores[2]) / 2

    async def check(client, made):
        async def ask(query):
            response = await client.post(f"/v1/predict?{query}", content=png(image), headers=PNG)
            assert response.status_code == 200, response.text
            return response.json()["instances"]

        everything = await ask("")
        assert len(everything) == 4
        assert await ask(f"score_threshold={middle}") == everything[:2]
        assert await ask("max_detections=3&model=default") == everything[:3]
        assert await ask("max_detections=1000&iou_threshold=0.3&masks=rle") == everything
        names = sorted({row["category"] for row in everything})
        for name in names:
            of_class = [row for row in everything if row["category"] == name]
            assert await ask(f"classes={name}") == of_class
            assert await ask(f"classes={name}&max_detections=1") == of_class[:1]  # the best of that class
        assert await ask(f"classes={','.join(names)}") == everything

    with_app(check)


def test_masks_in_every_form_are_the_same():
    image = picture(seed=3)
    (expected,) = rayseg.load("rectangles").predict([image])
    masks = [expected.rles.decode(i) for i in range(len(expected))]

    async def check(client, made):
        async def segmentations(form):
            response = await client.post(f"/v1/predict?masks={form}", content=png(image), headers=PNG)
            return [row.get("segmentation") for row in response.json()["instances"]]

        for mask, rle, polygons, picture_text in zip(
            masks, await segmentations("rle"), await segmentations("polygons"), await segmentations("png"), strict=True
        ):
            assert (coco_mask.decode(rle) == mask).all()
            assert (coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))) == mask).all()
            drawn = Image.open(io.BytesIO(base64.b64decode(picture_text)))
            assert (np.asarray(drawn).astype(np.uint8) == mask).all()
        assert await segmentations("none") == [None] * len(masks)

    with_app(check)


def test_more_masks_as_png_than_can_be_waited_for_are_refused(monkeypatch):
    image = picture(seed=3)
    monkeypatch.setattr(answers, "MOST_PNG_PIXELS", 3 * image.shape[0] * image.shape[1])

    async def check(client, made):
        refused = await client.post("/v1/predict?masks=png", content=png(image), headers=PNG)
        detail = check_problem(refused, 422, "too-many-masks")["detail"]
        assert "4 masks of 64x48 pixels, expected at most 3" in detail
        taken = await client.post("/v1/predict?masks=png&max_detections=3", content=png(image), headers=PNG)
        assert (taken.status_code, len(taken.json()["instances"])) == (200, 3)

    with_app(check)


def test_a_model_that_breaks_is_503_and_its_replica_is_replaced(caplog):
    async def check(client, made):
        replica = made.replicas.replica
        detect = replica.predictor.detect

        def broken(batch):
            raise RuntimeError("CUDA error: device-side assert triggered")

        replica.predictor.detect = broken
        for _ in range(3):
            answer = await client.post("/v1/predict", content=png(picture()), headers={**PNG, "x-request-id": "id-7"})
            assert "CUDA" not in check_problem(answer, 503, "model-failed")["detail"]
            assert answer.headers["retry-after"]
        with pytest.raises(ModelError, match="the last 3 forwards failed"):
            await replica.check_health()
        refused = await replica.label(None)  # a chunk of a batch is left to replicas that work
        assert isinstance(refused, ChunkFailed) and refused.transient and not refused.counts
        replica.predictor.detect = detect
        assert (await client.post("/v1/predict", content=png(picture()), headers=PNG)).status_code == 200
        await replica.check_health()

    log = logging.getLogger("rayseg.serve")
    log.addHandler(caplog.handler)
    try:
        with_app(check)
    finally:
        log.removeHandler(caplog.handler)
    assert any("CUDA error" in (record.exc_text or "") for record in caplog.records), "the log has what answers do not"


def test_names_of_classes_may_have_commas():
    names = ["dog", "cat, black", "dog, old, grey", "cat"]
    assert options.class_ids("cat, black", names) == (1,)
    assert options.class_ids("dog,cat, black,cat", names) == (0, 1, 3)
    assert options.class_ids("dog, old, grey,dog", names) == (0, 2)
    with pytest.raises(Problem) as caught:
        options.class_ids("dog, old, gray", names)
    assert "'old' is not a class" in caught.value.detail


def test_polygons_of_masks_with_holes_keep_them():
    from rayseg.records import Instances
    from rayseg.serve.answers import json_body

    mask = np.zeros((1, 20, 30), np.uint8)
    mask[0, 2:18, 3:25] = 1
    mask[0, 6:10, 8:12] = mask[0, 12:15, 15:20] = 0
    mask[0, 0, 29] = 1
    boxes = np.array([[3, 2, 25, 18]], np.float32)
    one = Instances(boxes, np.ones(1, np.float32), np.zeros(1, np.int64), kernels.encode(mask), (20, 30))
    (row,) = json.loads(json_body(one, ["a"], "polygons", "m", "f", {}))["instances"]
    rings = [np.array(ring).reshape(-1, 2) for ring in row["segmentation"]]
    back = kernels.from_polygons([[[ring] for ring in rings]], (20, 30))
    assert (back.decode(0) == mask[0]).all()


def test_an_overlay_by_accept():
    image = picture(96, 128)

    async def check(client, made):
        async def ask(accept):
            return await client.post("/v1/predict", content=png(image), headers={**PNG, "accept": accept})

        for accept in ("image/png", "image/png, application/json;q=0.5"):
            response = await ask(accept)
            assert response.headers["content-type"] == "image/png"
            drawn = np.asarray(Image.open(io.BytesIO(response.content)))
            assert drawn.shape == image.shape
            assert (drawn != image).any()
        for accept in ("*/*", "application/json", "text/html, */*", ""):
            assert (await ask(accept)).headers["content-type"] == "application/json"

    with_app(check)


@pytest.mark.parametrize("query", ["score_treshold=0.5", "score_threshold=2", "score_threshold=x", "score_threshold=nan",
                                   "iou_threshold=0", "max_detections=0", "max_detections=1001", "max_detections=1.5",
                                   "masks=bitmap", "classes=rad", "classes=", "classes=red,,green", "x=1"])  # fmt: skip
def test_unknown_options_and_values_are_named(query):
    async def check(client, made):
        response = await client.post(f"/v1/predict?{query}", content=png(picture()), headers=PNG)
        assert response.status_code == 422
        detail = check_problem(response, 422, response.json()["type"].removeprefix("rayseg:"))["detail"]
        assert query.partition("=")[0] in detail
        assert made.replicas.calls == 0

    with_app(check)


def test_what_is_no_image_request():
    async def check(client, made):
        async def ask(**sent):
            return await client.post("/v1/predict", **sent)

        html = {"content-type": "text/html"}
        check_problem(await ask(content=b"<html>", headers=html), 415, "wrong-content-type")
        form = {"content-type": "application/x-www-form-urlencoded"}
        check_problem(await ask(content=b"image=x", headers=form), 415, "wrong-content-type")
        check_problem(await ask(content=b"", headers=PNG), 422, "empty-body")
        check_problem(await ask(files={"image": b""}), 422, "empty-body")
        check_problem(await ask(files={"picture": png(picture())}), 422, "bad-form")
        check_problem(await ask(files=[("image", b"a"), ("image", b"b")]), 422, "bad-form")
        broken_form = {"content-type": "multipart/form-data; boundary=x"}
        check_problem(await ask(content=b"--y\r\nnothing", headers=broken_form), 422, "bad-form")
        no_boundary = {"content-type": "multipart/form-data"}
        check_problem(await ask(content=b"--y\r\nnothing", headers=no_boundary), 422, "bad-form")
        as_json = {"content-type": "application/json"}
        for body in (
            b"{",
            b"[]",
            b"{}",
            b'{"uri": 1}',
            b'{"uri": ""}',
            b'{"uri": "s3://a/b", "x": 1}',
            b"\xff",
            b"null",
        ):
            check_problem(await ask(content=body, headers=as_json), 422, "bad-request")
        assert made.replicas.calls == 0
        response = await client.get("/v1/predict")
        check_problem(response, 405, "method-not-allowed")
        assert response.headers["allow"] == "POST"
        check_problem(await client.get("/v1/nothing"), 404, "not-found")
        check_problem(await client.post("/v1/predict?model=none", content=b"x", headers=PNG), 404, "unknown-model")

    with_app(check)


def test_odd_images_are_answered_as_the_decoder_takes_them(shared_data):
    files = sorted(path for path in (shared_data / "odd_images").rglob("*") if path.is_file())

    async def check(client, made):
        for file in files:
            data = file.read_bytes()
            response = await client.post("/v1/predict", content=data, headers={"content-type": "image/jpeg"})
            try:
                height, width = images.decode(data, max_pixels=1_000_000).shape[:2]
            except ImageError as error:
                if error.kind.startswith("too_many"):
                    check_problem(response, 413, "too-large")
                elif error.kind == "empty":
                    check_problem(response, 422, "empty-body")
                else:
                    detail = check_problem(response, 422, "bad-image")["detail"]
                    assert detail.startswith(f"{error.kind}: "), (file.name, detail)
            else:
                assert response.status_code == 200, (file.name, response.text)
                assert (response.json()["height"], response.json()["width"]) == (height, width)

    with_app(check, max_pixels=1_000_000)


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    def png_of(width, height):
        header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
            for kind, data in chunks
        )

    async def check(client, made):
        monkeypatch.setattr(images, "decode", None)  # nothing may come as far
        for size in ((30_000, 30_000), (2**31 - 1, 2**31 - 1), (1001, 1000)):
            response = await client.post("/v1/predict", content=png_of(*size), headers=PNG)
            check_problem(response, 413, "too-large")
        zipped = {**PNG, "content-encoding": "gzip"}
        response = await client.post("/v1/predict", content=b"\x1f\x8b\x08" + bytes(50), headers=zipped)
        check_problem(response, 422, "bad-image")  # nothing unpacks what is sent

    with_app(check, max_pixels=1_000_000)


def test_a_thousand_requests_at_once_are_answered_or_refused_and_memory_is_bounded():
    body = png(picture(64, 64))

    async def check(client, made):
        responses = await asyncio.gather(*(client.post("/v1/predict", content=body, headers=PNG) for _ in range(1000)))
        codes = [response.status_code for response in responses]
        assert set(codes) <= {200, 503}
        assert codes.count(200) >= 8
        for response in responses:
            if response.status_code == 503:
                check_problem(response, 503, "busy")
                assert int(response.headers["retry-after"]) > 0
        assert made.replicas.replica.scheduler.online_waiting == 0
        after = await client.post("/v1/predict", content=body, headers=PNG)
        assert after.status_code == 200

    with_app(check, max_queued=8, max_batch=2, max_waiting_bytes=200 * len(body), max_body_bytes=2 * len(body))


def test_a_failure_inside_tells_nothing_of_the_inside():
    async def check(client, made):
        async def broken(*args, **named):
            raise RuntimeError("password=hunter2 at /srv/secret")

        made.replicas.call = broken
        given = {**PNG, "x-request-id": "mine-1"}
        response = await client.post("/v1/predict", content=png(picture()), headers=given)
        problem = check_problem(response, 500, "internal")
        assert problem["request_id"] == "mine-1"
        assert "hunter2" not in response.text and "secret" not in response.text
        made.replicas.call = refused
        check_problem(await client.post("/v1/predict", content=png(picture()), headers=PNG), 503, "busy")

    async def refused(*args, **named):
        raise Problem(503, "busy", "later")

    with_app(check)


def test_several_models():
    async def check(client, made):
        models = (await client.get("/v1/models")).json()["models"]
        assert [(model["name"], model["default"]) for model in models] == [("a", True), ("b", False)]
        assert models[0]["classes"] == ["red", "green", "blue"]
        for query, name in (("", "a"), ("?model=b", "b")):
            answer = await client.post(f"/v1/predict{query}", content=png(picture()), headers=PNG)
            assert answer.json()["model"] == name

    with_app(check, model=None, models={"a": "rectangles", "b": "rectangles"})
