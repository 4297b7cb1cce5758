"""GETs of whole objects side by side: boto3, pyarrow.fs and rayseg.storage, against a real server on loopback.

    python tests/bench/storage.py [--objects 400]

Prints wall and client CPU milliseconds per GET. The server shares the machine, so CPU says more than wall time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config
from pyarrow import fs

sys.path.insert(0, str(Path(__file__).parents[1]))
from seaweed import REGION, Seaweed

from rayseg import storage


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--objects", type=int, default=400)
    objects = parser.parse_args().objects
    with tempfile.TemporaryDirectory() as folder, Seaweed(Path(folder)) as server:
        os.environ.update(server.env)
        bucket = server.make_bucket("bench").removeprefix("s3://")
        readers = make_readers(server.endpoint, bucket)
        for size_bytes in (120_000, 1_000_000):
            keys = [f"{size_bytes}/{i:06}.jpg" for i in range(objects)]
            data = os.urandom(size_bytes)
            for key in keys:
                storage.write(f"s3://{bucket}/{key}", data)
            for threads in (1, 16):
                for name, read in readers.items():
                    wall_ms, cpu_ms = measure(read, keys, threads)
                    print(
                        f"{size_bytes:>9} bytes {threads:>2} threads  {name:<15} {wall_ms:6.2f} ms, CPU {cpu_ms:5.2f} ms"
                    )


def make_readers(endpoint: str, bucket: str) -> dict[str, Callable[[str], bytes]]:
    client = boto3.client("s3", config=Config(max_pool_connections=64, s3={"addressing_style": "path"}))
    arrow = fs.S3FileSystem(endpoint_override=endpoint, region=REGION)

    def read_arrow(key: str) -> bytes:
        with arrow.open_input_file(f"{bucket}/{key}") as file:
            return file.read()

    return {
        "boto3": lambda key: client.get_object(Bucket=bucket, Key=key)["Body"].read(),
        "pyarrow.fs": read_arrow,
        "rayseg.storage": lambda key: storage.read(f"s3://{bucket}/{key}"),
    }


def measure(read: Callable[[str], bytes], keys: list[str], threads: int) -> tuple[float, float]:
    """Wall and CPU milliseconds per GET, connections warm."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, keys[:32]))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in pool.map(read, keys):
            pass
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return wall_s / len(keys) * 1e3, cpu_s / len(keys) * 1e3


if __name__ == "__main__":
    main()
