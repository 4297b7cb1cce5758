"""A chunk survives being packed, sent through Arrow's wire format, sliced and unpacked."""

import pyarrow as pa
import pytest

from rayseg.label import chunks


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_what_is_packed_comes_back(rows):
    table = pa.table(
        {
            "ordinal": pa.array(range(rows), pa.int64()),
            "bytes": pa.array([None if i % 3 == 0 else bytes([i]) * i for i in range(rows)], pa.large_binary()),
            "nested": pa.array([[{"a": i}] * (i % 3) for i in range(rows)], pa.list_(pa.struct([("a", pa.int32())]))),
        }
    )
    block = chunks.pack(table, {"read": 1.5, "idle": 0.0})
    assert block.num_rows == 1
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    received = pa.ipc.open_stream(sink.getvalue()).read_all()
    back, seconds = chunks.unpack(received)
    assert back.equals(table)
    assert seconds == {"read": 1.5, "idle": 0.0}


def test_a_chunk_among_others_is_taken_alone():
    first, second = (chunks.pack(pa.table({"x": [i, i + 1]}), {"read": float(i)}) for i in (10, 20))
    both = pa.concat_tables([first, second]).combine_chunks()
    table, seconds = chunks.unpack(both.slice(1, 1))
    assert table["x"].to_pylist() == [20, 21]
    assert seconds == {"read": 20.0}
