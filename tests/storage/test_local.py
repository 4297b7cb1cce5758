"""Local files alone: order, links, odd names, what a killed writer leaves, and the errors of a file system."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayseg import storage
from rayseg.errors import AccessDenied, Conflict, ObjectNotFound, StorageError

NAMES = st.text(st.sampled_from("ab. -é😀"), min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))


def listed(prefix: Path | str) -> list[str]:
    return [entry.uri for page in storage.list_pages(str(prefix)) for entry in page]


@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_is_that_of_s3(tmp_path_factory: pytest.TempPathFactory, keys: set[str]):
    """A flat sort of whole keys by their UTF-8 bytes, which a walk through folders has to reproduce."""
    folder = tmp_path_factory.mktemp("order")
    files = [key for key in keys if not any(other.startswith(key + "/") for other in keys)]
    for key in files:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(b"")
    assert listed(folder) == [f"{folder}/{key}" for key in sorted(files, key=str.encode)]


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"12")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "b.jpg").write_bytes(b"123")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "linked").symlink_to(outside)
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (outside / "back").symlink_to(tmp_path / "real")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone")
    found = [
        (Path(e.uri).relative_to(tmp_path).as_posix(), e.size_bytes)
        for p in storage.list_pages(str(tmp_path))
        for e in p
    ]
    assert found == [
        ("dangling.jpg", 0),
        ("linked.jpg", 2),
        ("linked/b.jpg", 3),
        ("linked/back/a.jpg", 2),
        ("real/a.jpg", 2),
    ]
    with pytest.raises(ObjectNotFound):
        storage.read(f"{tmp_path}/dangling.jpg")


def test_plain_paths_come_out_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert listed("photos") == listed("./photos/") == [f"{tmp_path}/photos/a.jpg"]
    assert [e.uri for page in storage.glob_pages("ph*/*.jpg") for e in page] == [f"{tmp_path}/photos/a.jpg"]


def test_a_name_that_is_not_utf8_can_be_listed_and_read(tmp_path: Path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"latin")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (uri,) = listed(tmp_path)
    assert uri.encode()  # so Parquet and JSON can hold it
    assert storage.read(uri) == b"latin"
    assert [e.uri for page in storage.glob_pages(f"{tmp_path}/*.jpg") for e in page] == [uri]


@pytest.mark.parametrize("form", ["file://{}/a%20b", "file://localhost{}/a%20b", "FILE://{}/a%20b", "file:{}/a%20b"])
def test_spellings_of_file_uris(tmp_path: Path, form: str):
    (tmp_path / "a b").write_bytes(b"1")
    assert storage.read(form.format(tmp_path)) == b"1"


def test_colons_do_not_make_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    storage.write("s3:photo.jpg", b"1")
    assert (tmp_path / "s3:photo.jpg").read_bytes() == b"1"


def test_only_regular_files_are_listed_and_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(os.path.relpath(tmp_path / "socket"))
        assert listed(tmp_path) == []
    for verb in (storage.read, storage.open, storage.size):
        with pytest.raises(StorageError, match="found a pipe"):
            verb(f"{tmp_path}/pipe")


def test_a_missing_folder_is_an_error_and_an_empty_one_is_not(tmp_path: Path):
    with pytest.raises(ObjectNotFound) as caught:
        listed(tmp_path / "absent")
    assert str(tmp_path / "absent") in str(caught.value)
    assert listed(tmp_path) == []


def test_folders_and_files_in_the_wrong_place(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    for verb in (storage.read, storage.open, storage.size, lambda uri: storage.write(uri, b"")):
        with pytest.raises(StorageError, match="expected a file, found a folder"):
            verb(f"{tmp_path}/folder")
    for verb in (lambda uri: storage.write(uri, b""), lambda uri: storage.create(uri, b""), storage.check_output):
        with pytest.raises(StorageError, match="file"):
            verb(f"{tmp_path}/file/below")
    assert not storage.exists(f"{tmp_path}/file/below")
    assert (tmp_path / "file").read_bytes() == b"1"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[str]:
    """A folder that may not be entered; for root, whom nothing stops, as seen by nobody."""
    tmp_path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield str(tmp_path)
    if is_root:
        os.seteuid(0)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "verb",
    [storage.check_output, lambda uri: storage.write(uri + "/x", b""), listed, lambda uri: storage.read(uri + "/x")],
)
def test_denied_access_is_named(closed: str, verb: Callable[[str], object]):
    with pytest.raises(AccessDenied, match="Permission denied"):
        verb(closed)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path):
    """A child limited to files of 1000 bytes stands in for a full disk: its write fails half-way."""
    code = (
        "import resource, signal, sys\n"
        "from rayseg import errors, storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for verb in (storage.write, storage.create):\n"
        "    try: verb(sys.argv[1], b'x' * 5000)\n"
        "    except errors.StorageError as error: print(type(error).__name__, error)\n"
    )
    child = [sys.executable, "-c", code, f"{tmp_path}/x"]
    done = subprocess.run(child, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"StorageError {tmp_path}/x: File too large"] * 2, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_to_see(tmp_path: Path):
    """Killed where it has written the bytes and not yet given them their name."""
    code = (
        "import os, signal, sys\n"
        "from rayseg import storage\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.write(sys.argv[1], b'half' * 1000)\n"
    )
    (tmp_path / "x").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/x"], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert listed(tmp_path) == [f"{tmp_path}/x"]
    assert storage.read(f"{tmp_path}/x") == b"old"
    storage.write(f"{tmp_path}/x", b"new")
    assert storage.read(f"{tmp_path}/x") == b"new"


def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    version = storage.create(f"{tmp_path}/x", b"1")
    assert storage.read_versioned(f"{tmp_path}/x")[:2] == (b"1", version)
    with pytest.raises(Conflict, match="found one"):
        storage.create(f"{tmp_path}/x", b"2")
    assert storage.read(f"{tmp_path}/x") == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_name_that_no_file_can_have_is_not_found(tmp_path: Path):
    uri = f"{tmp_path}/\ud800.png"
    assert not storage.exists(uri)
    for verb in (storage.read, storage.size):
        with pytest.raises(ObjectNotFound, match="no file can have this name"):
            verb(uri)
    with pytest.raises(ObjectNotFound, match="no file can have this name"):
        storage.write(uri, b"1")
