"""Read and decode as Ray Data tasks: plan ordinals in, chunks of decoded images out.

A task covers a few hundred ordinals, reads ahead with threads while it decodes, and yields chunks as they are ready.
An image that cannot be read or decoded travels on as an error; storage that does not answer at all stops the run, since
its images are not at fault.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from rayseg import storage
from rayseg.formats.parts import ERROR_TYPE, RowError
from rayseg.label import chunks
from rayseg.models.preprocess import Prepared, Preprocess
from rayseg.outputs.loading import prepare_image, read_image
from rayseg.outputs.plan import PlanInfo, plan_uris

READ_THREADS = 16

CHUNK_SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("uri", pa.string()),
        ("height", pa.int32()),  # of the upright image; null when it did not decode
        ("width", pa.int32()),
        ("pixels", pa.large_binary()),  # empty when it did not decode
        ("pixels_shape", pa.list_(pa.int32(), 3)),  # (H, W, 3) uint8, or (3, h, w) float32 when `resized`
        ("resized", pa.bool_()),
        ("error", ERROR_TYPE),
    ]
)


@dataclass(frozen=True)
class ReadJob:
    """What every read task needs to know; shipped once, not with each task."""

    out: str
    plan: PlanInfo
    preprocess: Preprocess
    chunk_rows: int
    max_pixels: int
    max_bytes: int


class PlanSource(Datasource):
    """The ordinals of a plan that have no row yet, read and decoded in tasks of bounded size."""

    def __init__(self, job: ReadJob, batches: Sequence[np.ndarray]) -> None:
        super().__init__()
        self._job_ref = ray.put(job)
        self._batches = batches

    def get_name(self) -> str:
        return "ReadAndDecode"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(functools.partial(_read_task, self._job_ref, batch), metadata) for batch in self._batches]


def _read_task(job_ref: ray.ObjectRef[ReadJob], ranges: np.ndarray) -> Iterator[pa.Table]:
    return read_chunks(ray.get(job_ref), np.concatenate([np.arange(start, stop) for start, stop in ranges]))


def read_chunks(job: ReadJob, ordinals: np.ndarray) -> Iterator[pa.Table]:
    """Packed chunks of `job.chunk_rows` images each (the last may be smaller), in the order of `ordinals` (K,) int64.

    The boundaries depend on `ordinals` alone, so that a task that is run again yields the same chunks.
    """
    rows = _plan_rows(job, ordinals)
    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="rayseg-read") as pool:
        reading = _read_ahead(pool, job, rows)
        for start in range(0, len(rows), job.chunk_rows):
            yield _chunk(job, [next(reading) for _ in rows[start : start + job.chunk_rows]])


def _plan_rows(job: ReadJob, ordinals: np.ndarray) -> list[tuple[int, str]]:
    return list(zip(ordinals.tolist(), plan_uris(job.out, job.plan, ordinals), strict=True))


Reading = tuple[int, str, "Future[bytes]"]


def _read_ahead(pool: ThreadPoolExecutor, job: ReadJob, rows: list[tuple[int, str]]) -> Iterator[Reading]:
    waiting: deque[Reading] = deque()
    for ordinal, uri in rows:
        waiting.append((ordinal, uri, pool.submit(storage.read, uri, max_bytes=job.max_bytes)))
        if len(waiting) > READ_THREADS:
            yield waiting.popleft()
    yield from waiting


def _chunk(job: ReadJob, reads: list[Reading]) -> pa.Table:
    seconds = {"read": 0.0, "decode": 0.0}
    loaded = [_load(job, future, seconds) for _, _, future in reads]
    prepared = [one if isinstance(one, Prepared) else None for one in loaded]
    columns = [
        [ordinal for ordinal, _, _ in reads],
        [uri for _, uri, _ in reads],
        [one and one.image_hw[0] for one in prepared],
        [one and one.image_hw[1] for one in prepared],
        _pixels(prepared),
        [one and one.pixels.shape for one in prepared],
        [one and one.resized for one in prepared],
        [_error_fields(one) for one in loaded],
    ]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, CHUNK_SCHEMA.types, strict=True)]
    return chunks.pack(pa.Table.from_arrays(arrays, schema=CHUNK_SCHEMA), seconds)


def _pixels(prepared: list[Prepared | None]) -> pa.Array:
    """The images' bytes, each copied once; empty where there is no image."""
    flat = [np.ascontiguousarray(one.pixels).reshape(-1).view(np.uint8) for one in prepared if one is not None]
    lengths = [0 if one is None else one.pixels.nbytes for one in prepared]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    data = np.concatenate([np.empty(0, np.uint8), *flat])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)


def _load(job: ReadJob, future: Future[bytes], seconds: dict[str, float]) -> Prepared | RowError:
    """One image on its way to the model, or its error."""
    begin = time.perf_counter()
    data = read_image(future.result)
    read = time.perf_counter()
    seconds["read"] += read - begin
    if isinstance(data, RowError):
        return data
    loaded = prepare_image(data, job.preprocess, max_pixels=job.max_pixels, max_bytes=job.max_bytes)
    seconds["decode"] += time.perf_counter() - read
    return loaded


def _error_fields(loaded: Prepared | RowError) -> dict[str, str] | None:
    return {name: getattr(loaded, name) for name in ERROR_TYPE.names} if isinstance(loaded, RowError) else None


def prepared_images(table: pa.Table) -> list[Prepared | None]:
    """The images of an unpacked chunk as views into it; None where there is an error instead."""
    found: list[Prepared | None] = []
    for height, width, pixels, shape, resized in zip(
        table["height"].to_pylist(),
        table["width"].to_pylist(),
        table["pixels"],
        table["pixels_shape"].to_pylist(),
        table["resized"].to_pylist(),
        strict=True,
    ):
        if height is None:
            found.append(None)
            continue
        array = np.frombuffer(pixels.as_buffer(), np.float32 if resized else np.uint8).reshape(shape)
        found.append(Prepared(array, (height, width)))
    return found
