"""XML from strangers: the tree is the standard library's, and what could harm is refused with its line."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayseg.formats import safe_xml
from rayseg.formats.faults import BadAnnotation

DOCUMENT = b"""<?xml version="1.0" encoding="utf-8"?>
<!-- made by hand -->
<annotations>
  <meta><task name="a &amp; b">&#228;\xc3\xa4<![CDATA[<c>]]></task></meta>
  <image id="1"><box x="1.5"/><box x="2"/></image>
  <image id="2"/>
</annotations>
"""


def _plain(element: ElementTree.Element) -> tuple:
    text = (element.text or "").strip()
    return element.tag, dict(element.attrib), text, [_plain(child) for child in element]


def test_same_tree_as_the_standard_library() -> None:
    assert _plain(safe_xml.parse(DOCUMENT, "u")) == _plain(ElementTree.fromstring(DOCUMENT))


def test_elements_know_their_line() -> None:
    root = safe_xml.parse(DOCUMENT, "u")
    assert [safe_xml.line_of(image) for image in root.iter("image")] == [5, 6]
    assert safe_xml.line_of(ElementTree.Element("made")) == 0


def test_streamed_elements_are_whole() -> None:
    found = list(safe_xml.elements(io.BytesIO(DOCUMENT), "u", "image"))
    assert [_plain(image) for image in found] == [_plain(i) for i in ElementTree.fromstring(DOCUMENT).iter("image")]
    assert [safe_xml.line_of(image) for image in found] == [5, 6]


def test_streamed_elements_across_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_xml, "_READ_BYTES", 7)
    found = [_plain(image) for image in safe_xml.elements(io.BytesIO(DOCUMENT), "u", "image")]
    assert found == [_plain(image) for image in ElementTree.fromstring(DOCUMENT).iter("image")]


def test_an_element_within_one_of_its_name_stays_inside() -> None:
    found = list(safe_xml.elements(io.BytesIO(b"<r><a><a/></a><a/></r>"), "u", "a"))
    assert [len(a) for a in found] == [1, 0]


BILLION_LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">]>
<lolz>&lol2;</lolz>"""
EXTERNAL = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'


@pytest.mark.parametrize("data", [BILLION_LAUGHS, EXTERNAL, b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>'])
def test_document_types_and_entities_are_refused(data: bytes) -> None:
    with pytest.raises(BadAnnotation, match=r"^u: line \d: .*DTD"):
        safe_xml.parse(data, "u")
    with pytest.raises(BadAnnotation, match=r"^u: line \d: .*DTD"):
        list(safe_xml.elements(io.BytesIO(data), "u", "a"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: not well-formed XML: no element found"),
        (b"<a>\n\n</b>", "line 3: not well-formed XML: mismatched tag"),
        (b"<a>\n<b>", "line 2: not well-formed XML"),
        (b"<a>&nbsp;</a>", "undefined entity"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="shift_jis"?><a/>', "encoding"),
        (b"<a>" * 100, "nested at most 64 deep"),
    ],
)
def test_broken_documents_name_the_line(data: bytes, message: str) -> None:
    for read in (lambda: safe_xml.parse(data, "u"), lambda: list(safe_xml.elements(io.BytesIO(data), "u", "a"))):
        with pytest.raises(BadAnnotation) as caught:
            read()
        assert message in str(caught.value)
        assert str(caught.value).startswith("u: line ")


def test_size_and_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadAnnotation, match="101 bytes"):
        safe_xml.parse(b"<a>" + b" " * 94 + b"</a>", "u", max_bytes=100)
    monkeypatch.setattr(safe_xml, "MAX_ELEMENTS", 10)
    with pytest.raises(BadAnnotation, match="at most 10 elements"):
        safe_xml.parse(b"<a>" + b"<b/>" * 10 + b"</a>", "u")
    many = b"<r>" + b"<a><b/></a>" * 50 + b"</r>"
    assert len(list(safe_xml.elements(io.BytesIO(many), "u", "a"))) == 50


def test_a_streamed_element_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_xml, "MAX_BYTES", 1000)
    monkeypatch.setattr(safe_xml, "_READ_BYTES", 100)
    endless = io.BytesIO(b'<r><a x="' + b"y" * 100_000)
    with pytest.raises(BadAnnotation, match="longer one"):
        list(safe_xml.elements(endless, "u", "a"))
    assert endless.tell() < 2000


@given(st.binary(max_size=200) | st.text("<>/ab&;![]'\"= \n", max_size=80).map(str.encode))
def test_any_bytes_give_a_tree_or_one_error(data: bytes) -> None:
    for read in (lambda: safe_xml.parse(data, "u"), lambda: list(safe_xml.elements(io.BytesIO(data), "u", "a"))):
        try:
            read()
        except BadAnnotation as error:
            assert error.uri == "u"
