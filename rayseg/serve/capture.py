"""What a replica predicted online, written to storage in the background, so that production becomes training data.

    CAPTURE/<model>/data/images-<time and chance>.parquet   rayseg's data set form, each file whole in itself

`rayseg.read("CAPTURE/<model>")` gives all of it, with scores; where the images' bytes are captured too, they are embedded.
An answer only ever adds to a list in memory. A thread makes files of it; while the store is slow or away the list grows to
its limit, and what comes then is dropped and counted.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rayseg import images, storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Mask
from rayseg.errors import Conflict, ImageError
from rayseg.formats.losses import Losses
from rayseg.formats.rayseg import to_bytes
from rayseg.records import Instances
from rayseg.serve.service import ModelFacts

MOST_BYTES = 64 << 20  # that wait to be written
FILE_BYTES, FILE_IMAGES = 16 << 20, 512
FLUSH_S = 30.0
LONGEST_WAIT_S, CLOSING_WAIT_S = 30.0, 0.5  # from one try to put a file to the next
_ROW_BYTES, _INSTANCE_BYTES = 500, 200  # a record in memory, about, beside its pixels and its RLEs
_log = logging.getLogger("rayseg.serve")


@dataclass(frozen=True, slots=True)
class _Taken:
    found: Instances
    data: bytes | None
    source: str | None
    request_id: str | None
    moment: float
    size_bytes: int


class Capture:
    """The captured predictions of one replica of a model. `offer` and `close` may be called from any thread."""

    def __init__(
        self,
        uri: str,
        facts: ModelFacts,
        *,
        keep_images: bool,
        most_bytes: int = MOST_BYTES,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._folder = storage.join(uri, facts.name, "data")
        self._facts, self._keep_images = facts, keep_images
        self._most_bytes, self._flush_s = most_bytes, flush_s
        self._categories = tuple(Category(name) for name in facts.class_names)
        self._changed = threading.Condition()
        self._waiting: list[_Taken] = []
        self._waiting_bytes = 0
        self._closed = False
        self.kept = self.dropped = self.written = 0
        self._thread = threading.Thread(target=self._work, name="rayseg-capture", daemon=True)
        self._thread.start()

    def offer(self, found: Instances, data: bytes, source: str | None = None, request_id: str | None = None) -> bool:
        """Take one prediction along, and its image's `data` where those are kept; False where there is no room.

        Neither blocks nor raises; `found` and `data` are not copied.
        """
        size_bytes = _ROW_BYTES + _INSTANCE_BYTES * len(found) + found.rles.counts.nbytes
        size_bytes += len(data) if self._keep_images else 0
        with self._changed:
            if self._closed or self._waiting_bytes + size_bytes > self._most_bytes:
                self.dropped += 1
                return False
            kept = data if self._keep_images else None
            self._waiting.append(_Taken(found, kept, source, request_id, time.time(), size_bytes))
            self._waiting_bytes += size_bytes
            self.kept += 1
            if self._is_due():
                self._changed.notify()
        return True

    def close(self, timeout_s: float) -> int:
        """Take no more, write what waits; returns how many could not be written in time, which are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        left = self.kept - self.written
        if left:
            _log.error("captured predictions are lost", extra={"fields": {"model": self._facts.name, "images": left}})
        return left

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, self._flush_s)
                taken, closed = self._next(), self._closed
            if taken:
                self._write(taken)
            elif closed:
                return

    def _is_due(self) -> bool:
        return self._closed or _fills_a_file(len(self._waiting), self._waiting_bytes)

    def _next(self) -> list[_Taken]:
        """What goes into the next file; it counts as waiting until it is written."""
        size_bytes = count = 0
        for one in self._waiting:
            if _fills_a_file(count, size_bytes):
                break
            size_bytes += one.size_bytes
            count += 1
        return self._waiting[:count]

    def _write(self, taken: Sequence[_Taken]) -> None:
        """Put one file, again and again until the store takes it."""
        try:
            data = to_bytes(Dataset(self._categories, [self._record(one) for one in taken]), Losses())
        except Exception as error:  # nothing that is captured may ever stop the capturing
            _log.error("captured predictions cannot be written", exc_info=error)
            self._settle(taken, written=False)
            return
        uri = storage.join(self._folder, f"images-{time.time_ns()}{random.randrange(10_000):04d}.parquet")
        tries = 0
        while True:
            try:
                storage.create(uri, data)
                self._settle(taken, written=True)
                return
            except Conflict:  # the name is this file's alone: an earlier try has put it, and the answer was lost
                self._settle(taken, written=True)
                return
            except Exception as error:
                tries += 1
                _log.warning("the capture's store does not take a file", extra={"fields": {"error": str(error)}})
            time.sleep(CLOSING_WAIT_S if self._closed else min(LONGEST_WAIT_S, 2.0 ** min(tries, 10) / 4))

    def _settle(self, taken: Sequence[_Taken], *, written: bool) -> None:
        with self._changed:
            del self._waiting[: len(taken)]
            self._waiting_bytes -= sum(one.size_bytes for one in taken)
            if written:
                self.written += len(taken)
            else:
                self.kept -= len(taken)
                self.dropped += len(taken)

    def _record(self, taken: _Taken) -> AnnotatedImage:
        found = taken.found
        rles = found.rles.to_coco()
        annotations = tuple(
            Annotation(
                int(found.classes[i]),
                (float(x1), float(y1), float(x2), float(y2)),
                Mask(rles[i]["counts"], found.image_hw),
                score=float(found.scores[i]),
            )
            for i, (x1, y1, x2, y2) in enumerate(found.boxes_xyxy.tolist())
        )
        moment = datetime.fromtimestamp(taken.moment, UTC)
        attributes = {"model": self._facts.name, "fingerprint": self._facts.fingerprint}
        attributes |= {"captured": moment.isoformat(timespec="milliseconds")}
        if taken.request_id is not None:
            attributes["request_id"] = taken.request_id
        name = f"{moment:%Y%m%d}/{uuid.uuid4().hex}{_ending(taken.data)}"
        return AnnotatedImage(name, taken.source, found.image_hw, annotations, attributes=attributes, data=taken.data)


def _fills_a_file(count: int, size_bytes: int) -> bool:
    return count >= FILE_IMAGES or size_bytes >= FILE_BYTES


def _ending(data: bytes | None) -> str:
    try:
        return "" if data is None else f".{images.header(data).format}"
    except ImageError:
        return ""
