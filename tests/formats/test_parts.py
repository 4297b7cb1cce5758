import io
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rayseg import storage
from rayseg.errors import ObjectNotFound
from rayseg.formats.parts import (
    DATA_SCHEMA,
    BrokenPart,
    PartFooter,
    RowError,
    count_rows,
    part_bytes,
    read_footer,
    read_footers,
    read_part,
    rows_table,
)
from rayseg.kernels import Rles
from rayseg.records import Instances

NAMES = ["cat", "dög", "bird"]


def random_instances(rng: np.random.Generator, count: int, image_hw: tuple[int, int]) -> Instances:
    masks = np.asfortranarray((rng.random((*image_hw, count)) < 0.3).astype(np.uint8))
    corners = np.sort(rng.random((count, 2, 2)) * image_hw[::-1], axis=1)
    return Instances(
        boxes_xyxy=corners.reshape(count, 4).astype(np.float32),
        scores=rng.random(count, np.float32),
        classes=rng.integers(0, len(NAMES), count),
        rles=Rles.from_coco(cast(Any, coco_mask.encode(masks)) if count else [], image_hw),
        image_hw=image_hw,
    )


def expected_row(ordinal: int, uri: str, result: Instances | RowError) -> dict:
    """The row as the reference tools would write it, value by value."""
    height, width = result.image_hw or (None, None)
    row = {"ordinal": ordinal, "uri": uri, "height": height, "width": width, "instances": [], "error": None}
    if isinstance(result, RowError):
        return row | {"error": {"stage": result.stage, "kind": result.kind, "message": result.message}}
    for box, score, k, rle in zip(result.boxes_xyxy, result.scores, result.classes, result.rles.to_coco(), strict=True):
        row["instances"].append(
            {
                "category_id": int(k),
                "category": NAMES[k],
                "score": float(score),
                "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "area": int(coco_mask.area(cast(Any, rle))),
                "rle": rle["counts"].decode(),
            }
        )
    return row


def make_results(seed: int, counts: list[int | None]) -> list[Instances | RowError]:
    rng = np.random.default_rng(seed)
    return [
        RowError("decode", "truncated", f"no {i}", (4, 5) if i % 2 else None)
        if count is None
        else random_instances(rng, count, (int(rng.integers(1, 9)), int(rng.integers(1, 9))))
        for i, count in enumerate(counts)
    ]


def make_part(ordinals: list[int], **metadata: str) -> bytes:
    results = make_results(1, [i % 4 for i in range(len(ordinals))])
    table = rows_table(ordinals, [f"s3://b/{o}.jpg" for o in ordinals], results, NAMES)
    return part_bytes(table, ordinals=np.array(ordinals, np.int64), metadata=metadata)


@given(st.integers(0, 9), st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=6))
@settings(max_examples=50, deadline=None)
def test_rows_say_what_the_records_say(seed: int, counts: list[int | None]):
    results = make_results(seed, counts)
    uris = [f"s3://bucket/é {i}.jpg" for i in range(len(counts))]
    table = rows_table(range(7, 7 + len(counts)), uris, results, NAMES)
    assert table.schema.equals(DATA_SCHEMA)
    table.validate(full=True)
    assert table.to_pylist() == [expected_row(7 + i, uris[i], result) for i, result in enumerate(results)]
    assert count_rows(table) == {
        "rows": len(counts),
        "labelled": sum(bool(count) for count in counts),
        "empty": counts.count(0),
        "failed": counts.count(None),
        "instances": sum(count or 0 for count in counts),
    }


def test_schema_is_the_published_one():
    assert [f"{field.name}: {field.type}" for field in DATA_SCHEMA] == [
        "ordinal: int64",
        "uri: string",
        "height: int32",
        "width: int32",
        "instances: list<item: struct<category_id: int32, category: string, score: float, "
        "bbox: fixed_size_list<item: float>[4], area: int64, rle: string>>",
        "error: struct<stage: string, kind: string, message: string>",
    ]


def test_a_name_that_is_not_utf8_in_a_message_does_not_stop_the_row():
    table = rows_table([0], ["a"], [RowError("read", "object_not_found", "b\udcff.jpg: no such file")], NAMES)
    assert table["error"][0]["message"].as_py() == "b?.jpg: no such file"


def test_a_part_reads_back_and_in_duckdb(tmp_path: Path):
    results = make_results(3, [2, None, 0, 3])
    table = rows_table([3, 5, 6, 9], list("abcd"), results, NAMES)
    path = tmp_path / "part.parquet"
    path.write_bytes(part_bytes(table, ordinals=np.array([3, 5, 6, 9]), metadata={}))
    assert read_part(str(path)).equals(table)
    lake = duckdb.connect()
    rows = lake.execute(
        f"select ordinal, i.category, i.bbox, i.rle from (select ordinal, unnest(instances) i from '{path}')"
    ).fetchall()
    flat = [(row["ordinal"], i["category"], i["bbox"], i["rle"]) for row in table.to_pylist() for i in row["instances"]]
    assert rows == flat
    assert lake.execute(f"select ordinal from '{path}' where error is not null").fetchall() == [(5,)]


def test_footer_says_what_the_part_holds(tmp_path: Path):
    path = tmp_path / "part-7.parquet"
    path.write_bytes(make_part([*range(8), 10, *range(20, 23)], **{"rayseg.model": "m", "rayseg.spec": '{"a": 1}'}))
    footer = read_footer(str(path))
    assert footer.name == "part-7.parquet"
    assert footer.ranges.tolist() == [[0, 8], [10, 11], [20, 23]]
    assert footer.counts == {"rows": 12, "labelled": 9, "empty": 3, "failed": 0, "instances": 18}
    assert (footer.rows, footer.size_bytes) == (12, path.stat().st_size)
    assert footer.metadata == {"rayseg.model": "m", "rayseg.spec": '{"a": 1}'}
    keys = pq.read_metadata(path).metadata
    assert keys[b"rayseg.ordinals"] == b"0-7,10,20-22"
    assert keys[b"rayseg.schema_version"] == b"1"
    assert pq.read_metadata(path).row_group(0).column(0).has_column_index


class CountingFile(io.BytesIO):
    """Remembers what was read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.reads.append(len(data))
        return data


def test_footer_is_read_from_the_tail_alone(monkeypatch: pytest.MonkeyPatch):
    ordinals = np.arange(30_000)
    uris = [f"s3://bucket/{hash((o, 'salt')) & 0xFFFFFFFFFFFF:012x}.jpg" for o in range(30_000)]
    results = [RowError("decode", "truncated", uri) for uri in uris]
    part = part_bytes(rows_table(ordinals, uris, results, NAMES), ordinals=ordinals, metadata={})
    assert len(part) > 200_000
    file = CountingFile(part)
    monkeypatch.setattr(storage, "open", lambda uri: file)
    assert read_footer("s3://b/part").ranges.tolist() == [[0, 30_000]]
    assert file.reads == [64 << 10]
    long = CountingFile(make_part([1, 2], **{"rayseg.spec": "x" * 150_000}))
    monkeypatch.setattr(storage, "open", lambda uri: long)
    assert read_footer("s3://b/part").metadata["rayseg.spec"] == "x" * 150_000
    assert len(long.reads) == 2
    assert long.reads[1] < 155_000


def test_row_groups_are_bounded_in_bytes():
    rng = np.random.default_rng(0)
    results = [random_instances(rng, 6, (128, 128)) for _ in range(600)]
    table = rows_table(range(600), ["x"] * 600, results, NAMES)
    assert table.nbytes > 20 << 20
    parquet = pq.ParquetFile(pa.BufferReader(part_bytes(table, ordinals=np.arange(600), metadata={})))
    assert parquet.num_row_groups >= 2
    assert max(parquet.read_row_group(g).nbytes for g in range(parquet.num_row_groups)) < 20 << 20


def test_ordinals_must_be_those_of_the_rows():
    table = rows_table([1, 2], ["a", "b"], make_results(0, [0, 0]), NAMES)
    with pytest.raises(ValueError, match="differ"):
        part_bytes(table, ordinals=np.array([1, 3]), metadata={})
    with pytest.raises(ValueError, match="ascending"):
        part_bytes(table.take([1, 0]), ordinals=np.array([2, 1]), metadata={})


PART = make_part(list(range(50)))


@given(st.integers(0, len(PART) - 1))
def test_a_cut_part_is_named(cut: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open", lambda uri: io.BytesIO(PART[:cut]))
        with pytest.raises(BrokenPart, match=r"s3://b/data/part\.parquet"):
            read_footer("s3://b/data/part.parquet")


def test_parts_of_others_are_refused(tmp_path: Path):
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(BrokenPart, match=r"foreign\.parquet.*schema_version 1.*found none"):
        read_footer(str(foreign))
    newer = tmp_path / "newer.parquet"
    newer.write_bytes(PART.replace(b"rayseg.schema_version\x18\x011", b"rayseg.schema_version\x18\x012"))
    with pytest.raises(BrokenPart, match="found version 2"):
        read_footer(str(newer))
    liar = tmp_path / "liar.parquet"
    liar.write_bytes(PART.replace(b"0-49", b"0-48"))
    with pytest.raises(BrokenPart, match=r"contradicts itself: 50 rows, 49 ordinals"):
        read_footer(str(liar))


def test_many_footers_come_in_order_and_faults_in_their_place(tmp_path: Path):
    uris = []
    for i in range(40):
        uris.append(str(tmp_path / f"{i}.parquet"))
        Path(uris[-1]).write_bytes(make_part([i]))
    assert [footer.ranges[0, 0] for footer in read_footers(uris, threads=3) if isinstance(footer, PartFooter)] == [
        *range(40)
    ]
    Path(uris[10]).write_bytes(b"PAR1")
    Path(uris[20]).unlink()
    footers = read_footers(uris, threads=3)
    found = [next(footers) for _ in range(20)]
    assert [i for i, footer in enumerate(found) if not isinstance(footer, PartFooter)] == [10]
    assert isinstance(found[10], BrokenPart)
    assert "10.parquet" in str(found[10])
    with pytest.raises(ObjectNotFound, match=r"20\.parquet"):
        next(footers)
