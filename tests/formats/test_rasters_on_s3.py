"""VOC, YOLO, Cityscapes and masks on object storage, and named in all ways that a local folder can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated_samples import placeless, sample

from rayseg import storage
from rayseg.formats import registry

FORMATS = ("voc", "yolo", "cityscapes", "masks")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("some source")
    (folder / "in").mkdir()
    for format in FORMATS:
        registry.write(sample(folder / "in"), str(folder / format), format)
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_on_object_storage(bucket: str, source: Path, format: str) -> None:
    local = registry.read(str(source / format))
    uri = f"{bucket}/sets/{format} set"
    registry.write(local, uri, format)
    assert registry.detect(uri) == format
    remote = registry.read(uri)
    assert (remote.categories, remote.info) == (local.categories, local.info)
    found = list(remote.images)
    assert list(map(placeless, found)) == list(map(placeless, local.images))
    assert all(storage.exists(str(image.uri)) for image in found)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_by_any_name(source: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(map(placeless, registry.read(str(source / format)).images))
    monkeypatch.chdir(source)
    for uri in (format, f"./{format}/", f"{source}/{format}/", (source / format).as_uri()):
        assert registry.detect(uri) == format
        found = list(registry.read(uri).images)
        assert list(map(placeless, found)) == expected
        assert all(storage.exists(str(image.uri)) for image in found)
