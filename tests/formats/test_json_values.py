"""JSON that is decoded whole: lines in errors, first keys, values that are checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from formats.sample_records import json_values as any_json
from formats.sample_records import texts
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.formats import json_values
from rayseg.formats.faults import BadAnnotation


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{\n"a": 1,\n}', "line 3: not the expected JSON: "),
        (b'\n\n"\xff"', "line 3: expected JSON in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "not the expected JSON"),
        (b"", "line 1: not the expected JSON"),
    ],
)
def test_broken_files_name_the_line(data: bytes, message: str):
    with pytest.raises(BadAnnotation, match=f"x.json: {message}" if message.startswith("line") else message):
        json_values.parsed(data, "x.json")


def test_a_mark_in_front_is_passed_over():
    assert json_values.parsed(b'\xef\xbb\xbf{"a": [1]}', "x") == {"a": [1]}


@settings(deadline=None)
@given(st.dictionaries(texts, any_json, max_size=5), st.sampled_from([None, 2]), st.floats(0, 1))
def test_first_keys_are_those_that_stand_first(value: dict[str, object], indent: int | None, share: float):
    data = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    assert json_values.first_keys(data) == list(value)
    cut = json_values.first_keys(data[: int(len(data) * share)])
    assert cut == list(value)[: len(cut)]


@pytest.mark.parametrize("data", [b"", b"[1]", b"null", b'"a"', b"{", b"\xff\xfe", b"[" * 9999])
def test_what_is_no_object_has_no_keys(data: bytes):
    assert json_values.first_keys(data) == []


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, -(10**400), 1e10, [1]])
def test_what_is_no_coordinate(value: object):
    with pytest.raises(ValueError, match="expected x as a finite number"):
        json_values.number(value, "x")
    for points in ([[1, value]], [[value, 1]], [value], value):
        with pytest.raises(ValueError, match="expected"):
            json_values.points(points, "points")


def test_points_and_sides():
    assert np.array_equal(json_values.points([[1, 2.5], [3, 4]], "points"), [[1, 2.5], [3, 4]])
    assert json_values.points([], "points").shape == (0, 2)
    assert [json_values.side(value, "height") for value in (3, 3.0, None)] == [3, 3, None]
    for value in ("3", 3.5, True):
        with pytest.raises(ValueError, match="height as a whole number"):
            json_values.side(value, "height")
