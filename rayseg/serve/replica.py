"""One replica of a model: bytes in, an answer out. A plain class; `application` makes a Ray Serve deployment of it.

Images are read and decoded, and masks finished, in threads beside the forward; `scheduling` says whose images are next.
What a caller did wrong comes back as a `Problem`, not as an exception, so that Ray neither logs nor wraps it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from rayseg import images, kernels, storage
from rayseg.errors import (
    AccessDenied,
    ImageError,
    ModelError,
    StorageError,
    WrongCredentials,
)
from rayseg.models.predictor import load
from rayseg.models.preprocess import Prepared
from rayseg.models.thresholds import Thresholds
from rayseg.outputs.writing import Written
from rayseg.records import Instances, RawDetections
from rayseg.serve import answers
from rayseg.serve.answers import Answer
from rayseg.serve.capture import Capture
from rayseg.serve.labelling import BatchChunk, ChunkFailed, Labeller, in_threads
from rayseg.serve.limits import Budget
from rayseg.serve.metrics import REQUEST_ID
from rayseg.serve.options import PredictOptions
from rayseg.serve.problems import Problem, busy
from rayseg.serve.scheduling import ForwardFailed, QueueFull, Scheduler, Times
from rayseg.serve.service import ModelFacts
from rayseg.serve.spec import ServeSpec

READ_THREADS = 16
DECODE_THREADS = 2
FINISH_THREADS = 2
ANSWER_THREADS = 2
CAPTURE_S = 10.0  # that a replica waits in the end for what it has captured to be written
_FAILURES_UNTIL_UNHEALTHY = 3
_UNHEALTHY_S = 1.0  # that a chunk of a batch waits at a replica that is about to be replaced

_log = logging.getLogger("rayseg.serve")


@dataclass(frozen=True, slots=True)
class _Decoded:
    prepared: Prepared
    image: np.ndarray | None  # kept where it is drawn on


class ModelReplica:
    """`predict` answers one request, `label` one chunk of a batch."""

    def __init__(self, facts: ModelFacts, spec: ServeSpec, device: str | None = None) -> None:
        self.facts, self.spec = facts, spec
        self.predictor = _load(facts, device)
        self._own = Thresholds(
            self.predictor.score_threshold,
            self.predictor.iou_threshold,
            self.predictor.max_detections,
            self.predictor.mask_threshold,
        )
        self._decoding = ThreadPoolExecutor(DECODE_THREADS, "rayseg-decode")
        self._answering = ThreadPoolExecutor(ANSWER_THREADS, "rayseg-answer")  # apart: masks as PNG take their time
        self._reading = ThreadPoolExecutor(READ_THREADS, "rayseg-read")  # apart: a slow store must hold up nobody else
        self._pixels = Budget(2 * spec.max_pixels)
        self._bytes = Budget(max(spec.max_waiting_bytes, spec.max_body_bytes))
        self._failures = 0
        self.scheduler = Scheduler(
            self._detect,
            self._finish,
            thresholds=self._own,
            max_batch=spec.max_batch,
            max_waiting=max(spec.max_queued, max_ongoing(spec)),
            batch_wait_s=spec.batch_wait_s,
            forward_target_s=spec.forward_target_s,
            finish_threads=FINISH_THREADS,
        )
        self.labeller = Labeller(self.predictor, self.scheduler, self._own, spec)
        self.capture = Capture(spec.capture, facts, keep_images=spec.capture_images) if spec.capture else None
        self._warm_up()

    async def predict(
        self, source: bytes | str, options: PredictOptions, request_id: str | None = None
    ) -> Answer | Problem:
        """The answer for an image's bytes, or for the URI of one, which the ingress has found to be allowed."""
        REQUEST_ID.set(request_id)
        try:
            return await self._predict(source, options)
        except Problem as problem:
            return problem
        except QueueFull:
            return busy("too many requests wait for this model; try again")
        except ImageError as error:
            return _bad_image(error)
        except ModelError as error:
            return Problem(422, "image-not-taken", f"the model cannot take this image: {error}")
        except ForwardFailed as error:
            _log.error("a prediction failed", extra={"fields": {"model": self.facts.name, "error": str(error)}})
            return Problem(503, "model-failed", "the model failed; try again", headers={"Retry-After": "1"})

    async def label(self, chunk: BatchChunk) -> Written | ChunkFailed:
        """One chunk of a batch, as a part of its output."""
        if self._unhealthy:  # it fails fast, and would draw to itself what others could do
            await asyncio.sleep(_UNHEALTHY_S)
            return ChunkFailed("the model fails in one replica, which is being replaced", transient=True)
        return await self.labeller.label(chunk)

    def close(self) -> None:
        """Write what is captured and not written yet."""
        if self.capture is not None:
            self.capture.close(CAPTURE_S)

    async def check_health(self) -> None:
        """Ray Serve asks now and then; a model that only fails, after a GPU's error for instance, is started anew."""
        if self._unhealthy:
            raise ModelError(f"{self.facts.name}: the last {self._failures} forwards failed")

    @property
    def _unhealthy(self) -> bool:
        return self._failures >= _FAILURES_UNTIL_UNHEALTHY

    async def _predict(self, source: bytes | str, options: PredictOptions) -> Answer:
        if isinstance(source, bytes):
            return await self._predict_bytes(source, options)
        async with self._bytes.held(self.spec.max_body_bytes):
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(self._reading, _read, source, self.spec.max_body_bytes)
            return await self._predict_bytes(data, options, source)

    async def _predict_bytes(self, data: bytes, options: PredictOptions, source: str | None = None) -> Answer:
        async with self._pixels.held(_pixels_of(data, self.spec)):  # decoded images are most of the memory
            began = time.perf_counter()
            decoded = await in_threads(self._decoding, self._decode, data, options.form == "overlay")
            decode_s = time.perf_counter() - began
            times = Times()
            thresholds = options.thresholds(self._own)
            (found,) = await self.scheduler.run([decoded.prepared], online=True, thresholds=thresholds, times=times)
            answer = await in_threads(self._answering, self._answer, decoded.image, found, options, decode_s, times)
            if self.capture is None:
                return answer
            return replace(answer, captured=self.capture.offer(found, data, source, REQUEST_ID.get()))

    def _decode(self, data: bytes, keep: bool) -> _Decoded:
        image = images.decode(data, max_pixels=self.spec.max_pixels, max_bytes=self.spec.max_body_bytes)
        return _Decoded(self.predictor.prepare(image), image if keep else None)

    def _answer(
        self, image: np.ndarray | None, found: Instances, options: PredictOptions, decode_s: float, times: Times
    ) -> Answer:
        found = answers.selected(found, options)
        seconds = {"queue": times.queue_s, "decode": decode_s, "forward": times.forward_s, "finish": times.finish_s}
        if image is not None:
            body, media_type = answers.overlay_body(image, found, self.facts.class_names), answers.PNG
        else:
            facts = self.facts
            body = answers.json_body(found, facts.class_names, options.masks, facts.name, facts.fingerprint, seconds)
            media_type = answers.JSON
        return Answer(body, media_type, len(found), seconds, times.batch)

    def _detect(self, batch: Sequence[Prepared | np.ndarray], thresholds: Thresholds) -> list[RawDetections]:
        """Called by the scheduler's one forward thread, so the predictor's thresholds are this batch's."""
        predictor = self.predictor
        predictor.score_threshold, predictor.iou_threshold = thresholds.score, thresholds.iou
        predictor.max_detections = thresholds.max_detections
        try:
            found = predictor.detect(batch)
        except ModelError:
            raise
        except Exception:
            self._failures += 1
            raise
        self._failures = 0
        return found

    def _finish(self, raw: RawDetections) -> Instances:
        return self.predictor.finish([raw])[0]

    def _warm_up(self) -> None:
        """All that a first request would wait for: kernels, the network's own set-up, the decoder."""
        blank = np.zeros((64, 64, 3), np.uint8)
        with io.BytesIO() as file:
            Image.fromarray(blank).save(file, "JPEG")
            images.decode(file.getvalue())
        self.predictor.predict([blank])
        kernels.warm_up(everything=False)


def max_ongoing(spec: ServeSpec) -> int:
    """Requests that one replica has at hand: one batch in the forward, one decoded, one arriving."""
    return max(3 * spec.max_batch, int(2 * spec.target_ongoing_requests))


def _load(facts: ModelFacts, device: str | None) -> Any:
    if device in (None, "cpu"):
        import torch

        torch.set_num_threads(1)  # there are several replicas for as many cores
    predictor = load(facts.uri, device)
    if predictor.fingerprint != facts.fingerprint:
        raise ModelError(
            f"{facts.uri}: the model changed since the server was started: expected fingerprint "
            f"{facts.fingerprint[:12]}, found {predictor.fingerprint[:12]}; deploy again to serve it"
        )
    return predictor


def _pixels_of(data: bytes, spec: ServeSpec) -> int:
    """Pixels by the header. Raises ImageError, before anything is decoded, for too many."""
    declared = images.header(data)
    pixels = declared.width * declared.height
    if pixels > spec.max_pixels:
        size = f"{declared.width}x{declared.height} pixels"
        raise ImageError("too_many_pixels", f"{declared.format} of {size}, expected at most {spec.max_pixels:,}")
    return pixels


def _read(uri: str, max_bytes: int) -> bytes:
    """The object, or a `Problem` that says no more than the caller may know of the store."""
    try:
        return storage.read(uri, max_bytes=max_bytes)
    except (AccessDenied, WrongCredentials):
        raise Problem(403, "uri-not-allowed", f"uri: the server is not allowed to read {uri[:200]!r}") from None
    except StorageError as error:
        if storage.is_transient(error):
            raise busy("the store that holds the image does not answer; try again", 5) from None
        detail = f"uri: {uri[:200]!r} is no object of at most {max_bytes:,} bytes that can be read"
        raise Problem(422, "uri-unreadable", detail) from None
    except OSError:
        raise Problem(422, "uri-unreadable", f"uri: {uri[:200]!r} cannot be read") from None


def _bad_image(error: ImageError) -> Problem:
    if error.kind in ("too_many_pixels", "too_many_bytes"):
        return Problem(413, "too-large", f"the image is too large: {error}")
    if error.kind == "out_of_memory":
        return busy("no memory for this image now; try again, or send a smaller one", 5)
    return Problem(422, "bad-image", f"{error.kind}: {error}")
