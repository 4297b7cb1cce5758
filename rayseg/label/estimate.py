"""`rayseg label --dry-run`: count the images, time a few of them here, say what the whole would take. Writes nothing."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rayseg import images, storage
from rayseg.errors import RaysegError
from rayseg.label.spec import LabelSpec
from rayseg.models.predictor import Predictor
from rayseg.outputs.inputs import plan_inputs
from rayseg.outputs.model import load_for
from rayseg.outputs.progress import clock
from rayseg.storage import Entry

SAMPLE_IMAGES = 12
WARM_UP_IMAGES = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a label run would take; seconds per image are of one node like this one with all its cores."""

    images: int
    size_bytes: int | None
    skipped: dict[str, int]
    sampled: int
    failed_in_sample: int
    read_s: float
    decode_s: float
    model_s: float
    nodes: int
    seconds: float | None
    cost: float | None

    def as_json(self) -> dict[str, Any]:
        """The figures as one JSON object."""
        return {"event": "estimate"} | asdict(self)

    def text(self) -> str:
        """The figures in words."""
        size = "unknown size" if self.size_bytes is None else f"{self.size_bytes / 1e6:,.1f} MB"
        lines = [f"{self.images:,} images, {size}"]
        lines += [f"skipped: {count:,} {what}" for what, count in sorted(self.skipped.items())]
        if self.seconds is None:
            lines.append(f"none of {self.sampled} sampled images could be labelled: no estimate")
            return "\n".join(lines)
        lines.append(
            f"timed {self.sampled} here, per image: read {self.read_s * 1e3:.1f} ms, "
            f"decode {self.decode_s * 1e3:.1f} ms, model {self.model_s * 1e3:.1f} ms"
            + (f"; {self.failed_in_sample} failed" if self.failed_in_sample else "")
        )
        node = "node" if self.nodes == 1 else "nodes"
        lines.append(f"about {clock(self.seconds)} on {self.nodes} {node} like this one, start-up apart")
        if self.cost is not None:
            lines.append(f"about {self.cost:,.2f} at the given price per node hour")
        return "\n".join(lines)


def estimate(spec: LabelSpec, *, nodes: int = 1, price_per_node_hour: float | None = None) -> Estimate:
    """List everything `spec` names, label a small sample on this machine without Ray, and extrapolate.

    Raises what a run would raise for inputs, output and model; the output is not touched.
    """
    predictor = load_for(spec)
    inputs = plan_inputs(spec.images, column=spec.column, root=spec.images_root)
    count, size_bytes, sample = _survey(inputs.pages(), spec.limit)
    times = [_time_one(entry.uri, spec, predictor) for entry in sample]
    good = [row for row in times[WARM_UP_IMAGES:] or times if row is not None]
    read_s, decode_s, model_s = (sum(column) / len(good) for column in zip(*good, strict=True)) if good else (0, 0, 0)
    # Reading overlaps everything else; decoding shares the cores with the model on a CPU.
    per_image_s = max(read_s / 16, decode_s / (os.cpu_count() or 1) + model_s)
    seconds = count * per_image_s / nodes if good else None
    price = None if seconds is None or price_per_node_hour is None else seconds / 3600 * nodes * price_per_node_hour
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
        seconds=seconds,
        cost=price,
    )


def _survey(pages: Iterable[list[Entry]], limit: int | None) -> tuple[int, int | None, list[Entry]]:
    """Number of images, their bytes (None when a list does not say), and an even random sample of them."""
    chosen, count, size_bytes, known = [], 0, 0, True
    pick = random.Random(0)
    for page in pages:
        for entry in page:
            if count == limit:
                break
            count += 1
            size_bytes += max(0, entry.size_bytes)
            known &= entry.size_bytes >= 0
            if len(chosen) < SAMPLE_IMAGES:
                chosen.append(entry)
            elif (place := pick.randrange(count)) < SAMPLE_IMAGES:
                chosen[place] = entry
    return count, size_bytes if known else None, chosen


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
