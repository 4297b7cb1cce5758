"""The ground truth: masks as pycocotools makes them, boxes to the last bit, formats that COCO does not know."""

from __future__ import annotations

import json

import evaluation_scenes as scenes
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons
from rayseg.errors import UsageError
from rayseg.evaluation import evaluate
from rayseg.evaluation.columns import Rows
from rayseg.evaluation.spool import SHARD_IMAGES, Spool
from rayseg.evaluation.truth import read_truth
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.registry import read


def ring(*points):
    return np.array(points, np.float64)


def dataset(*images, categories=("cat", "dog")):
    return Dataset(tuple(Category(name) for name in categories), images)


def image(name, *annotations, hw=(40, 50), **kwargs):
    return AnnotatedImage(name, None, hw, tuple(annotations), **kwargs)


def columns_of(data, **kwargs):
    return read_truth(data, Faults(), **kwargs).spool.columns(0)


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_pycocotools_and_numbers_are_the_files(tmp_path, seed):
    truth, _ = scenes.scene(seed, images=12)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    read_back = read_truth(read(str(tmp_path / "truth.json"), "coco"), Faults())
    columns = read_back.spool.columns(0)
    by_rank = {one["id"]: rank for rank, one in enumerate(truth["images"])}
    expected = sorted(truth["annotations"], key=lambda one: by_rank[one["image_id"]])
    sizes = {one["id"]: (one["height"], one["width"]) for one in truth["images"]}
    for row, (found, one) in enumerate(zip(columns.strings(range(len(columns))), expected, strict=True)):
        assert found == scenes.as_rle(one["segmentation"], *sizes[one["image_id"]])["counts"]
        assert columns.areas[row] == one["area"] and columns.boxes_xywh[row].tolist() == one["bbox"]
        assert columns.flags[row] == one["iscrowd"]
    assert read_back.counts["truths"] == len(expected) and read_back.has_masks


def test_boxes_keep_the_decimals_of_the_file():
    rng = np.random.default_rng(0)
    for decimals in (1, 2, 3, 4):
        sides = np.round(rng.uniform(0, 600, (300, 4)), decimals)
        boxes = [(x, y, x + width, y + height) for x, y, width, height in sides.tolist()]
        data = dataset(image("a.jpg", *(Annotation(0, box) for box in boxes)))
        assert np.array_equal(columns_of(data).boxes_xywh, sides)


def test_masks_of_every_shape_and_their_areas():
    outline, hole = ring((5, 5), (25, 5), (25, 25), (5, 25)), ring((10, 10), (20, 10), (20, 20), (10, 20))
    rle = coco_mask.encode(np.asfortranarray(np.eye(40, 50, dtype=np.uint8)))
    data = dataset(
        image(
            "a.jpg",
            Annotation(0, shape=Polygons(((outline, hole),))),
            Annotation(0, shape=Polygons(((outline,), (ring((30, 2), (40, 2), (40, 12)),)))),
            Annotation(1, shape=Mask(rle["counts"], (40, 50))),
            Annotation(1, shape=Ellipse((20, 20), (6, 4))),
            Annotation(1, box_xyxy=(1, 2, 11, 7)),
            Annotation(1, box_xyxy=(1, 2, 11, 7), extras={"coco": {"area": 33}}),
        )
    )
    columns = columns_of(data)
    two_parts = scenes.as_rle([[5, 5, 25, 5, 25, 25, 5, 25], [30, 2, 40, 2, 40, 12]], 40, 50)
    assert columns.areas.tolist()[:3] == [300, float(coco_mask.area(two_parts)), 40]
    assert columns.areas[3] == pytest.approx(np.pi * 24, rel=0.1) and columns.areas.tolist()[4:] == [50, 33]
    assert columns.strings([1]) == [two_parts["counts"]] and columns.lengths[4] == 0
    assert columns.boxes_xywh[0].tolist() == [5, 5, 20, 20] and columns.boxes_xywh[2].tolist() == [0, 0, 40, 40]


def test_boxes_without_masks_are_passed_over_by_the_mask_metrics():
    """A truth that has a box alone among masks: what is found there is neither right nor wrong."""
    square = Polygons(((ring((5, 5), (25, 5), (25, 25), (5, 25)),),))
    data = dataset(image("a.jpg", Annotation(0, shape=square), Annotation(0, (30, 5, 45, 20))))
    masks = [
        scenes.as_rle([[5, 5, 25, 5, 25, 25, 5, 25]], 40, 50),
        scenes.as_rle([[30, 5, 45, 5, 45, 20, 30, 20]], 40, 50),
    ]
    results = [
        {"image_id": 0, "category_id": 0, "score": score, "segmentation": mask}
        for score, mask in zip((0.5, 0.9), masks, strict=True)
    ]
    metrics = evaluate(data, results, draws=0)
    assert metrics.segm["AP"] == metrics.boundary["AP"] == pytest.approx(1) and metrics.bbox["AP"] == pytest.approx(1)
    assert metrics.error_kinds["missed"]["count"] == 0 and metrics.classes[0].truths == 2
    assert metrics.panoptic.pq is None and "has no mask" in metrics.panoptic.reason


def test_boxes_alone_give_box_metrics_alone():
    data = dataset(image("a.jpg", Annotation(0, (5, 5, 25, 25)), Annotation(1, (30, 5, 45, 20))))
    metrics = evaluate(data, [{"image_id": "a.jpg", "category": "cat", "score": 0.5, "bbox": [5, 5, 20, 20]}], draws=0)
    assert metrics.segm is metrics.boundary is None and metrics.primary == "bbox"
    assert metrics.bbox["AP"] == pytest.approx(0.5) and metrics.panoptic.reason == "there are no masks"


def test_the_size_of_an_image_is_read_from_its_header_where_nobody_says_it(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    shape = Annotation(0, shape=Polygons(((ring((5, 5), (25, 5), (25, 25), (5, 25)),),)))
    found = read_truth(dataset(AnnotatedImage("a.png", str(tmp_path / "a.png"), None, (shape,))), Faults())
    assert found.image_hws.tolist() == [[40, 50]]
    with pytest.raises(BadAnnotation, match="size of its image is not known"):
        read_truth(dataset(AnnotatedImage("a.png", None, None, (shape,))), Faults())


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotation(0, shape=Points(np.ones((3, 2)))), "no area"),
        (Annotation(0, shape=Polygons(((ring((1, 1), (2, 2)),),))), "at least 3 points"),
        (Annotation(0, shape=Polygons(((ring((1, 1), (2, 2), (np.nan, 3)),),))), "finite"),
        (Annotation(0, shape=Mask(b"<", (3, 4))), r"found size \[3, 4\]"),
        (Annotation(0, shape=Mask(b"5", (40, 50))), "its RLE covers fewer"),
        (Annotation(0), "a box or a mask"),
    ],
)
def test_a_broken_truth_is_named_or_passed_over(annotation, message):
    data = dataset(image("a.jpg", Annotation(0, (1, 1, 5, 5)), annotation))
    with pytest.raises(BadAnnotation, match=f"a.jpg: annotation 1: .*{message}"):
        read_truth(data, Faults())
    faults = Faults("skip")
    assert read_truth(data, faults).counts["truths"] == 1 and faults.counts.total() == 1


def test_an_empty_mask_is_a_truth_that_nothing_finds():
    rle = coco_mask.encode(np.zeros((40, 50), np.uint8, order="F"))
    metrics = evaluate(dataset(image("a.jpg", Annotation(0, shape=Mask(rle["counts"], (40, 50))))), [], draws=0)
    assert metrics.counts["truths"] == 1 and metrics.segm["AP"] == 0


def test_a_split_alone():
    data = dataset(
        image("train/a.jpg", Annotation(0, (1, 1, 5, 5)), split="train"),
        image("val/a.jpg", Annotation(0, (1, 1, 5, 5)), split="val"),
    )
    results = [{"image_id": "val/a.jpg", "category": "cat", "score": 1.0, "bbox": [1, 1, 4, 4]}]
    assert evaluate(data, results, split="val", draws=0).bbox["AP"] == pytest.approx(1)
    assert evaluate(data, results, draws=0).bbox["AP"] < 0.6
    with pytest.raises(UsageError, match="no images of split 'test'"):
        evaluate(data, results, split="test")


def test_the_same_id_in_two_splits_means_neither():
    extras = {"coco": {"id": 7}}
    data = dataset(image("train/a.jpg", Annotation(0, (1, 1, 5, 5)), extras=extras), image("val/b.jpg", extras=extras))
    results = [
        {"image_id": 7, "category": "cat", "score": 1.0, "bbox": [1, 1, 4, 4]},
        {"image_id": "train/a.jpg", "category": "cat", "score": 1.0, "bbox": [1, 1, 4, 4]},
    ]
    metrics = evaluate(data, results, draws=0)
    assert metrics.bbox["AP"] == pytest.approx(1) and "image_id 7" in metrics.problems[0]


def test_shards_and_spilling_change_nothing(tmp_path, monkeypatch):
    from rayseg.evaluation import spool

    truth, results = scenes.scene(3, images=30)
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    def measured():
        return evaluate(read(str(tmp_path / "truth.json"), "coco"), results, draws=0, examples_each=3)

    whole = measured()
    for module in ("spool", "truth", "pipeline", "coco_results", "examples", "scored_dataset"):
        monkeypatch.setattr(f"rayseg.evaluation.{module}.SHARD_IMAGES", 4)
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (1000,))
    cut = measured()
    assert cut.measures == whole.measures and cut.error_kinds == whole.error_kinds
    assert np.array_equal(cut.confusion.matrix, whole.confusion.matrix) and cut.examples == whole.examples
    assert cut.calibration == whole.calibration and cut.classes == whole.classes


def test_a_spool_gives_back_what_it_got_from_disk_too():
    rng = np.random.default_rng(0)
    small, large = Spool(500), Spool()
    for _ in range(20):
        rows = Rows()
        for rank in rng.integers(0, 4 * SHARD_IMAGES, 15).tolist():
            rows.add(rank, rank % 3, (0.0, 1.0, 2.0, 3.0), rng.bytes(rng.integers(0, 9)), area=1.0, item=len(rows))
        for one in (small, large):
            one.add(rows.columns())
    assert small.on_disk and not large.on_disk
    for shard in range(5):
        one, other = small.columns(shard), large.columns(shard)
        assert one.strings(range(len(one))) == other.strings(range(len(other)))
        assert np.array_equal(one.images, other.images) and (np.diff(one.images) >= 0).all()
    folder = small._folder
    del small
    assert not folder.exists()
