"""From finished chunks to parts in storage: gathered by bytes and by time, written by a bounded number of Ray tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import ray

from rayseg.label import chunks
from rayseg.outputs.progress import add_seconds
from rayseg.outputs.writing import WriteJob, Written, put_part

_MOST_PARTS_WAITING = 2


def write_part(job: WriteJob, packed: list[pa.Table]) -> Written:
    """Put one part that holds the rows of `packed` chunks, by ordinal."""
    tables, seconds = zip(*(chunks.unpack(block) for block in packed), strict=True)
    return Written(put_part(job, pa.concat_tables(tables)), add_seconds(seconds))


@ray.remote(num_cpus=0)
def _write_part(job: WriteJob, refs: list[ray.ObjectRef[pa.Table]]) -> Written:
    return write_part(job, ray.get(refs))


@dataclass
class Committer:
    """Gathers chunks and writes them as parts once `part_bytes` are waiting, or the oldest has waited `flush_s`.

    No more than `most_writes` parts are written at a time; while storage is slower than that, parts become larger, until
    the committer is `full`.
    """

    job: WriteJob
    part_bytes: int
    flush_s: float
    most_writes: int
    _refs: list[ray.ObjectRef[pa.Table]] = field(default_factory=list)
    _waiting_bytes: int = 0
    _oldest: float = 0.0
    _writing: list[ray.ObjectRef[Written]] = field(default_factory=list)

    def add(self, ref: ray.ObjectRef[pa.Table], size_bytes: int) -> None:
        """Take over one finished chunk."""
        if not self._refs:
            self._oldest = time.monotonic()
        self._refs.append(ref)
        self._waiting_bytes += size_bytes

    @property
    def full(self) -> bool:
        """Whether storage does not keep up, and no more should be added for now."""
        return len(self._writing) >= self.most_writes and self._waiting_bytes >= _MOST_PARTS_WAITING * self.part_bytes

    def flush_if_due(self) -> None:
        """Start writing a part when there is enough, or it has waited long enough, and a writer is free."""
        due = self._waiting_bytes >= self.part_bytes or time.monotonic() - self._oldest >= self.flush_s
        if self._refs and due and len(self._writing) < self.most_writes:
            self.flush()

    def flush(self) -> None:
        """Start writing whatever is waiting."""
        if self._refs:
            self._writing.append(_write_part.remote(self.job, self._refs))
            self._refs, self._waiting_bytes = [], 0

    def finished(self, wait_s: float | None = 0) -> Iterator[ray.ObjectRef[Written]]:
        """Writes that ended, well or not, since the last call; waits up to `wait_s` for each, for all if None."""
        while self._writing:
            ready, self._writing = ray.wait(self._writing, timeout=wait_s)
            if not ready:
                return
            yield from ready
