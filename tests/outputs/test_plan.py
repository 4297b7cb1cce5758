import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.formats.parts import PLAN_SCHEMA
from rayseg.outputs.plan import GROUP_ROWS, BrokenPlan, PlanInfo, PlanPart, check_part, iter_plan, read_plan, write_plan
from rayseg.storage import Entry


def entry(i: int) -> Entry:
    return Entry(f"s3://bucket/photos/é {i}.jpg", -1 if i % 10 == 3 else i * 7)


def pages(count: int, size: int = 1000) -> Iterator[list[Entry]]:
    for start in range(0, count, size):
        yield [entry(i) for i in range(start, min(start + size, count))]


def expected(start: int, stop: int) -> list[dict]:
    entries = [(i, entry(i)) for i in range(start, stop)]
    return [{"ordinal": i, "uri": e.uri, "size": None if e.size_bytes < 0 else e.size_bytes} for i, e in entries]


def parts_on_disk(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "plan").iterdir())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, PlanInfo]:
    out = str(tmp_path_factory.mktemp("out"))
    return out, write_plan(out, pages(45_000, 700), part_rows=20_000)


def test_the_parts_together_are_the_inputs_in_order(planned: tuple[str, PlanInfo]):
    out, info = planned
    tables = [pq.read_table(path) for path in sorted(Path(out, "plan").iterdir())]
    assert pa.concat_tables(tables).to_pylist() == expected(0, 45_000)
    assert tables[0].schema.remove_metadata() == PLAN_SCHEMA
    assert info.count == 45_000
    assert info.size_bytes_total == sum(max(entry(i).size_bytes, 0) for i in range(45_000))
    assert info.sizes_unknown == 4500
    assert info.parts == [
        PlanPart("part-00000.parquet", 0, 20_000),
        PlanPart("part-00001.parquet", 20_000, 20_000),
        PlanPart("part-00002.parquet", 40_000, 5_000),
    ]
    groups = pq.read_metadata(Path(out, "plan", "part-00000.parquet"))
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [GROUP_ROWS, GROUP_ROWS, 3616]


@given(st.integers(0, 45_000), st.integers(0, 45_000))
@settings(max_examples=40, deadline=None)
def test_any_range_can_be_read(planned: tuple[str, PlanInfo], a: int, b: int):
    out, info = planned
    start, stop = min(a, b), min(max(a, b), min(a, b) + 9000)
    table = read_plan(out, info, start, stop)
    assert table.schema == PLAN_SCHEMA
    assert table.to_pylist() == expected(start, stop)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 45_000), (19_999, 20_001), (8191, 8193), (45_000, 45_000), (44_999, 45_000)]
)
def test_ranges_across_every_border(planned: tuple[str, PlanInfo], start: int, stop: int):
    assert read_plan(*planned, start, stop).to_pylist() == expected(start, stop)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 45_001)])
def test_ordinals_that_are_not_in_the_plan_are_refused(planned: tuple[str, PlanInfo], start: int, stop: int):
    with pytest.raises(ValueError, match="the plan has 0 to 45000"):
        read_plan(*planned, start, stop)


def test_iterating_gives_all_of_it(planned: tuple[str, PlanInfo]):
    tables = list(iter_plan(*planned, rows=7000))
    assert [len(table) for table in tables] == [7000] * 6 + [3000]
    assert pa.concat_tables(tables).to_pylist() == expected(0, 45_000)


def test_info_survives_json(planned: tuple[str, PlanInfo]):
    assert PlanInfo.from_json(json.loads(json.dumps(asdict(planned[1])))) == planned[1]


@pytest.mark.parametrize("limit", [1, 999, 1000, 1001, 20_000])
def test_a_limit_stops_the_listing(tmp_path: Path, limit: int):
    taken = []

    def listing() -> Iterator[list[Entry]]:
        for page in pages(15_000):
            taken.append(len(page))
            yield page

    info = write_plan(str(tmp_path), listing(), limit)
    assert info.count == min(limit, 15_000)
    assert sum(taken) < limit + 1000
    assert read_plan(str(tmp_path), info, 0, info.count).to_pylist() == expected(0, info.count)


def test_progress_grows_to_the_count(tmp_path: Path):
    seen = []
    write_plan(str(tmp_path), pages(20_500), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 20_500


def test_a_new_plan_replaces_an_old_one_whole(tmp_path: Path):
    old = write_plan(str(tmp_path), pages(9000), part_rows=2000)
    assert len(parts_on_disk(tmp_path)) == 5
    assert read_plan(str(tmp_path), old, 0, 1).to_pylist() == expected(0, 1)
    new = write_plan(str(tmp_path), ([entry(i + 50)] for i in range(3000)), part_rows=2000)
    assert parts_on_disk(tmp_path) == ["part-00000.parquet", "part-00001.parquet"]
    assert read_plan(str(tmp_path), new, 0, 1)["uri"].to_pylist() == [entry(50).uri]
    with pytest.raises(BrokenPlan, match=f"expected 2000 rows of plan {old.id}, found 2000 of {new.id}"):
        check_part(str(tmp_path), old, old.parts[0])
    with pytest.raises(BrokenPlan, match=r"part-00004\.parquet: this part of the plan is gone"):
        check_part(str(tmp_path), old, old.parts[4])


def test_a_planning_that_dies_is_noticed_by_who_reads_the_old_plan(tmp_path: Path):
    old = write_plan(str(tmp_path), pages(4000), part_rows=2000)

    def dying() -> Iterator[list[Entry]]:
        yield from ([entry(i + 7)] for i in range(13_000))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_plan(str(tmp_path), dying(), part_rows=2000)
    for part in old.parts:
        with pytest.raises(BrokenPlan, match=rf"{part.name}: expected 2000 rows of plan {old.id}"):
            read_plan(str(tmp_path), old, part.start, part.start + 1)


def test_a_cut_part_is_named(tmp_path: Path):
    info = write_plan(str(tmp_path), pages(3000))
    path = tmp_path / "plan" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenPlan, match=r"part-00000\.parquet: not a whole Parquet file"):
        read_plan(str(tmp_path), info, 0, 10)


def test_a_name_that_no_text_can_hold_is_planned_all_the_same(tmp_path: Path):
    info = write_plan(str(tmp_path), [[Entry("/photos/a\udcff.jpg", 1), Entry("/photos/b.jpg", 2)]])
    assert read_plan(str(tmp_path), info, 0, 2)["uri"].to_pylist() == ["/photos/a?.jpg", "/photos/b.jpg"]
