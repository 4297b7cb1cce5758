"""Places of items in JSON files, against decoding them whole."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayseg.formats import json_items
from rayseg.formats.json_items import TOP, scan
from rayseg.formats.json_stream import NotJson
from rayseg.kernels.json_scan import read_rings

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ids = st.integers(-(10**17), 10**17) | st.integers(0, 3) | st.sampled_from(["a", None, 1.5, 10**30])
items = st.dictionaries(st.sampled_from(["id", "image_id", "x", '"', "\\", "é"]), ids | values, max_size=4)
arrays = st.lists(items | values, max_size=5)
documents = st.fixed_dictionaries({}, optional={"images": arrays, "annotations": arrays, "info": values, "é\n": values})
WANTED = {"images": ("id",), "annotations": ("image_id", "id"), TOP: ("image_id",)}


def scanned(text: bytes, read_bytes: int = 1 << 20) -> json_items.Scan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_items, "READ_BYTES", read_bytes)
        patch.setattr(json_items, "_ROWS_AT_ONCE", 2)
        return scan(io.BytesIO(text), "s3://b/a.json", WANTED)


def check(found: json_items.Items, text: bytes, expected: list, keys: tuple[str, ...]) -> None:
    assert [json.loads(text[a:b]) for a, b in zip(found.starts, found.ends, strict=True)] == expected
    for row, item in enumerate(expected):
        wanted = [item.get(key) if isinstance(item, dict) else None for key in keys]
        assert list(found.odd[row] if row in found.odd else found.values[row]) == wanted
        plain = [type(one) is int and abs(one) < 10**18 for one in wanted]
        assert all(plain) or row in found.odd


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 40), st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans())
@example({"images": [{"id": 3, "a": 1}, {"id": -0}, "]}"]}, 1, None, True, True)
def test_items_lie_where_they_are_found(document, read_bytes, indent, ascii_only, marked):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    text = b"\xef\xbb\xbf" * marked + text
    try:
        text.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is no JSON text
    found = scanned(text, read_bytes)
    assert found.others == {key: value for key, value in document.items() if key not in WANTED}
    assert found.arrays.keys() == document.keys() & WANTED.keys()
    for name, places in found.arrays.items():
        check(places, text, document[name], WANTED[name])


@given(arrays, st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_a_file_may_be_the_array(array, read_bytes):
    text = json.dumps(array).encode()
    check(scanned(text, read_bytes).arrays[TOP], text, array, ("image_id",))


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 40), st.data())
def test_a_cut_file_is_named_with_its_line(document, read_bytes, data):
    text = json.dumps(document, indent=1).encode()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(NotJson, match=r"s3://b/a\.json: line \d+: ") as caught:
        scanned(cut, read_bytes)
    assert int(str(caught.value).split("line ")[1].split(":")[0]) <= cut.count(b"\n") + 1


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40) | st.text('[]{},:"\\ 0123456789.eE+-ntrue\n', max_size=40).map(str.encode),
    st.integers(1, 40),
)
def test_any_bytes_are_scanned_or_named(data, read_bytes):
    for text in (data, b'{"images": [' + data, b'{"images": [{"id": 1}' + data + b"]}"):
        try:
            found = scanned(text, read_bytes)
        except NotJson:
            continue
        for name, places in found.arrays.items():
            assert (places.starts < places.ends).all(), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1: .*ends where an object should be"),
        (b'{"images": 3}', "expected an array"),
        (b'{"images": [],\n"images": []}', "line 2: .*expected one 'images', found a second"),
        (b'{"images":\n[{"id": 1}\n{"id": 2}]}', "line 3: .*expected a comma or the end of the array, found b'{'"),
        (b'{"images": [1,,2]}', "expected an item of an array, found b','"),
        (b'{"images":\n[{"id": 1},\n{"id": tru}]}', "line 3: .*expecting value"),
        (b'{"images": [{"id": 1}]} x', "expected its end, found b'x'"),
        (b'{"info": "\xff", "images": []}', "not UTF-8"),
        (b'{"info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, message):
    with pytest.raises(NotJson, match=message):
        scanned(text)


numbers = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**20), 10**20)
    | st.decimals(-1000, 1000, places=2).map(float)
)
rings = st.lists(st.lists(numbers, min_size=1, max_size=9), max_size=3)


@settings(max_examples=300, deadline=None)
@example([([[0, 0, 0, 0, 0, 2**53 + 1]], None, False)])
@given(st.lists(st.tuples(rings, st.sampled_from([None, 1]), st.booleans()), max_size=4))
def test_rings_are_the_numbers_that_json_reads(cases):
    texts = []
    for value, indent, before in cases:
        item = (
            {"a": [1, {"segmentation": [[1, 2]]}], "segmentation": value}
            if before
            else {"segmentation": value, "b": "]"}
        )
        texts.append(json.dumps(item, indent=indent).encode())
    buffer = b"".join(texts)
    offsets = np.cumsum([0, *map(len, texts)])
    cuts, counts, ends, found, inexact, rest = read_rings(
        np.frombuffer(buffer, np.uint8), offsets, np.frombuffer(b"segmentation", np.uint8)
    )
    for index, begin, end in inexact.tolist():
        found[index] = float(buffer[begin:end])
    expected = [
        b"%b0%b" % (text[:a], text[b:]) if a >= 0 else text for text, (a, b) in zip(texts, cuts.tolist(), strict=True)
    ]
    assert rest.tobytes() == b"[%b]" % b",".join(expected)
    ring = 0
    for (value, _, _), text, (begin, end), count in zip(cases, texts, cuts.tolist(), counts.tolist(), strict=True):
        if value and all(len(one) >= 6 and len(one) % 2 == 0 for one in value):
            assert json.loads(text[begin:end]) == value
            read = [found[ends[k] : ends[k + 1]].tolist() for k in range(ring, ring + count)]
            assert read == [list(map(float, one)) for one in value]
        else:
            assert (begin, count) == (-1, 0)
        ring += count


@pytest.mark.parametrize(
    "text", ["[[1,2,3,4,5,06]]", "[[1,2,3,4,5,6.]]", "[[1,2,3,4,5,.5]]", "[[1,2,3,4,5,+6]]", "[[1,2,3,4,5,NaN]]",
             "[[1,2,3,4,5,6e]]", "[[1,2,3,4,5,6],]", "[[1,2,3,4,5,]]", "[[1,2,3,4,5,6]", "[1,2,3,4,5,6]", '{"size":[1,2]}']
)  # fmt: skip
def test_what_is_not_rings_of_json_numbers_is_left_alone(text):
    item = b'{"segmentation":%b}' % text.encode()
    cuts, counts, *_ = read_rings(
        np.frombuffer(item, np.uint8), np.array([0, len(item)]), np.frombuffer(b"segmentation", np.uint8)
    )
    assert cuts.tolist() == [[-1, -1]] and counts.tolist() == [0]
