"""COCO files with something wrong in them: named with file and item, or skipped and counted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from formats.coco_files import SQUARE, document, only, put, read, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayseg.errors import RaysegError, StorageError
from rayseg.formats import coco, shapes
from rayseg.formats.faults import BadAnnotation


def broken(**changes: Any) -> dict[str, Any]:
    return document({"bbox": [1, 1, 2, 2], **changes})


BROKEN = [
    ("annotation", r"annotations\[0\]: expected the id of an image, found 8", broken(image_id=8)),
    ("annotation", r"annotations\[0\]: expected the id of an image, found None", broken(image_id=None)),
    ("category", r"annotations\[0\]: expected the id of a category, found 5", broken(category_id=5)),
    ("category", r"annotations\[0\]: expected the id of a category", broken(category_id=[4])),
    ("polygon", r"annotations\[0\]: .*at least 3 points, found 2", broken(segmentation=[[1, 2, 3, 4]])),
    ("polygon", r"annotations\[0\]: .*even number", broken(segmentation=[[1, 2, 3, 4, 5, 6, 7]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, float("nan")]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, 1e300]])),
    ("polygon", r"annotations\[0\]: .*finite", broken(segmentation=[[1, 2, 3, 4, 5, 10**400]])),
    ("polygon", r"annotations\[0\]: .*lists of numbers", broken(segmentation=[1, 2, 3, 4, 5, 6])),
    ("polygon", r"annotations\[0\]: .*lists of numbers", broken(segmentation="x")),
    ("mask", r"found size \[30, 20\]", broken(segmentation={"size": [30, 20], "counts": [600]})),
    ("mask", "do not cover", broken(segmentation={"size": [20, 30], "counts": [599]})),
    ("mask", "do not cover", broken(segmentation={"size": [20, 30], "counts": [601, -1]})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": [2**70]})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": "é"})),
    ("mask", "RLE counts", broken(segmentation={"size": [20, 30], "counts": "00"})),
    ("mask", "size", broken(segmentation={"counts": "00"})),
    ("box", "four numbers", broken(bbox=[1, 2, 3])),
    ("box", "finite numbers", broken(bbox=[1, 2, 3, -4])),
    ("box", "finite numbers", broken(bbox=[1, 2, 3, float("inf")])),
    ("annotation", "found neither", broken(bbox=[])),
    ("score", "finite number", broken(score="high")),
    ("image", r"images\[0\]: .*absolute", document(images=[{"id": 7, "file_name": "/etc/passwd"}])),
    ("image", r"images\[0\]: .*leads out", document(images=[{"id": 7, "file_name": "a/../../b.jpg"}])),
    ("image", r"images\[0\]: .*name of a file", document(images=[{"id": 7}])),
    ("image", r"images\[0\]: .*name of a file", document(images=[{"id": 7, "file_name": "\ud800.jpg"}])),
    ("image", r"images\[0\]: .*whole number", document(images=[{"id": 7, "file_name": "a", "height": "x"}])),
    ("image", r"images\[0\]: .*sides", document(images=[{"id": 7, "file_name": "a", "height": 0, "width": 5}])),
    ("image", r"images\[0\]: .*sides", document(images=[{"id": 7, "file_name": "a", "height": 2**60, "width": 5}])),
    ("image", r"images\[1\]: .*no other image has, found 7", document(images=[{"id": 7, "file_name": n} for n in "ab"])),
    ("image", r"images\[1\]: .*no other image has, found 'a'", document(images=[{"id": n, "file_name": "a"} for n in (7, 8)])),
    ("category", r"categories\[0\]: ", document(categories=[{"id": 4}])),
    ("category", r"categories\[1\]: .*again", document(categories=[{"id": 4, "name": n} for n in "ab"])),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "value"), BROKEN)
def test_bad_items_are_named_or_skipped_and_counted(tmp_path: Path, kind: str, message: str, value: dict):
    path = put(tmp_path, value)
    with pytest.raises(BadAnnotation, match=r"a\.json: .*" + message):
        list(read(path).images)
    dataset = read(path, on_error="skip")
    for _ in range(2):  # what is counted does not double
        list(dataset.images)
        assert dict(dataset.faults.counts) == {kind: 1}
        assert len(dataset.faults.messages) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id": 1,\n "file_name": }]}', r"line 2: .*Expecting value"),
        ('{"images": [],\n"annotations": [{"id": 1} {"id": 2}]}', r"line 2: .*comma"),
        ('{"annotations": []}', "expected COCO's 'images' in it, found the keys 'annotations'"),
        ("", "line 1"),
        ("3", "line 1"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    for on_error in ("raise", "skip"):
        with pytest.raises(StorageError, match=message):
            list(read(tmp_path / "a.json", on_error=on_error).images)


def test_a_fault_within_an_item_has_its_line(tmp_path: Path):
    text = json.dumps(document({"bbox": [1, 1, 2, 2]}, {"bbox": [1, 1, 2, 2]}), indent=1)
    line = text[: text.rindex('"iscrowd"')].count("\n") + 1
    head, _, tail = text.rpartition('"iscrowd": 0')
    (tmp_path / "a.json").write_text(f'{head}"iscrowd": nul{tail}')
    with pytest.raises(BadAnnotation, match=rf"a\.json: line {line}: annotations\[1\]: "):
        list(read(tmp_path / "a.json").images)


def test_a_folder_without_coco_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(BadAnnotation, match="expected annotations/instances_"):
        read(tmp_path)
    assert not coco.detect(str(tmp_path), ["a.json"])


@pytest.mark.parametrize(
    "own", [3, [], {"made": 3}, {"made": "area"}, {"shape": 3, "box": 3, "extras": 3}, {"box": [1.5] * 4}]
)
def test_what_rayseg_would_not_have_written_is_passed_over(tmp_path: Path, own: Any):
    item = {"segmentation": [SQUARE], "bbox": [2, 3, 10, 10], "area": 100, "rayseg": own}
    (found,) = only(read(put(tmp_path, document(item))))
    (plain,) = only(read(put(tmp_path, document({key: one for key, one in item.items() if key != "rayseg"}))))
    assert found == plain


pieces = st.sampled_from(
    [
        b'"',
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"null",
        b"-1",
        b"1e999",
        b"NaN",
        b'"x"',
        b"\xff",
        b"{}",
        b"[]",
        b"",
        b"\\",
        b"1",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_named_error(tmp_path: Path, data: st.DataObject):
    value = document(
        {"segmentation": [SQUARE], "bbox": [1, 1, 2, 2], "score": 0.5},
        {"segmentation": {"size": [20, 30], "counts": [600]}, "iscrowd": 1, "rayseg": {"shape": {"points": [1, 2]}}},
    )
    text = json.dumps(value if data.draw(st.booleans()) else value["annotations"]).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(begin + 6, len(text))))
        text = text[:begin] + data.draw(pieces) + text[end:]
    path = tmp_path / "a.json"
    path.write_bytes(text)
    try:
        dataset = read(path, on_error="skip")
        images = list(dataset.images)
    except RaysegError:
        return
    for image in images:
        for annotation in image.annotations:
            assert shapes.fault(annotation, image.image_hw) is None
    with warnings.catch_warnings():
        write(dataset, tmp_path / "out")
    assert len(list(read(tmp_path / "out", on_error="skip").images)) == len(images)
