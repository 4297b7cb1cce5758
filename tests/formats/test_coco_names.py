import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayseg.formats import json_stream
from rayseg.formats.coco import image_names
from rayseg.formats.json_stream import NotJson, array_items

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.text(max_size=6), json_values, max_size=3).flatmap(
    lambda rest: st.lists(json_values, max_size=4).map(lambda items: {**rest, "images": items})
)


def items_of(text: bytes, read_bytes: int) -> list:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_READ_BYTES", read_bytes)
        return list(array_items(io.BytesIO(text), "s3://b/a.json", "images"))


@settings(max_examples=60)
@given(documents, st.integers(1, 40), st.sampled_from([None, 1, "\t"]), st.booleans())
@example({"a": 1.5e300, "images": [-0.25, "\u2028\U0001f600", 123456789]}, 1, None, True)
def test_items_are_those_that_json_reads(document: dict, read_bytes: int, indent: int | str | None, ascii_only: bool):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is no JSON text
    assert items_of(text, read_bytes) == document["images"]
    assert items_of(b"\xef\xbb\xbf" + text, read_bytes) == document["images"]


@given(documents, st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_a_cut_file_is_named_with_its_line(document: dict, read_bytes: int, data: st.DataObject):
    text = json.dumps({"images": document["images"]}, indent=1).encode()
    end = text.rindex(b"]")  # what follows the array is not read
    cut = data.draw(st.integers(0, end))
    with pytest.raises(NotJson, match=r"s3://b/a\.json: line \d+: ") as caught:
        items_of(text[:cut], read_bytes)
    line = int(str(caught.value).split("line ")[1].split(":")[0])
    assert line <= text[:cut].count(b"\n") + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"line 1: .*expected an object"),
        ('{"images": 3}', "expected an array under 'images'"),
        ('{"info": {},\n "annotations": []}', "no 'images' in it; found the keys 'info', 'annotations'"),
        ("{}", "found the keys none"),
        ('{"images":\n [{"file_name": "a.jpg"},\n {"file_name": b.jpg}]}', "line 3: .*expecting value"),
        ('{"images":\n [1\n 2]}', "line 3: .*expected a comma or the end of the array, found '2'"),
        ('{"images": [1,]}', "line 1: .*expecting value"),
        ("", "ends where an object should be"),
        ('{"a": 1 "images": []}', "expected a comma"),
        ('{a: 1, "images": []}', "line 1: .*expecting value"),
        ('{1: 1, "images": []}', "expected a key in double quotes, found 1"),
        ('{"images": [' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_json_says_where_and_what(text: str, message: str):
    with pytest.raises(NotJson, match=message):
        items_of(text.encode(), 8)


def test_bytes_that_are_no_text():
    with pytest.raises(NotJson, match=r"line 2: .*not UTF-8"):
        items_of(b'{"images":\n ["\xff"]}', 5)


def test_broken_items_do_not_pull_the_whole_file_into_memory():
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b'{"images": [{"a": nope}, ' + b" " * (size - 25)

    file = Endless()
    with pytest.raises(NotJson, match="line 1"):
        list(array_items(file, "s3://b/a.json", "images"))  # pyright: ignore[reportArgumentType]
    assert file.taken < 4 << 20


def test_image_names_in_order():
    coco = {
        "info": {"x": [1]},
        "annotations": [{"id": 1}],
        "images": [{"id": 2, "file_name": n} for n in ("b/é.jpg", "a")],
    }
    assert list(image_names(io.BytesIO(json.dumps(coco).encode()), "u")) == ["b/é.jpg", "a"]


@pytest.mark.parametrize("image", [{"id": 1}, {"file_name": None}, {"file_name": ""}, {"file_name": 3}, "a.jpg"])
def test_an_image_without_a_file_name_is_named(image: object):
    coco = {"images": [{"file_name": "a.jpg"}, image]}
    with pytest.raises(NotJson, match=r"s3://b/c\.json: images\[1\]: expected an object with a file_name"):
        list(image_names(io.BytesIO(json.dumps(coco).encode()), "s3://b/c.json"))
