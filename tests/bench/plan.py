"""Bookkeeping at scale: planning a listing of N objects, and finding out what is left of N done ones.

    python tests/bench/plan.py [--inputs 10000000] [--parts 2500] [--folder /tmp/...]

Planning: a listing in pages of 1,000 keys as object stores send them goes through `write_plan` to local disk; printed
are the rate and the peak resident size of the process. Wanted: under 500 MB.
Resuming: parts whose footers cover the N ordinals, as workers that finish in any order interleave them, are listed, their
footers read and united in a bitmap; printed are the seconds and the growth of the resident size. Wanted: under 5 s and
under 100 MB. Each of the two runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from rayseg import storage
from rayseg.formats.parts import BrokenPart, OrdinalBitmap, RowError, part_bytes, read_footers, rows_table
from rayseg.outputs.plan import write_plan
from rayseg.storage import Entry

PAGE = 1000
CHUNK = 32  # ordinals that one worker finishes at a time


def listing(count: int) -> Iterator[list[Entry]]:
    """Pages of a bucket in key order; keys of 70 characters, sizes of photos."""
    sizes = np.random.default_rng(0).integers(40_000, 4_000_000, PAGE).tolist()
    for page in range(count // PAGE):
        folder = f"s3://photos-production/uploads/2026/{page // 400:06d}/"
        digest = f"{page * 2654435761 % 2**32:08x}"
        yield [Entry(f"{folder}IMG_{digest}_{i:04d}_original.jpg", sizes[i]) for i in range(PAGE)]


def plan(out: str, count: int) -> None:
    """Plan `count` objects into `out`."""
    listing_s = -time.process_time()
    listed = sum(len(page) for page in listing(count))
    listing_s += time.process_time()
    begin, cpu_begin = time.perf_counter(), time.process_time()
    info = write_plan(out, listing(count))
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    size_mb = sum(path.stat().st_size for path in Path(out, "plan").iterdir()) / 1e6
    print(f"plan    {info.count:,} inputs in {seconds:.1f} s: {info.count / seconds:,.0f} a second")
    print(f"        {cpu_s:.1f} s of CPU, of it {listing_s:.1f} s to make up {listed:,} keys")
    print(f"        {len(info.parts)} parts, {size_mb:.0f} MB")
    print(f"        peak resident size {_peak_mb():.0f} MB (wanted: under 500)")


def write_parts(out: str, count: int, parts: int) -> int:
    """Parts that cover `count` ordinals in chunks of `CHUNK`, dealt to neighbouring parts at random; returns their bytes."""
    rng = np.random.default_rng(0)
    chunks = np.arange(count).reshape(-1, CHUNK)
    spread = np.argsort(np.arange(len(chunks)) + rng.uniform(0, 4 * len(chunks) / parts, len(chunks)))
    most = CHUNK * (len(chunks) // parts + 1)
    blank = rows_table(range(most), [""] * most, [RowError("read", "x", "")] * most, [])
    written = 0
    for i, of_part in enumerate(np.array_split(spread, parts)):
        ordinals = np.sort(chunks[of_part].ravel())
        rows = blank.slice(0, len(ordinals)).set_column(0, "ordinal", pa.array(ordinals))
        data = part_bytes(rows, ordinals=ordinals, metadata={"rayseg.spec": "x" * 600, "rayseg.model": "x" * 2000})
        written += len(data)
        storage.write(storage.join(out, "data", f"part-0001-{ordinals[0]:012d}-{i:08x}.parquet"), data)
    return written


def resume(out: str, count: int) -> None:
    """Find out which of `count` ordinals the parts in `out` cover."""
    before_mb = psutil.Process().memory_info().rss / 1e6
    begin, cpu_begin = time.perf_counter(), time.process_time()
    uris = [entry.uri for page in storage.list_pages(storage.join(out, "data")) for entry in page]
    bitmap, ranges = OrdinalBitmap(count), 0
    for footer in read_footers(uris):
        if isinstance(footer, BrokenPart) or bitmap.add_ranges(footer.ranges):
            raise SystemExit(f"{footer}: broken, or covers what another does")
        ranges += len(footer.ranges)
    left = sum(map(len, bitmap.missing_chunks()))
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    print(f"resume  {bitmap.count():,} done ordinals in {len(uris):,} parts ({ranges:,} ranges), {left} left")
    print(f"        {seconds:.2f} s, {cpu_s:.2f} s of CPU (wanted: under 5)")
    print(f"        peak resident size grew by {_peak_mb() - before_mb:.0f} MB (wanted: under 100)")


def _peak_mb() -> float:
    """Peak resident size of this process alone: `getrusage` would count the parent's before the exec too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _alone(function, *arguments) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    """Run both parts in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=2500)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    wanted = parser.parse_args()
    count = wanted.inputs // (PAGE * CHUNK) * PAGE * CHUNK
    with tempfile.TemporaryDirectory(dir=wanted.folder) as out:
        _alone(plan, out, count)
        begin = time.perf_counter()
        written = write_parts(out, count, wanted.parts)
        print(f"        (wrote the parts to resume from: {written / 1e6:.0f} MB, {time.perf_counter() - begin:.0f} s)")
        _alone(resume, out, count)


if __name__ == "__main__":
    main()
