"""Tests that try to get out of the configured prefixes."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rayseg.errors import UsageError
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.problems import Problem

S3 = Prefixes(read=["s3://photos/2026", "s3://open"], write=["s3://labels/"])


def refusal(prefixes: Prefixes, uri: str, access: str = "readable") -> Problem:
    with pytest.raises(Problem) as caught:
        getattr(prefixes, access)(uri)
    return caught.value


@pytest.mark.parametrize(
    "uri",
    ["s3://photos/2026/a.jpg", "s3://photos/2026", "s3://photos/2026/", "s3://open/x y#1?%20.jpg", "S3://open/a.jpg",
     "s3://photos/2026/**/*.jpg", "s3://open/a//b.jpg", "s3://open/..jpg", "s3://open/a..b/...x"],
)  # fmt: skip
def test_what_lies_below_a_prefix_may_be_read(uri):
    assert S3.readable(uri) == "s3" + uri[2:]


@pytest.mark.parametrize(
    "uri",
    ["s3://photos-evil/2026/a.jpg", "s3://photos/2026-evil/a.jpg", "s3://photos/20261/a.jpg", "s3://photos/a.jpg", "s3://photos",
     "s3://PHOTOS/2026/a.jpg", "s3://other/photos/2026/a.jpg", "s3://opén/a", "s3://open.evil.example/a", "s3://labels/a",
     "/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "etc/passwd", "~/.ssh/id_rsa",
     "http://169.254.169.254/latest/meta-data/iam/", "https://photos/2026/a.jpg", "gs://photos/2026/a.jpg",
     "ftp://photos/2026/a", "s3a://photos/2026/a.jpg", "//photos/2026/a.jpg", "s3:/photos/2026/a.jpg", "ｓ3://open/a",
     "data:image/png;base64,AAAA", "s3//open/a", "hdfs://169.254.169.254/x"],
)  # fmt: skip
def test_what_only_looks_like_it_is_refused(uri):
    assert refusal(S3, uri).status == 403


@pytest.mark.parametrize(
    "uri",
    ["s3://photos/2026/../secret", "s3://photos/2026/./a", "s3://photos/2026/..", "s3://photos/2026/%2e%2e/secret",
     "s3://photos/2026/.%2E/secret", "s3://photos/2026/%252e%252e/secret", "s3://photos/2026\\..\\secret",
     "s3://photos/2026/a\r\nX-Evil: 1", "s3://photos/2026/a\x00.jpg", "s3://user:pass@photos/2026/a", "s3://photos:80/2026/a",
     "s3:///2026/a", "s3://", "", "s3://open/" + "a" * 3000, "gs://open/a?endpoint_override=http://169.254.169.254",
     "gs://open/a#b", "s3://%6fpen/a"],
)  # fmt: skip
def test_spellings_that_others_might_read_otherwise_are_refused(uri):
    assert refusal(S3, uri).status == 422


def test_reading_and_writing_are_apart():
    assert S3.writable("s3://labels/run-1") == "s3://labels/run-1"
    assert refusal(S3, "s3://labels/run-1").kind == "uri-not-allowed"
    assert refusal(S3, "s3://photos/2026/out", "writable").kind == "uri-not-allowed"
    assert "read_prefixes is empty" in refusal(Prefixes(), "s3://open/a").detail


def test_local_paths_need_a_local_prefix_and_links_do_not_lead_out(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in-evil"
    inside.mkdir()
    outside.mkdir()
    (inside / "a b.jpg").touch()
    (outside / "secret").touch()
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (tmp_path / "alias").symlink_to(inside)
    allowed = Prefixes(read=[str(inside)])
    real = os.path.realpath(inside / "a b.jpg")
    assert allowed.readable(str(inside / "a b.jpg")) == real
    assert allowed.readable(f"file://{inside}/a%20b.jpg") == real
    assert allowed.readable(str(tmp_path / "alias" / "a b.jpg")) == real  # another name of what is allowed
    for uri in ("link", "folder/secret", "folder"):
        assert refusal(allowed, str(inside / uri)).status == 403
    assert refusal(allowed, str(outside / "secret")).status == 403
    assert refusal(allowed, f"{inside}/../in-evil/secret").status == 422
    assert refusal(allowed, f"file://{inside}/%2e%2e/in-evil/secret").status == 422
    assert refusal(allowed, f"file://evil.example{inside}/a%20b.jpg").status == 422
    for hidden in ("%00", "a%0ab.jpg", "a%5cb.jpg"):
        assert refusal(allowed, f"file://{inside}/{hidden}").kind == "bad-uri"
    (inside / "a\nb.jpg").touch()
    (inside / "to-two-lines").symlink_to(inside / "a\nb.jpg")
    assert refusal(allowed, str(inside / "to-two-lines")).kind == "bad-uri"


@pytest.mark.parametrize(
    "prefix", ["http://host/", "https://host", "ftp://x/y", "s3://", "s3://a/../b", "s3://a:1/", ""]
)
def test_prefixes_that_could_not_be_enforced_are_refused_at_the_start(prefix):
    with pytest.raises(UsageError, match="write_prefixes"):
        Prefixes(write=[prefix])


@given(
    st.text(st.sampled_from("s3:/photsen.%2e\\evil@#?a \n"), max_size=40).map(lambda rest: "s3://photos/2026" + rest)
)
@example("s3://photos/2026/")
def test_whatever_is_allowed_lies_below_the_prefix(uri):
    try:
        found = S3.readable(uri)
    except Problem as problem:
        assert problem.status in (403, 422)
        return
    bucket, _, key = found.removeprefix("s3://").partition("/")
    segments = key.split("/")
    assert (bucket, segments[0]) == ("photos", "2026")
    assert not {".", ".."} & set(segments)
