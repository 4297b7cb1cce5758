"""A hundred million objects on paper: 1 % of an S3 Inventory for real, the whole extrapolated.

    python tests/bench/inventory.py [--objects 100000000] [--share 0.01] [--rate 40 --nodes 100 --price-per-node-hour 1.2]

Generated is the share, as AWS writes it: Parquet files and, once more, gzipped CSV, with versions, delete markers and sidecars
among the images. It is planned by what `rayseg label` plans with, resumed from parts whose footers cover it, and surveyed by
`rayseg label --dry-run`; each in a process of its own. Printed are what was measured, and the whole as measured x (1 / share):
planning, resuming and surveying walk through the objects once, so their time is taken to grow in proportion; what a
process holds before the first object is not multiplied.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from plan import CHUNK, _peak_mb, write_parts

from rayseg import storage
from rayseg.formats.parts import BrokenPart, OrdinalBitmap, read_footers
from rayseg.label.estimate import driver_bytes, estimate
from rayseg.label.spec import LabelSpec
from rayseg.outputs.inputs import plan_inputs
from rayseg.outputs.plan import write_plan

ROWS_PER_FILE = 250_000
COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"


def columns_of(start: int, count: int) -> dict[str, list[Any]]:
    """Rows `start` to `start + count`: of a hundred, one is an older version, one deleted, one a sidecar."""
    rng = np.random.default_rng(start)
    kinds = np.arange(start, start + count) % 100
    ends = ["json" if kind == 2 else "jpg" for kind in kinds]
    keys = [
        f"uploads/2026/{i // 400_000:06d}/IMG_{i * 2654435761 % 2**32:08x}_original.{end}"
        for i, end in zip(range(start, start + count), ends, strict=True)
    ]
    return {
        "bucket": ["photos-production"] * count,
        "key": keys,
        "version_id": ["3HL4kqtJvjVBH40Nrjfkd"] * count,
        "is_latest": (kinds != 0).tolist(),
        "is_delete_marker": (kinds == 1).tolist(),
        "size": rng.integers(40_000, 4_000_000, count).tolist(),
        "last_modified_date": ["2026-11-24T01:02:03.000Z"] * count,
        "e_tag": [f"{i:032x}" for i in range(start, start + count)],
        "storage_class": ["STANDARD"] * count,
    }


def write_inventory(folder: Path, kind: str, rows: int) -> str:
    """The manifest's path."""
    files = []
    (folder / "data").mkdir(parents=True)
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        columns = columns_of(start, min(ROWS_PER_FILE, rows - start))
        name = f"{number:05d}.{'parquet' if kind == 'Parquet' else 'csv.gz'}"
        if kind == "Parquet":
            pq.write_table(pa.table(columns), folder / "data" / name)
        else:
            (folder / "data" / name).write_bytes(csv_of(columns))
        files.append(
            {"key": f"photos/daily/data/{name}", "size": (folder / "data" / name).stat().st_size, "MD5checksum": ""}
        )
    manifest = {"sourceBucket": "photos-production", "destinationBucket": "arn:aws:s3:::lists", "version": "2016-11-30",
                "fileFormat": kind, "fileSchema": COLUMNS, "files": files}  # fmt: skip
    where = folder / "2026-11-25T01-00Z" / "manifest.json"
    where.parent.mkdir()
    where.write_text(json.dumps(manifest))
    return str(where)


def csv_of(columns: dict[str, list[Any]]) -> bytes:
    """Without a header, every value in quotes, keys URL-encoded."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    lower = [str(value).lower() for value in (True, False)]
    for row in zip(*columns.values(), strict=True):
        values = [lower[not one] if isinstance(one, bool) else one for one in row]
        values[1] = quote_plus(values[1], safe="/")
        writer.writerow(values)
    return gzip.compress(text.getvalue().encode(), compresslevel=4)


def plan(manifest: str, out: str, kind: str, share: float) -> None:
    """Plan the inventory."""
    before_mb = _peak_mb()
    begin = time.perf_counter()
    inputs = plan_inputs(manifest)
    info = write_plan(out, inputs.pages())
    seconds = time.perf_counter() - begin
    print(f"plan    from {kind}: {info.count:,} of {info.count + inputs.skipped.total():,} objects in {seconds:.1f} s,")
    print(f"        {info.count / seconds:,.0f} a second; peak resident size {before_mb:.0f} to {_peak_mb():.0f} MB")
    print(
        f"        extrapolated: {info.count / share:,.0f} in {seconds / share / 60:.1f} min, memory as here (one part)"
    )


def resume(out: str, count: int, share: float) -> None:
    """Find out what is left of `count` done ordinals."""
    list(read_footers([entry.uri for page in storage.list_pages(storage.join(out, "data")) for entry in page][:1]))
    before_mb = _peak_mb()  # with all that is loaded once
    begin = time.perf_counter()
    uris = [entry.uri for page in storage.list_pages(storage.join(out, "data")) for entry in page]
    bitmap = OrdinalBitmap(count)
    for footer in read_footers(uris):
        assert not isinstance(footer, BrokenPart) and not bitmap.add_ranges(footer.ranges)
    assert bitmap.count() == count
    seconds, grown_mb = time.perf_counter() - begin, _peak_mb() - before_mb
    print(f"resume  {count:,} done ordinals in {len(uris):,} parts: {seconds:.2f} s, {grown_mb:.1f} MB more")
    bitmap_mb = (count / share - count) / 8e6
    print(
        f"        extrapolated: {count / share:,.0f} in {len(uris) / share:,.0f} parts: {seconds / share:.0f} s on local disk,"
    )
    print(f"        at most {grown_mb / share + bitmap_mb:.0f} MB more")


def dry_run(manifest: str, wanted: argparse.Namespace) -> None:
    """What `rayseg label --dry-run` says of the share, and of the whole."""
    spec = LabelSpec(images=manifest, model="rectangles", out="unused")
    found = estimate(spec, nodes=wanted.nodes, price_per_node_hour=wanted.price_per_node_hour, rate=wanted.rate)
    print("dry run of the share, at the given rate:\n        " + found.text().replace("\n", "\n        "))
    whole = round(found.images / wanted.share)
    hours = whole / wanted.rate / wanted.nodes / 3600
    parts = max(1, round(hours * 3600 / spec.flush_s))
    print(
        f"        extrapolated: {whole:,} images, surveyed in {found.surveyed_s / wanted.share / 60:.1f} min; {hours:.1f} h,"
    )
    print(
        f"        {hours * wanted.nodes * wanted.price_per_node_hour:,.0f} for {wanted.nodes} nodes; {parts:,} parts or more;"
    )
    print(f"        driver about {driver_bytes(whole, parts) / 1e9:.2f} GB")


def _alone(function: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    """All of it, in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--objects", type=int, default=100_000_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=40.0, help="images per second of one node, as measured elsewhere")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--price-per-node-hour", type=float, default=1.2)
    wanted = parser.parse_args()
    rows = round(wanted.objects * wanted.share)
    print(f"{rows:,} of {wanted.objects:,} objects are real; what is called extrapolated is not")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for kind in ("Parquet", "CSV"):
            manifest = write_inventory(folder / kind, kind, rows)
            _alone(plan, manifest, str(folder / f"out-{kind}"), kind, wanted.share)
        done = rows // CHUNK * CHUNK
        write_parts(str(folder / "done"), done, max(1, done // 40_000))
        _alone(resume, str(folder / "done"), done, wanted.share)
        _alone(dry_run, str(folder / "Parquet" / "2026-11-25T01-00Z" / "manifest.json"), wanted)


if __name__ == "__main__":
    main()
