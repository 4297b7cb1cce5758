"""Every reader on damaged data sets: only rayseg's own errors, no hang, nothing outside the data set's folder is opened,
and what does come out is sound. Every writer on hostile names: all or nothing, and nothing beside its folder.

RAYSEG_FUZZ_EXAMPLES=2000 tries more, and other ones each time.
"""

import contextlib
import functools
import os
import shutil
import signal
import sys
from dataclasses import replace

import pytest
from formats.fuzzing import OUTSIDE, damage, hostile_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rayseg.annotations import AnnotatedImage
from rayseg.errors import RaysegError
from rayseg.formats import registry, shapes

EXAMPLES = int(os.environ.get("RAYSEG_FUZZ_EXAMPLES", "15"))
HANG_S = 60
PIXELS = "pixels-of-the-source"
STORE_URIS = ("rayseg", "masks", "cityscapes")  # their files say where images are that do not lie beside them
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="RAYSEG_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
EVENTS = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir")
_opened: list[list[str]] = []  # while someone watches: the list of what is opened


def _watch(event, arguments):
    if _opened and event in EVENTS and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened[-1].append(os.path.abspath(os.fsdecode(arguments[0])))


sys.addaudithook(_watch)


class Hang(BaseException):
    """Not an Exception, so that no reader can catch it."""


@contextlib.contextmanager
def watched(root):
    """Fails on whatever takes longer than `HANG_S`, or opens a file beside `root` or in /etc."""

    def hang(*_):
        raise Hang(f"more than {HANG_S} seconds")

    before = sorted(str(path) for path in root.parent.rglob("*"))
    _opened.append([])
    old = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        opened = _opened.pop()
    beside = [path for path in opened if path.startswith((str(root.parent) + "/", "/etc/passwd"))]
    assert [path for path in beside if path != str(root) and not path.startswith(str(root) + "/")] == []
    assert sorted(str(path) for path in root.parent.rglob("*")) == before


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function of a format: the files of a data set as its own writer leaves them, bytes by relative name."""

    @functools.cache
    def files_of(name):
        dataset = hostile_dataset(tmp_path_factory.mktemp(PIXELS))
        root = tmp_path_factory.mktemp(name) / "set"
        registry.write(dataset, str(root), name)
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    return files_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a secret beside the place of the data set."""
    folder = tmp_path_factory.mktemp("place")
    (folder / OUTSIDE).mkdir()
    Image.new("RGB", (32, 24)).save(folder / OUTSIDE / "secret.png")
    (folder / OUTSIDE / "secret.json").write_text('{"images": [], "annotations": [], "categories": []}')
    return folder / "set"


def lay_out(root, files):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, data in files.items():
        if data is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def read_all(root, name, on_error):
    """The images, or the error of rayseg's own that stopped them."""
    try:
        dataset = registry.read(str(root), name, on_error=on_error)
        images = list(dataset.images)
    except RaysegError as error:
        assert str(error)
        return error
    check(name, dataset, images, root)
    return images


def check(name, dataset, images, root):
    """What a reader lets through is sound: the rest of the package relies on that."""
    names = [image.name for image in images]
    assert len(set(names)) == len(names)
    assert len(set(dataset.class_names)) == len(dataset.class_names)
    for image in images:
        parts = image.name.split("/")
        assert image.name and ".." not in parts and "" not in parts and "\0" not in image.name
        if image.uri is not None and "://" not in image.uri:
            below = os.path.abspath(image.uri).startswith(str(root))
            assert below or PIXELS in image.uri or (name in STORE_URIS and os.path.isabs(image.uri))
        assert image.image_hw is None or shapes.hw_fault(image.image_hw) is None
        for one in image.annotations:
            assert 0 <= one.category < len(dataset.categories)
            assert shapes.fault(one, image.image_hw) is None
            assert one.score is None or one.score == one.score


def test_the_watch_sees_what_it_is_for(place, monkeypatch):
    lay_out(place, {"a.txt": b""})
    for beside in (place.parent / OUTSIDE / "secret.json", "/etc/passwd"):
        with pytest.raises(AssertionError), watched(place), open(beside):
            pass
    with pytest.raises(AssertionError), watched(place):
        (place / "new.txt").touch()
    monkeypatch.setitem(globals(), "HANG_S", 0.01)
    with pytest.raises(Hang), watched(place):
        while True:
            pass


@pytest.mark.parametrize("name", registry.FORMATS)
def test_what_is_written_reads_back(name, written, place):
    lay_out(place, written(name))
    for on_error in ("raise", "skip"):
        with watched(place):
            images = read_all(place, name, on_error)
        assert len(images) == 2 and all(image.annotations for image in images)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("name", registry.FORMATS)
def test_damaged_data_sets(name, on_error, written, place):
    @SETTINGS
    @given(damage(written(name)))
    def run(changed):
        lay_out(place, written(name) | changed)
        with watched(place):
            read_all(place, name, on_error)

    run()


@pytest.mark.parametrize("name", registry.FORMATS)
def test_arbitrary_bytes_under_the_formats_names(name, written, place):
    """Also the files of every other format under this one's names."""
    contents = sorted({data for other in registry.FORMATS for data in written(other).values() if len(data) < 100_000})

    @SETTINGS
    @given(st.data())
    def run(data):
        some = st.one_of(st.binary(max_size=300), st.sampled_from(contents))
        lay_out(place, {file: data.draw(some) for file in written(name)})
        with watched(place):
            read_all(place, name, data.draw(st.sampled_from(["raise", "skip"])))

    run()


@pytest.mark.parametrize("name", registry.FORMATS)
def test_detection_on_damaged_data_sets(name, written, place):
    @SETTINGS
    @given(damage(written(name)))
    def run(changed):
        lay_out(place, written(name) | changed)
        with watched(place), contextlib.suppress(RaysegError):
            assert registry.detect(str(place)) in registry.FORMATS

    run()


NAMES = [
    f"../{OUTSIDE}/new.png",
    "/new.png",
    "a/../../new.png",
    "a//b.png",
    "..",
    ".",
    "",
    "a\0b.png",
    "a\\..\\..\\b.png",
    "x" * 300 + ".png",
    "\ud800.png",
    "new\nline.png",
    "C:/x.png",
    "ok.png/../../y.png",
]


@pytest.mark.parametrize("image_name", NAMES)
@pytest.mark.parametrize("name", registry.FORMATS)
def test_writers_on_hostile_names(name, image_name, tmp_path):
    target = tmp_path / "parent" / "target"
    pixels = tmp_path / "pixels"
    pixels.mkdir()
    target.parent.mkdir()
    dataset = hostile_dataset(pixels)
    first, *others = dataset.images
    images = [replace(first, name=image_name), *others]
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with contextlib.suppress(RaysegError):
        registry.write(replace(dataset, images=images), str(target), name)
    after = [str(path) for path in sorted(tmp_path.rglob("*")) if path != target and target not in path.parents]
    assert after == before


@pytest.mark.parametrize("class_name", ["../x", "", "a\0b", "\ud800", "a\nb", "<b>", "x" * 5000, "a,b;c", "{}", "null"])
@pytest.mark.parametrize("name", registry.FORMATS)
def test_writers_on_hostile_class_names(name, class_name, tmp_path):
    """Written so that it reads back under that name, refused, or reported."""
    pixels = tmp_path / "pixels"
    pixels.mkdir()
    dataset = hostile_dataset(pixels)
    dataset = replace(dataset, categories=(replace(dataset.categories[0], name=class_name), dataset.categories[1]))
    try:
        losses = registry.write(dataset, str(tmp_path / "target"), name)
    except RaysegError:
        return
    back = registry.read(str(tmp_path / "target"), name)
    assert list(back.images) and isinstance(next(iter(back.images)), AnnotatedImage)
    assert class_name in back.class_names or not losses.lossless
