"""Output that appears whole or not at all, on disk; `test_upload.py` has object storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayseg.errors import StorageError, UsageError
from rayseg.formats.sink import output


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_appear_when_all_is_written(tmp_path: Path):
    target = tmp_path / "new/out"
    with output(str(target)) as sink:
        sink.put("a/b.txt", b"1")
        with sink.stream("c.txt", last=True) as file:
            file.write(b"2")
            file.write(b"3")
        assert not target.exists()
    assert files(tmp_path) == {"new/out/a/b.txt": b"1", "new/out/c.txt": b"23"}


def test_nothing_appears_and_nothing_is_left_after_an_error(tmp_path: Path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), output(str(tmp_path / "out")) as sink:
            sink.put("a.txt", b"1")
            raise error
    assert list(tmp_path.iterdir()) == []


def test_while_it_is_written_its_name_says_so(tmp_path: Path):
    with output(str(tmp_path / "out")) as sink:
        sink.put("a.txt", b"1")
        (only,) = tmp_path.iterdir()
        assert only.name.startswith(".out.unfinished-")


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path: Path):
    target = tmp_path / "out"
    target.mkdir()
    with output(str(target)) as sink:  # an empty folder is as good as none
        sink.put("old.txt", b"old")
    with pytest.raises(UsageError, match="expected a new or empty folder; give --overwrite"), output(str(target)):
        pass
    with pytest.raises(ValueError), output(str(target), overwrite=True) as sink:
        sink.put("new.txt", b"new")
        raise ValueError
    assert files(tmp_path) == {"out/old.txt": b"old"}
    with output(str(target), overwrite=True) as sink:
        sink.put("new.txt", b"new")
    assert files(tmp_path) == {"out/new.txt": b"new"}
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError, match="expected a new or empty folder"), output(str(tmp_path / "file")):
        pass
    with output(str(tmp_path / "file"), overwrite=True) as sink:
        sink.put("a", b"1")
    assert files(tmp_path / "file") == {"a": b"1"}


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a//b", "", "a/", "./a", "a\0b", "."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str):
    with output(str(tmp_path / "out")) as sink, pytest.raises(UsageError, match="not a name below the output folder"):
        sink.put(name, b"1")
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ["a", "a/b", "folder"])
def test_one_name_is_one_file(tmp_path: Path, name: str):
    with output(str(tmp_path / "out")) as sink:
        sink.put("a", b"1")
        sink.put("folder/b", b"2")
        with pytest.raises(UsageError, match="another file of the output is in its place"):
            sink.put(name, b"3")
    assert files(tmp_path / "out") == {"a": b"1", "folder/b": b"2"}


@pytest.mark.parametrize("name", ["x" * 300, "\ud800"])
def test_names_that_no_disk_takes_are_named(tmp_path: Path, name: str):
    with output(str(tmp_path / "out")) as sink, pytest.raises(StorageError, match="cannot be made"):
        sink.put(name, b"1")


def test_file_uris_are_paths(tmp_path: Path):
    with output((tmp_path / "a b").as_uri()) as sink:
        sink.put("c", b"1")
    assert files(tmp_path) == {"a b/c": b"1"}
