"""Names that may and may not be followed below a data set's root."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayseg.formats import data_paths


@pytest.mark.parametrize(
    ("name", "folder", "windows", "expected"),
    [
        ("a.jpg", "", False, "a.jpg"),
        ("./x//a.jpg", "", False, "x/a.jpg"),
        ("../images/a.jpg", "labels", False, "images/a.jpg"),
        ("..\\images\\a.jpg", "labels", True, "images/a.jpg"),
        ("a\\b.jpg", "", False, "a\\b.jpg"),
        ("x/../a.jpg", "", False, "a.jpg"),
        ("ä 1.jpg", "b", False, "b/ä 1.jpg"),
    ],
)
def test_names_below_the_root(name: str, folder: str, windows: bool, expected: str):
    assert data_paths.inside(name, folder, windows=windows) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        ".",
        "..",
        "../a",
        "a/../../b",
        "/etc/passwd",
        "C:/a",
        "c:a",
        "s3://b/a",
        "http://h/a",
        "a\0b",
        "x" * 5000,
        "//h/a",
    ],
)
def test_names_that_are_refused(name: str):
    with pytest.raises(ValueError, match="expected"):
        data_paths.inside(name)
    with pytest.raises(ValueError, match="expected"):
        data_paths.inside(name.replace("/", "\\"), windows=True)
    assert not data_paths.is_writable(name)


@settings(deadline=None)
@given(st.text(max_size=12), st.sampled_from(["", "a", "a/b"]), st.booleans())
def test_no_name_leads_out(name: str, folder: str, windows: bool):
    try:
        path = data_paths.inside(name, folder, windows=windows)
    except ValueError:
        return
    assert not path.startswith(("/", "../")) and path not in ("", ".", "..") and posixpath.normpath(path) == path


def test_folders_of_uris():
    uris = ("a.json", "x/a.json", "/a.json", "/x/a.json", "s3://b/x/a.json", "file:///x/a.json")
    assert [data_paths.folder_of(uri) for uri in uris] == [".", "x", "/", "/x", "s3://b/x", "file:///x"]


def test_first_folders_that_are_splits():
    names = ("train/a.jpg", "Val/x/a.jpg", "train.jpg", "images/train/a.jpg", "test/a")
    assert [data_paths.split_of(name) for name in names] == ["train", "Val", None, None, "test"]
