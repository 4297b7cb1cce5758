"""Every ordered pair of formats: what is lost is reported, what is read and written in one format stays as it is."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from formats import pairs
from formats.pairs import Pair

from rayseg.annotations import AnnotatedImage, Annotation, Dataset
from rayseg.formats import registry
from rayseg.formats.losses import Losses

EXACT = {"coco", "labelme", "cvat", "via", "rayseg"}  # hold the mask of any annotation to the last pixel


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Pair]:
    folder = tmp_path_factory.mktemp("pairs")
    sources = pairs.write_sources(folder / "sources")
    formats = itertools.product(registry.FORMATS, repeat=2)
    return {(first, second): pairs.convert_pair(sources, first, second, folder) for first, second in formats}


@pytest.mark.parametrize(("first", "second"), itertools.product(registry.FORMATS, repeat=2))
def test_no_loss_is_missing_from_the_report(converted: dict[tuple[str, str], Pair], first: str, second: str):
    pair = converted[first, second]
    assert not pair.unreported, pair.details
    if second in EXACT:
        assert pair.mean_iou == 1.0
    if pair.mean_iou < 1.0:
        assert pair.reported["mask"]
        assert not pair.losses.lossless


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_format_gives_back_record_for_record_what_it_holds(converted: dict[tuple[str, str], Pair], name: str):
    pair = converted[name, name]
    assert pair.losses.lossless, pairs.report(pair)
    assert [placeless(image) for image in pair.target.images] == [placeless(image) for image in pair.source.images]
    assert pair.target.categories == pair.source.categories


def placeless(image: AnnotatedImage) -> AnnotatedImage:
    """Without the place of the image, which is another in another folder."""
    return dataclasses.replace(image, uri=None)


def test_the_comparison_notices_every_kind_of_loss(tmp_path: Path):
    source = pairs.write_sources(tmp_path, ["rayseg"])["rayseg"]
    bare = [AnnotatedImage(image.name, None, (1, 1)) for image in source.images]
    pair = Pair("rayseg", "none", source, Dataset((), bare[:-1]), Losses())
    pairs.compare(pair)
    assert pair.lost == {
        "class": 3, "class id": 3, "supercategory": 2, "class colour": 2, "image": 1, "split": 7, "image size": 7,
        "mask": 10, "polyline": 1, "points": 1, "box": 1,
    }  # fmt: skip
    assert pair.mean_iou == 0.0
    assert pair.unreported == pair.lost
    stripped = [
        dataclasses.replace(
            image,
            annotations=tuple(Annotation(one.category, shape=one.shape) for one in image.annotations),
            attributes={},
        )
        for image in source.images
    ]
    pair = Pair("rayseg", "none", source, Dataset(source.categories, stripped), Losses())
    pairs.compare(pair)
    assert pair.lost == {"attribute": 6, "group": 2, "crowd flag": 1, "score": 1, "box": 3, "extra": 1}


@pytest.mark.parametrize("name", registry.FORMATS)
@pytest.mark.parametrize("source", ["coco_small", "kudzu/val/via_region_data.json"])
def test_a_few_real_images_go_through_every_format_to_pycocotools(
    shared_data: Path, tmp_path: Path, name: str, source: str
):
    dataset = registry.read(str(shared_data / source), on_error="skip")
    dataset = dataclasses.replace(dataset, images=list(itertools.islice(dataset.images, 6)))
    pair = pairs.through(dataset, name, tmp_path)
    assert not pair.unreported, pair.details
    assert not pair.reported["mask"] or name not in EXACT
    assert pair.mean_iou == 1.0 or name not in EXACT
    assert pairs.pycocotools_agrees(tmp_path / f"{name}-coco") > 0
