"""Formats by name, and by what lies at a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from formats.sample_records import sample_dataset

import rayseg
from rayseg import cli
from rayseg.errors import ObjectNotFound, UsageError
from rayseg.formats import registry
from rayseg.formats.faults import BadAnnotation


@pytest.mark.parametrize("name", registry.FORMATS)
def test_every_format_knows_what_it_wrote(tmp_path: Path, name: str):
    dataset = sample_dataset(tmp_path)
    rayseg.write(dataset, str(tmp_path / "out"), name)
    assert registry.detect(str(tmp_path / "out")) == name
    images = list(rayseg.read(str(tmp_path / "out")).images)
    assert len(images) == len(dataset.images)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="new or empty"):
        rayseg.write(dataset, str(tmp_path / "out"), name)
    rayseg.write(dataset, str(tmp_path / "out"), name, overwrite=True)


def test_names_are_those_of_the_command_line():
    assert ", ".join(registry.FORMATS) == cli._FORMATS


def test_an_unknown_format_is_named_with_those_there_are():
    with pytest.raises(UsageError, match="'cocoo': expected one of coco, voc, yolo"):
        registry.format_of("cocoo")


def test_what_is_none_or_nothing_is_said(tmp_path: Path):
    with pytest.raises(ObjectNotFound):
        registry.detect(str(tmp_path / "missing"))
    with pytest.raises(ObjectNotFound, match="nothing is there"):
        registry.detect(str(tmp_path))
    (tmp_path / "a.txt").write_text("hello")
    for uri in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(UsageError, match="looks like no known format; say which with --from"):
            registry.detect(str(uri))


def test_two_formats_at_one_place_are_for_the_user_to_choose(tmp_path: Path):
    for name in ("coco", "rayseg"):
        rayseg.write(sample_dataset(tmp_path), str(tmp_path / name), name)
    both = tmp_path / "both"
    (tmp_path / "coco").rename(both)
    (tmp_path / "rayseg/data").rename(both / "data")
    with pytest.raises(UsageError, match="looks like coco and rayseg; say which with --from"):
        registry.detect(str(both))
    assert len(list(rayseg.read(str(both), "coco").images)) == len(list(rayseg.read(str(both), "rayseg").images))


def test_on_error_is_handed_down(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"images": [{"id": 1, "file_name": "/x"}], "annotations": []}')
    with pytest.raises(BadAnnotation):
        list(rayseg.read(str(tmp_path)).images)
    dataset = rayseg.read(str(tmp_path), on_error="skip")
    assert list(dataset.images) == [] and dataset.faults.counts == {"image": 1}
