"""A chunk of images as one row of a Ray Data block.

Ray Data merges and splits blocks by size as it sees fit; a block of one row it leaves alone. So the label pipeline moves
chunks of a few images, each packed into one row: its blocks stay exactly as large as the pipeline wants them, which bounds
memory, and what a crash can cost.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

CHUNK_ROWS = 32  # images, at most
MOST_CHUNKS = 500_000  # of one execution: Ray Data's driver keeps about 2 KB of statistics of each

_SECONDS = "seconds"


def pack(table: pa.Table, seconds: Mapping[str, float]) -> pa.Table:
    """`table` of n rows as one row of lists, with the seconds each stage took beside it; nothing is copied."""
    offsets = pa.array([0, len(table)], pa.int32())
    columns = {name: pa.ListArray.from_arrays(offsets, _whole(table[name])) for name in table.column_names}
    columns[_SECONDS] = pa.array([list(seconds.items())], pa.map_(pa.string(), pa.float64()))
    return pa.table(columns)


def unpack(block: pa.Table) -> tuple[pa.Table, dict[str, float]]:
    """What `pack` was given; the table's columns are views of the block."""
    seconds = dict(block[_SECONDS][0].as_py())
    columns = {name: _whole(block[name]).flatten() for name in block.column_names if name != _SECONDS}
    return pa.table(columns), seconds


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
