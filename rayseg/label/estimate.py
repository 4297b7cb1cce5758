"""`rayseg label --dry-run`: count the images, time a few of them here, say what the whole would take. Writes nothing.

With a measured rate nothing is timed and no model is loaded: a plan of 100 million objects, from an inventory, on paper.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rayseg import images, storage
from rayseg.errors import RaysegError
from rayseg.label.chunks import CHUNK_ROWS, MOST_CHUNKS
from rayseg.label.spec import LabelSpec
from rayseg.models.predictor import Predictor
from rayseg.outputs.inputs import plan_inputs
from rayseg.outputs.model import load_for
from rayseg.outputs.plan import PART_ROWS
from rayseg.outputs.progress import clock
from rayseg.storage import Entry

SAMPLE_IMAGES = 12
WARM_UP_IMAGES = 1


# Of a driver, measured by tests/bench/inventory.py and tests/bench/memory.py, rounded up.
DRIVER_BYTES = 400 << 20  # Python, torch, Ray and Ray Data before the first image
CHUNK_STATISTICS_BYTES = 2 << 10  # Ray Data's, of each chunk of one execution
PART_RECORD_BYTES = 2 << 10  # the ledger's, of each part with its ranges


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a label run would take; seconds per image are of one node like this one with all its cores.

    `rate` is in images per second of one node; None where no image could be labelled. `parts` are the output's, at least.
    """

    images: int
    size_bytes: int | None
    skipped: dict[str, int]
    sampled: int
    failed_in_sample: int
    read_s: float
    decode_s: float
    model_s: float
    nodes: int
    rate: float | None
    seconds: float | None
    cost: float | None
    plan_files: int
    parts: int | None
    driver_bytes: int | None
    surveyed_s: float

    def as_json(self) -> dict[str, Any]:
        """The figures as one JSON object."""
        return {"event": "estimate"} | asdict(self)

    def text(self) -> str:
        """The figures in words."""
        size = "unknown size" if self.size_bytes is None else f"{self.size_bytes / 1e6:,.1f} MB"
        lines = [f"{self.images:,} images, {size}, listed in {clock(self.surveyed_s)}"]
        lines += [f"skipped: {count:,} {what}" for what, count in sorted(self.skipped.items())]
        if self.seconds is None or self.rate is None:
            lines.append(f"none of {self.sampled} sampled images could be labelled: no estimate")
            return "\n".join(lines)
        if self.sampled:
            lines.append(
                f"timed {self.sampled} here, per image: read {self.read_s * 1e3:.1f} ms, "
                f"decode {self.decode_s * 1e3:.1f} ms, model {self.model_s * 1e3:.1f} ms"
                + (f"; {self.failed_in_sample} failed" if self.failed_in_sample else "")
            )
        node = "node" if self.nodes == 1 else "nodes"
        which = f"{node} like this one" if self.sampled else f"{node} of {self.rate:,.1f} images/s"
        lines.append(f"about {clock(self.seconds)} on {self.nodes} {which}, start-up apart")
        if self.cost is not None:
            lines.append(f"about {self.cost:,.2f} at the given price per node hour")
        lines.append(
            f"{self.plan_files:,} plan files, {self.parts:,} parts or more; "
            f"the driver needs about {(self.driver_bytes or 0) / 1e9:.1f} GB"
        )
        return "\n".join(lines)


def estimate(
    spec: LabelSpec, *, nodes: int = 1, price_per_node_hour: float | None = None, rate: float | None = None
) -> Estimate:
    """List everything `spec` names, label a small sample on this machine without Ray, and extrapolate.

    With `rate`, images per second of one node, nothing is labelled. Raises what a run would raise for inputs, output and
    model; the output is not touched.
    """
    predictor = load_for(spec) if rate is None else None
    begin = time.monotonic()
    inputs = plan_inputs(spec.images, column=spec.column, root=spec.images_root)
    count, size_bytes, sample = _survey(inputs.pages(), spec.limit)
    surveyed_s = time.monotonic() - begin
    times = [_time_one(entry.uri, spec, predictor) for entry in sample] if predictor is not None else []
    good = [row for row in times[WARM_UP_IMAGES:] or times if row is not None]
    read_s, decode_s, model_s = (sum(column) / len(good) for column in zip(*good, strict=True)) if good else (0, 0, 0)
    if good:
        # Reading overlaps everything else; decoding shares the cores with the model on a CPU.
        rate = 1 / max(read_s / 16, decode_s / (os.cpu_count() or 1) + model_s, 1e-9)
    seconds = count / rate / nodes if rate else None
    price = None if seconds is None or price_per_node_hour is None else seconds / 3600 * nodes * price_per_node_hour
    parts = None if seconds is None else max(1, math.ceil(seconds / spec.flush_s))
    return Estimate(
        images=count,
        size_bytes=size_bytes,
        skipped=dict(inputs.skipped),
        sampled=len(times),
        failed_in_sample=times.count(None),
        read_s=read_s,
        decode_s=decode_s,
        model_s=model_s,
        nodes=nodes,
        rate=rate,
        seconds=seconds,
        cost=price,
        plan_files=math.ceil(count / PART_ROWS),
        parts=parts,
        driver_bytes=None if parts is None else driver_bytes(count, parts),
        surveyed_s=surveyed_s,
    )


def driver_bytes(images: int, parts: int) -> int:
    """About how much memory the driver of a run takes at its peak: a bitmap, the parts' records, Ray Data's statistics."""
    chunks = min(math.ceil(images / CHUNK_ROWS), MOST_CHUNKS)
    return DRIVER_BYTES + images // 8 + parts * PART_RECORD_BYTES + chunks * CHUNK_STATISTICS_BYTES


def _survey(pages: Iterable[list[Entry]], limit: int | None) -> tuple[int, int | None, list[Entry]]:
    """Number of images, their bytes (None when a list does not say), and an even random sample of them."""
    sample, count, size_bytes, known = _Sample(), 0, 0, True
    for page in pages:
        taken = page if limit is None else page[: limit - count]
        sizes = [entry.size_bytes for entry in taken]
        known = known and min(sizes, default=0) >= 0
        size_bytes += sum(sizes) if known else 0
        sample.add(taken, count)
        count += len(taken)
        if count == limit:
            break
    return count, size_bytes if known else None, sample.chosen


class _Sample:
    """An even sample of a stream that looks only at those it takes: Li (1994), Reservoir-sampling algorithms, L."""

    def __init__(self) -> None:
        self.chosen: list[Entry] = []
        self._random, self._weight, self._next = random.Random(0), 1.0, -1

    def add(self, page: list[Entry], start: int) -> None:
        """Take a page whose first entry is the `start`-th of the stream."""
        fill = page[: max(0, SAMPLE_IMAGES - len(self.chosen))]
        self.chosen += fill
        if len(self.chosen) < SAMPLE_IMAGES:
            return
        if self._next < 0:
            self._next = SAMPLE_IMAGES - 1
            self._jump()
        while self._next < start + len(page):
            self.chosen[self._random.randrange(SAMPLE_IMAGES)] = page[self._next - start]
            self._jump()

    def _jump(self) -> None:
        self._weight *= math.exp(math.log(1 - self._random.random()) / SAMPLE_IMAGES)
        self._next += 1 + math.floor(math.log(1 - self._random.random()) / math.log1p(-self._weight))


def _time_one(uri: str, spec: LabelSpec, predictor: Predictor) -> tuple[float, float, float] | None:
    begin = time.perf_counter()
    try:
        data = storage.read(uri, max_bytes=spec.max_bytes)
        read = time.perf_counter()
        image = images.decode(data, max_pixels=spec.max_pixels, max_bytes=spec.max_bytes)
        decoded = time.perf_counter()
        predictor.predict([image])
        return read - begin, decoded - read, time.perf_counter() - decoded
    except RaysegError:
        return None
