"""Drawn data: the same from the same seed, well formed, and readable by pycocotools."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rayseg.datasets.synthetic import CLASS_NAMES, draw, generate, write_coco


@pytest.fixture(scope="module")
def samples():
    return list(generate(40, seed=5, size_px=96))


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("image", "masks", "classes"))


def test_a_sample_depends_on_seed_and_index_alone(samples):
    assert same(samples[7], draw(5, 7, 96))
    assert same(samples[7], next(generate(1, seed=5, size_px=96, start=7)))
    assert not same(samples[7], draw(6, 7, 96))
    assert not same(samples[7], samples[8])


def test_samples_are_well_formed(samples):
    for sample in samples:
        n = len(sample.classes)
        assert sample.image.shape == (96, 96, 3) and sample.image.dtype == np.uint8
        assert sample.masks.shape == (n, 96, 96) and sample.masks.dtype == bool
        assert 1 <= n <= 3
        assert sample.masks.sum(axis=0).max() == 1  # what is hidden belongs to whoever hides it
        assert (sample.masks.sum(axis=(1, 2)) >= 40).all()
        assert ((sample.classes >= 0) & (sample.classes < len(CLASS_NAMES))).all()


def test_boxes_are_tight(samples):
    for sample in samples:
        for mask, (x1, y1, x2, y2) in zip(sample.masks, sample.boxes_xyxy().astype(int), strict=True):
            inside = mask[y1:y2, x1:x2]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_the_task_has_every_class_occlusion_holes_and_parts(samples):
    cv2 = pytest.importorskip("cv2")
    assert {int(c) for sample in samples for c in sample.classes} == set(range(len(CLASS_NAMES)))
    holes = parts = touching = 0
    for sample in samples:
        for i, mask in enumerate(sample.masks):
            outlines, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            inner = sum(int(parent >= 0) for parent in hierarchy[0, :, 3])
            holes += inner > 0
            parts += len(outlines) - inner > 1
            others = np.delete(sample.masks, i, axis=0).any(axis=0)
            touching += (others & cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()
    assert holes >= 15 and parts >= 15 and touching >= 40


def test_colour_does_not_give_the_class_away(samples):
    """The classes' mean colours lie much closer together than the objects of one class do."""
    colours = {c: [] for c in range(len(CLASS_NAMES))}
    for sample in samples:
        for mask, c in zip(sample.masks, sample.classes, strict=True):
            colours[int(c)].append(sample.image[mask].mean(axis=0))
    means = np.array([np.mean(of_class, axis=0) for of_class in colours.values()])
    within = np.mean([np.std(of_class, axis=0).mean() for of_class in colours.values()])
    assert means.std(axis=0).mean() < 0.5 * within


def test_pycocotools_reads_what_is_written(samples, tmp_path, capsys):
    content = write_coco(tmp_path, samples)
    coco = COCO(str(tmp_path / "instances.json"))
    assert json.loads((tmp_path / "instances.json").read_text()) == content
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    for image_id, sample in enumerate(samples):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert [a["category_id"] - 1 for a in annotations] == sample.classes.tolist()
        boxes = np.array([a["bbox"] for a in annotations])
        boxes[:, 2:] += boxes[:, :2]
        assert np.array_equal(boxes, sample.boxes_xyxy())
        for annotation, mask in zip(annotations, sample.masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    assert min(a["id"] for a in content["annotations"]) == 1  # pycocotools takes id 0 for "no match"


def test_written_images_are_the_drawn_ones(samples, tmp_path):
    content = write_coco(tmp_path, samples[:3])
    for entry, sample in zip(content["images"], samples, strict=False):
        with Image.open(tmp_path / "images" / entry["file_name"]) as picture:
            assert picture.format == "JPEG"
            difference = np.abs(np.asarray(picture).astype(int) - sample.image)
        assert (entry["height"], entry["width"]) == sample.image.shape[:2]
        assert difference.mean() < 6


@pytest.mark.parametrize("wrong", [{"size_px": 16}, {"max_objects": 0}])
def test_impossible_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        draw(0, 0, **wrong)
