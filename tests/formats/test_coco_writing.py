"""COCO files are written: every record comes back, pycocotools loads all, what is lost is said."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
from formats.coco_files import SQUARE, loaded, loaded_results, read, write
from formats.sample_records import CATEGORIES, HW, annotations, attributes, mask_of, sample_dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Polygons
from rayseg.formats import shapes


def test_everything_comes_back_and_pycocotools_draws_it(tmp_path: Path):
    dataset = sample_dataset(tmp_path)
    losses = write(dataset, tmp_path / "out")
    assert losses.lossless, losses.rows()
    again = read(tmp_path / "out", tmp_path)
    assert again.categories == CATEGORIES
    found = {image.name: image for image in again.images}
    truths = {split: loaded(tmp_path / f"out/annotations/instances_{split}.json") for split in ("train", "val")}
    for image in dataset.images:
        annotations = [stripped(one) for one in found[image.name].annotations]
        assert annotations == [stripped(one) for one in image.annotations]
        for ours, one in zip(image.annotations, found[image.name].annotations, strict=True):
            theirs = truths[image.split or ""].anns[one.extras["coco"]["id"]]
            if theirs["segmentation"] and not isinstance(ours.shape, Polygons):
                drawn = truths[image.split or ""].annToMask(theirs)
                assert np.array_equal(drawn, shapes.rle_of(ours, HW).decode(0))
    runs = [one for truth in truths.values() for one in truth.anns.values() if one["iscrowd"]]
    assert all(isinstance(one["segmentation"]["counts"], list) for one in runs) and runs


def stripped(annotation: Annotation) -> Annotation:
    """Without the ids and areas that COCO gives, and with the box that a shape has."""
    extras = {key: value for key, value in annotation.extras.items() if key != "coco"}
    return dataclasses.replace(annotation, extras=extras, box_xyxy=shapes.box_of(annotation))


names = st.from_regex(r"[a-zé ]{1,4}(/[a-z]{1,3})?\.(jpg|png)", fullmatch=True)
images_of_any_kind = st.builds(
    AnnotatedImage,
    name=names,
    image_hw=st.just((9, 7)),
    annotations=st.lists(annotations((9, 7), 2), max_size=4).map(tuple),
    split=st.none() | st.sampled_from(["train", "val", "train2017", "a/b", "é%", "x 2014", "default"]),
    attributes=attributes,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(images_of_any_kind, max_size=4, unique_by=lambda image: image.name))
@example([])
def test_any_record_comes_back(tmp_path: Path, images: list[AnnotatedImage]):
    categories = (Category("a", 5), Category("b", None, "c", (1, 2, 3), {"via": {"x": 1}}))
    losses = write(Dataset(categories, images, {"elsewhere": {"a": 1}}), tmp_path / "out")
    assert losses.lossless, losses.rows()
    again = read(tmp_path / "out")
    assert again.categories == (categories[0], dataclasses.replace(categories[1], source_id=1))
    assert again.info["elsewhere"] == {"a": 1}
    found = {image.name: image for image in again.images}
    assert found.keys() == {image.name for image in images}
    for image in images:
        one = found[image.name]
        assert (one.split, one.image_hw, one.attributes) == (image.split, image.image_hw, image.attributes)
        assert [exact(a) for a in one.annotations] == [exact(a) for a in image.annotations]
    second = tmp_path / "second"
    assert write(again, second).lossless
    assert list(read(second).images) == list(again.images)
    for path in (tmp_path / "out").glob("annotations/*.json"):
        loaded(path)


def exact(annotation: Annotation) -> Annotation:
    return dataclasses.replace(annotation, extras={k: v for k, v in annotation.extras.items() if k != "coco"})


def test_what_another_tool_changed_counts(tmp_path: Path):
    write(sample_dataset(tmp_path), tmp_path / "out")
    path = tmp_path / "out/annotations/instances_train.json"
    value = json.loads(path.read_text())
    dense = np.zeros(HW, np.uint8)
    dense[1:3, 1:4] = 1
    edited = next(one for one in value["annotations"] if "polygons" in one.get("rayseg", {}).get("shape", {}))
    edited["segmentation"]["counts"] = coco_mask.encode(np.asfortranarray(dense))["counts"].decode()
    path.write_text(json.dumps(value))
    (found,) = [a for i in read(path).images for a in i.annotations if a.extras["coco"]["id"] == edited["id"]]
    assert found.shape == mask_of(dense)


def test_repeated_ids_are_made_new_and_said(tmp_path: Path):
    box = Annotation(0, (0.0, 0.0, 1.0, 1.0), extras={"coco": {"id": 5, "area": 3}})
    images = [AnnotatedImage(name, None, (4, 4), (box, box), extras={"coco": {"id": 1}}) for name in ("a.jpg", "b.jpg")]
    losses = write(Dataset((Category("x"),), images), tmp_path / "out")
    assert [(kind, tally.count) for (kind, _), tally in losses.approximations.items()] == [("id", 4)]
    theirs = loaded(tmp_path / "out/annotations/instances_default.json")
    assert len(theirs.anns) == 4 and len(theirs.imgs) == 2


def test_an_embedded_image_is_written_and_found_again(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("L", (6, 5)).save(buffer, "PNG")
    image = AnnotatedImage("x/a.png", None, (5, 6), data=buffer.getvalue())
    assert write(Dataset((), [image]), tmp_path / "out").lossless
    (found,) = read(tmp_path / "out").images
    assert found.uri is not None and Path(found.uri).read_bytes() == image.data


def test_what_has_no_place_is_said(tmp_path: Path):
    hole = Polygons((tuple(np.reshape(SQUARE, (4, 2)) * scale for scale in (1.0, 0.5)),))
    images = [
        AnnotatedImage("unsized.jpg", None, None, (Annotation(0, shape=hole), Annotation(0, (1.0, 1.0, 2.0, 2.0)))),
        AnnotatedImage("../out.jpg", None, (9, 9), (Annotation(0, (1.0, 1.0, 2.0, 2.0)), Annotation(0, shape=hole))),
        AnnotatedImage("a.jpg", None, (9, 9), (Annotation(0, shape=mask_of(np.ones((5, 5)))),)),
        AnnotatedImage("b.jpg", None, (9, 9), (Annotation(0, (1.0, 1.0, 2.0, 2.0), attributes={"a": b"x"}),)),
    ]
    losses = write(Dataset((Category("x"),), images), tmp_path / "out")
    dropped = {(kind, reason): tally.count for (kind, reason), tally in losses.drops.items()}
    assert sorted((kind, count) for (kind, _), count in dropped.items()) == [
        ("attribute", 1), ("box", 1), ("image", 1), ("mask", 1), ("mask", 1), ("mask", 1),
    ]  # fmt: skip
    assert len(loaded(tmp_path / "out/annotations/instances_default.json").anns) == 2


def test_scores_are_also_written_as_results(tmp_path: Path):
    write(sample_dataset(tmp_path), tmp_path / "out")
    truth = loaded(tmp_path / "out/annotations/instances_val.json")
    results = json.loads((tmp_path / "out/results/val.json").read_text())
    assert [one["score"] for one in results] == [0.75]
    assert len(loaded_results(truth, results).anns) == 1
    assert not (tmp_path / "out/results/train.json").exists()
