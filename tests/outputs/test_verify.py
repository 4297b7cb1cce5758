import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rayseg.errors import JobError
from rayseg.formats.parts import DATA_SCHEMA, RowError, count_rows, part_bytes, rows_table
from rayseg.kernels import Rles, paste_rle
from rayseg.outputs.plan import write_plan
from rayseg.outputs.report import Report
from rayseg.outputs.row_checks import check_rows
from rayseg.outputs.verify import verify
from rayseg.records import Instances
from rayseg.storage import Entry

NAMES = ["cat", "dog", "bird"]
COUNT = 60
Rows = list[dict[str, Any]]


def result(i: int) -> Instances | RowError:
    """An image's labels: every fifth failed, every fifth empty, the others of two sizes."""
    rng = np.random.default_rng(i)
    if i % 5 == 0:
        return RowError("decode", "truncated", "ends early", (10, 10) if i % 2 else None)
    image_hw = (40, 30) if i % 2 else (64, 48)
    count = 0 if i % 5 == 1 else 3
    corners = np.sort(rng.random((count, 2, 2)) * image_hw[::-1], axis=1).reshape(count, 4).astype(np.float32)
    rles = paste_rle(rng.random((count, 28, 28), np.float32), corners, image_hw) if count else Rles.empty(image_hw)
    return Instances(corners, rng.random(count, np.float32), rng.integers(0, 3, count), rles, image_hw)


class Output:
    """A whole label output of `COUNT` rows in three parts, whose rows are interleaved; parts can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = write_plan(str(folder), [[Entry(f"s3://b/{i}.jpg", i) for i in range(COUNT)]])
        self.model = {"fingerprint": "f", "class_names": NAMES}
        self.write_json("job.json", {"plan": asdict(self.plan), "model": self.model})
        self.names = [f"part-0001-{i:012d}-abcdef00.parquet" for i in range(3)]
        for i, name in enumerate(self.names):
            ordinals = list(range(i, COUNT, 3))
            uris = [f"s3://b/{o}.jpg" for o in ordinals]
            self.write_part(name, rows_table(ordinals, uris, [result(o) for o in ordinals], NAMES))
        self.write_manifest()

    def path(self, name: str) -> Path:
        return self.folder / "data" / name

    def rows(self, name: str) -> Rows:
        return pq.read_table(self.path(name)).to_pylist()

    def write_part(self, name: str, table: pa.Table) -> None:
        self.path(name).parent.mkdir(exist_ok=True)
        self.path(name).write_bytes(part_bytes(table, ordinals=table["ordinal"].to_numpy(), metadata={}))

    def change(self, change: Callable[[Rows], object], part: int = 1) -> None:
        """Change the rows of a part; its footer and the manifest agree with them afterwards."""
        rows = self.rows(self.names[part])
        change(rows)
        self.write_part(self.names[part], pa.Table.from_pylist(rows, DATA_SCHEMA))
        self.write_manifest()

    def write_manifest(self, **changes: Any) -> None:
        tables = [pq.read_table(self.path(name)) for name in self.names]
        counts = [count_rows(table) for table in tables]
        totals = {key: sum(count[key] for count in counts) for key in ("labelled", "empty", "failed", "instances")}
        parts = [
            {"name": name, "rows": len(table), "size_bytes": self.path(name).stat().st_size}
            for name, table in zip(self.names, tables, strict=True)
        ]
        self.write_json("manifest.json", {"inputs": COUNT, **totals, "parts": parts, "model": self.model, **changes})

    def write_json(self, name: str, record: dict[str, Any]) -> None:
        (self.folder / name).write_text(json.dumps(record))

    def verify(self, **settings: Any) -> Report:
        return verify(str(self.folder), **settings)

    def faults(self) -> list[str]:
        report = self.verify()
        assert not report.ok
        assert report.fault_count == len(report.faults)
        return [str(fault) for fault in report.faults]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def first_labelled(rows: Rows) -> tuple[int, dict[str, Any]]:
    """The first row that has instances, with its number in the file."""
    return next((i, row) for i, row in enumerate(rows) if row["instances"])


def test_a_whole_output_is_proved(output: Output):
    seen = []
    report = output.verify(progress=lambda done, total: seen.append((done, total)))
    assert report.faults == []
    assert report.ok
    assert (report.inputs, report.parts) == (COUNT, 3)
    assert report.counts == {"rows": 60, "labelled": 36, "empty": 12, "failed": 12, "instances": 108}
    assert seen == [(20, 60), (40, 60), (60, 60)]
    assert "each of 60 inputs has exactly one row" in report.text()
    assert json.loads(json.dumps(report.as_json()))["ok"] is True


def test_a_lost_row(output: Output):
    output.change(lambda rows: rows.pop(3))
    assert output.faults() == ["data: ordinal 10 has no row (s3://b/10.jpg)"]


def test_a_row_twice_in_two_parts(output: Output):
    stolen = output.rows(output.names[0])[4]  # ordinal 12

    def replace(rows: Rows) -> None:
        rows[3] = stolen
        rows.sort(key=lambda row: row["ordinal"])

    output.change(replace)
    assert output.faults() == [
        f"data/{output.names[1]}: row 3: ordinal 12 (s3://b/12.jpg) has a row already",
        "data: ordinal 10 has no row (s3://b/10.jpg)",
    ]


def test_a_row_twice_in_one_part_that_says_so_nowhere(output: Output):
    name = output.names[1]
    table = pq.read_table(output.path(name))
    keys = pq.read_metadata(output.path(name)).metadata
    footer = {key: value for key, value in keys.items() if key.startswith(b"rayseg.")}
    doubled = table.take([0, 0, *range(2, 20)]).replace_schema_metadata(footer)
    pq.write_table(doubled, output.path(name))
    output.write_manifest()
    faults = output.faults()
    assert f"data/{name}: row 1: ordinal 1 (s3://b/1.jpg) has a row already" in faults
    assert f"data/{name}: its footer covers other ordinals than its rows" in faults
    assert "data: ordinal 4 has no row (s3://b/4.jpg)" in faults


def test_many_lost_rows_are_told_as_ranges(output: Output):
    for name in output.names:
        output.path(name).unlink()
    output.names = []
    output.write_manifest()
    assert output.faults() == ["data: ordinals 0 to 59 have no row (s3://b/0.jpg)"]


def test_another_uri_than_planned(output: Output):
    output.change(lambda rows: rows[2].update(uri="s3://b/other.jpg"))
    assert output.faults() == [f"data/{output.names[1]}: row 2: uri is 's3://b/other.jpg', 's3://b/7.jpg' in the plan"]


def test_an_ordinal_beyond_the_plan(output: Output):
    output.change(lambda rows: rows[-1].update(ordinal=1000))
    assert output.faults() == [
        f"data/{output.names[1]}: row 19: ordinal 1000, expected 0 to 59",
        "data: ordinal 58 has no row (s3://b/58.jpg)",
    ]


def other_size(rle: str, hw: tuple[int, int]) -> str:
    mask = coco_mask.decode(cast(Any, {"size": list(hw), "counts": rle.encode()}))
    return cast(Any, coco_mask.encode(np.asfortranarray(mask[:-1])))["counts"].decode()


INSTANCE_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"score": float("nan")}, "score is nan, expected 0 to 1"),
    ({"score": 1.5}, "score is 1.5, expected 0 to 1"),
    ({"score": -0.1}, r"score is -0\.1"),
    ({"score": None}, "score is null"),
    ({"rle": None}, "rle is null"),
    ({"category_id": 3}, "category_id is 3, expected 0 to 2"),
    ({"category_id": -1}, "category_id is -1"),
    ({"category": "cow"}, "category is 'cow', expected '(cat|dog|bird)'"),
    ({"bbox": [float("inf"), 0.0, 1.0, 1.0]}, "bbox is .*expected finite"),
    ({"bbox": [1.0, 1.0, -2.0, 1.0]}, "bbox is .*expected finite x, y, w, h with w, h >= 0"),
    ({"bbox": [0.0, 0.0, 49.0, 64.0]}, r"bbox \[0\.0, 0\.0, 49\.0, 64\.0\] leaves the image of 48 x 64 pixels"),
    ({"bbox": [0.0, 0.0, 0.5, 0.5]}, r"mask lies in \[.*\], away from its bbox \[0\.0, 0\.0, 0\.5, 0\.5\]"),
    ({"area": 1_000_000}, r"area is 1000000, its mask has \d+ pixels"),
    ({"rle": "\x7f!"}, "rle holds a byte outside"),
    ({"rle": ""}, "rle is empty"),
]


@pytest.mark.parametrize(("change", "message"), INSTANCE_FAULTS)
def test_each_fault_of_an_instance_is_named(output: Output, change: dict[str, Any], message: str):
    row = 0

    def spoil(rows: Rows) -> None:
        nonlocal row
        row, found = first_labelled(rows)
        found["instances"][1].update(change)

    output.change(spoil, part=2)
    (fault,) = output.verify().faults
    assert (fault.file, fault.row) == (f"data/{output.names[2]}", row)
    assert re.fullmatch(rf"instance 1: {message}.*", fault.what)


def test_an_rle_of_another_size(output: Output):
    def spoil(rows: Rows) -> None:
        _, row = first_labelled(rows)
        first = row["instances"][0]
        first["rle"] = other_size(first["rle"], (row["height"], row["width"]))

    output.change(spoil)
    (fault,) = output.faults()
    assert "instance 0: rle covers fewer pixels than the image has" in fault


def test_masks_that_may_lie_anywhere_are_not_measured_against_their_boxes(output: Output):
    output.change(lambda rows: first_labelled(rows)[1]["instances"][0].update(bbox=[0.0, 0.0, 0.5, 0.5]))
    assert len(output.faults()) == 1
    output.model["placement"] = "resize"
    output.write_manifest()
    assert output.verify().ok


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_no_mask_that_fills_its_box_is_away_from_it(height: int, width: int, unit_boxes: list[tuple[float, ...]]):
    corners = np.sort(np.array(unit_boxes).reshape(-1, 2, 2), axis=1) * (width, height)
    boxes_xyxy = corners.reshape(-1, 4).astype(np.float32)
    count = len(boxes_xyxy)
    rles = paste_rle(np.ones((count, 28, 28), np.float32), boxes_xyxy, (height, width), threshold=0.01)
    scores, classes = np.ones(count, np.float32), np.zeros(count, np.int64)
    found = Instances(boxes_xyxy, scores, classes, rles, (height, width))
    assert not list(check_rows(rows_table([0], ["a"], [found], NAMES), NAMES))


ROW_FAULTS: list[tuple[int, dict[str, Any], str]] = [
    (3, {"error": {"stage": None, "kind": "x", "message": "y"}}, "has an error without a stage"),
    (3, {"error": {"stage": "read", "kind": "", "message": "y"}}, "has an error without a kind"),
    (3, {"error": {"stage": "read", "kind": "x", "message": None}}, "has an error without a message"),
    (3, {"error": None, "height": None}, "neither an error nor a height and width"),
    (0, {"width": 0}, "neither an error nor a height and width"),
    (0, {"instances": None}, "instances is null"),
    (0, {"uri": None}, "uri is null"),
]


@pytest.mark.parametrize(("row", "change", "message"), ROW_FAULTS)
def test_each_fault_of_a_row_is_named(output: Output, row: int, change: dict[str, Any], message: str):
    output.change(lambda rows: rows[row].update(change))
    (fault,) = output.faults()
    assert f"data/{output.names[1]}: row {row}: " in fault
    assert message in fault


def test_an_error_beside_instances(output: Output):
    error = {"stage": "read", "kind": "x", "message": "y"}
    output.change(lambda rows: first_labelled(rows)[1].update(error=error))
    (fault,) = output.faults()
    assert fault.endswith("has an error and instances too")


def test_a_stray_part(output: Output):
    stray = output.path("part-0001-000000000000-00000000.parquet")
    stray.write_bytes(output.path(output.names[0]).read_bytes())
    (fault,) = output.faults()
    assert fault.startswith(f"data/{stray.name}: not accepted by any epoch")


def test_a_part_that_is_gone(output: Output):
    output.path(output.names[2]).unlink()
    faults = output.faults()
    assert faults[0] == f"data/{output.names[2]}: is named in manifest.json and not there"
    assert faults[1] == "data: ordinal 2 has no row (s3://b/2.jpg)"
    assert "manifest.json: counts 36 labelled, the rows 24" in faults


@pytest.mark.parametrize("kept", [0, 4, 500, -1])
def test_a_cut_part(output: Output, kept: int):
    path = output.path(output.names[0])
    path.write_bytes(path.read_bytes()[:kept])
    faults = output.faults()
    assert any(f.startswith(f"data/{path.name}: has ") and "manifest.json says" in f for f in faults)
    assert any(f.startswith(f"data/{path.name}: is not a whole Parquet file") for f in faults)
    assert "data: ordinal 0 has no row (s3://b/0.jpg)" in faults


def test_flipped_bytes_inside_a_part(output: Output):
    path = output.path(output.names[0])
    data = bytearray(path.read_bytes())
    data[10:60] = bytes(50)
    path.write_bytes(data)
    assert any("cannot be read" in fault for fault in output.faults())


@pytest.mark.parametrize("key", ["inputs", "labelled", "empty", "failed", "instances"])
def test_a_wrong_count_in_the_manifest(output: Output, key: str):
    right = json.loads((output.folder / "manifest.json").read_text())[key]
    output.write_manifest(**{key: right + 1})
    (fault,) = output.faults()
    assert f"manifest.json: counts {right + 1} {key}" in fault


def test_a_footer_that_counts_wrongly(output: Output):
    path = output.path(output.names[0])
    path.write_bytes(path.read_bytes().replace(b'"instances": 36', b'"instances": 35'))
    assert output.faults() == [f"data/{path.name}: its footer counts 35 instances, its rows 36"]


def test_a_missing_plan_part(output: Output):
    (output.folder / "plan" / "part-00000.parquet").unlink()
    (fault,) = output.faults()
    assert fault.startswith("plan/part-00000.parquet: this part of the plan is gone")


def test_foreign_columns(output: Output):
    table = pq.read_table(output.path(output.names[0])).drop_columns(["width"])
    keys = pq.read_metadata(output.path(output.names[0])).metadata
    pq.write_table(
        table.replace_schema_metadata({k: v for k, v in keys.items() if b"rayseg" in k}), output.path(output.names[0])
    )
    output.write_manifest()
    assert any("has other columns than a label output" in fault for fault in output.faults())


def test_an_unfinished_run_says_how_far_it_is(output: Output):
    (output.folder / "manifest.json").unlink()
    output.path(output.names[2]).unlink()
    report = output.verify()
    assert not report.complete
    assert [str(fault) for fault in report.faults] == [
        "manifest.json: incomplete: 40 of 60 rows done; run the same label command again to go on"
    ]
    assert not report.ok


def test_only_the_first_faults_are_kept_and_all_are_counted(output: Output):
    def spoil(rows: Rows) -> None:
        for row in rows:
            for instance in row["instances"]:
                instance["score"] = 2.0

    output.change(spoil)
    report = output.verify(max_faults=5)
    assert len(report.faults) == 5
    assert report.fault_count == 36
    assert "... and 31 more faults" in report.text()


def test_what_is_no_label_output(tmp_path: Path):
    with pytest.raises(JobError, match=r"no job\.json in it"):
        verify(str(tmp_path))
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(JobError, match=r"job\.json is not JSON"):
        verify(str(tmp_path))
    (tmp_path / "job.json").write_text('{"plan": {}}')
    with pytest.raises(JobError, match="does not describe a plan"):
        verify(str(tmp_path))


def test_a_manifest_without_counts(output: Output):
    output.write_json("manifest.json", {"inputs": 3})
    with pytest.raises(JobError, match=r"manifest\.json is not that of a label run"):
        output.verify()
