"""labelme, CVAT and VIA data sets on object storage, and named in all ways that a local folder can be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from annotated_samples import by_name, placeless, sample

from rayseg import storage
from rayseg.formats import registry

FORMATS = ("labelme", "cvat", "via")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "in").mkdir()
    for format in FORMATS:
        registry.write(sample(folder / "in"), str(folder / format), format)
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_on_object_storage(bucket: str, source: Path, format: str):
    local = registry.read(str(source / format))
    uri = f"{bucket}/sets/{format} set"
    registry.write(local, uri, format)
    assert registry.detect(uri) == format
    remote = registry.read(uri)
    assert remote.categories == local.categories and remote.info == local.info
    assert list(map(placeless, remote.images)) == list(map(placeless, local.images))
    if format == "labelme":
        uris = {image.name: image.uri for image in remote.images}
        assert uris["sub folder/b.png"] == f"{uri}/sub folder/b.png"
        assert all(storage.exists(place) for place in uris.values() if place)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_by_any_name(source: Path, format: str, monkeypatch: pytest.MonkeyPatch):
    expected = by_name(registry.read(str(source / format)))
    monkeypatch.chdir(source)
    for uri in (format, f"./{format}/", f"{source}/{format}/", (source / format).as_uri()):
        found = by_name(registry.read(uri))
        assert {name: dataclasses.replace(image, uri=None) for name, image in found.items()} == {
            name: dataclasses.replace(image, uri=None) for name, image in expected.items()
        }
        assert all(storage.exists(image.uri) for image in found.values() if image.uri) or format != "labelme"
