"""Inspection: counts that agree with counting by hand, and every kind of finding on data made to have it."""

import json
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
from in_memory_data import boxed, dataset, square
from PIL import Image

from rayseg import storage
from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets import image_checks
from rayseg.datasets.findings import KINDS, MAX_EXAMPLES, annotation_findings
from rayseg.datasets.inspection import inspect
from rayseg.datasets.statistics import Histogram, Statistics
from rayseg.datasets.synthetic import draw
from rayseg.errors import Unreachable
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.kernels import encode

HW = (100, 200)


def mask(pixels):
    return Annotation(0, shape=Mask(encode(np.asarray(pixels, bool)[None]).strings()[0], np.shape(pixels)))


def polygon(*rings, **more):
    return Annotation(0, shape=Polygons((tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in rings),)), **more)


def kinds(*annotations, image_hw=HW):
    found = annotation_findings(AnnotatedImage("a.jpg", annotations=annotations), image_hw)
    return [(one.kind, one.item) for one in found]


# ---- annotations


def test_sound_annotations_have_no_findings():
    line = np.array([(1, 1), (5, 1)], np.float64)
    hole = [(2, 2), (4, 2), (4, 4), (2, 4)]
    sound = [
        square(0, 0, 100),
        polygon([(0, 0), (9, 0), (9, 9), (0, 9)], hole),
        mask(np.eye(*HW)),
        boxed(box=(0, 0, 200, 100)),
        boxed(box=(-0.4, 0, 200.4, 100)),
        Annotation(0, shape=Ellipse((50, 50), (9, 4), 45)),
        Annotation(0, shape=Polyline(line)),
        Annotation(0, shape=Points(line[:1])),
        Annotation(0),
    ]
    assert kinds(*sound) == []


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (polygon([(0, 0), (5, 5)]), "few_points"),
        (Annotation(0, shape=Polygons(())), "few_points"),
        (polygon([(0, 0), (5, 5), (9, 9)]), "no_area"),
        (polygon([(0, 0), (9, 9), (9, 0), (0, 9)]), "self_intersecting"),
        (polygon([(0, 0), (9, 9), (9, 0), (0, 5)]), "self_intersecting"),
        (polygon([(0, 0), (9, 0), (float("nan"), 9)]), "not_finite"),
        (polygon([(0, 0), (9, 0), (9, float("inf"))]), "not_finite"),
        (boxed(box=(0, 0, float("nan"), 5)), "not_finite"),
        (Annotation(0, shape=Points(np.array([(np.inf, 1.0)]))), "not_finite"),
        (Annotation(0, shape=Ellipse((5, 5), (3, float("inf")))), "not_finite"),
        (Annotation(0, shape=Ellipse((5, 5), (3, 0))), "no_area"),
        (mask(np.zeros(HW)), "no_area"),
        (mask(np.ones((5, 5))), "broken_mask"),
        (Annotation(0, shape=Mask(b"\xff~~", HW)), "broken_mask"),
        (boxed(box=(5, 5, 5, 9)), "empty_box"),
        (boxed(box=(9, 5, 5, 9)), "empty_box"),
        (boxed(box=(-9, 5, -2, 9)), "box_outside"),
        (boxed(box=(201, 5, 210, 9)), "box_outside"),
        (boxed(box=(190, 5, 201, 9)), "box_over_edge"),
        (square(90, 80, 21), "box_over_edge"),
    ],
)
def test_each_fault_is_found_once(annotation, expected):
    assert kinds(annotation) == [(expected, "annotation 0")]
    assert expected in KINDS


def test_without_a_size_nothing_is_outside():
    assert kinds(boxed(box=(-9, 5, -2, 9)), mask(np.ones((5, 5))), image_hw=None) == []


def test_duplicates_are_of_one_class_and_one_shape():
    twice = [boxed(0), boxed(1), boxed(0), square(0, 0, 5), square(0, 0, 6), square(0, 0, 5), mask(np.eye(*HW))]
    assert kinds(*twice, mask(np.eye(*HW)), boxed(0)) == [
        ("duplicate_annotation", f"annotation {i}") for i in (2, 5, 7, 8)
    ]
    line = np.array([(1, 1), (5, 1)], np.float64)
    assert kinds(Annotation(0, shape=Points(line)), Annotation(0, shape=Polyline(line))) == []


# ---- statistics


def test_counts_agree_with_counting_by_hand():
    images = [
        AnnotatedImage("a", split="train", annotations=(square(0, 0, 10), square(0, 0, 50, crowd=True), boxed(2))),
        AnnotatedImage("b", split="val", annotations=(square(0, 0, 100, score=0.5, attributes={"pose": 1}),)),
        AnnotatedImage("c", split="val"),
    ]
    statistics = Statistics.of_classes(("cat", "dog", "cow"))
    for image, hw in zip(images, [(10, 20), (10, 20), None], strict=True):
        statistics.add(image, hw)
    said = statistics.as_json()
    assert [said[name] for name in ("images", "empty_images", "instances", "crowds", "scored")] == [3, 1, 4, 1, 1]
    cat, dog, cow = said["classes"]
    assert cat == {"name": "cat", "instances": 3, "images": 2, "crowds": 1, "small": 1, "medium": 1, "large": 1}
    assert dog["instances"] == dog["images"] == 0 and (cow["instances"], cow["small"]) == (1, 1)
    assert said["splits"] == {"train": 1, "val": 2} and said["attributes"] == {"pose": 1}
    assert said["shapes"] == {"polygons": 3, "box": 1} and said["sizes_hw"] == [[10, 20, 2]]
    assert said["unknown_sizes"] == 1
    sides = {row["label"]: row["count"] for row in said["histograms"]["side_px"]}
    assert sides == {"4 - 8": 1, "8 - 16": 1, "16 - 32": 0, "32 - 64": 1, "64 - 128": 1}
    assert said["histograms"]["instances_per_image"][0] == {"label": "under 1", "count": 1}


def test_bounds_of_small_and_large_are_cocos():
    statistics = Statistics.of_classes(("cat",))
    statistics.add(AnnotatedImage("a", annotations=tuple(square(0, 0, side) for side in (31.9, 32, 95.9, 96))), None)
    one = statistics.classes[0]
    assert (one.small, one.medium, one.large) == (1, 2, 1)


def test_parts_and_holes_are_counted():
    ring = np.array([(0, 0), (9, 0), (9, 9)], np.float64)
    statistics = Statistics.of_classes(("cat",))
    shapes = [Polygons(((ring,), (ring,))), Polygons(((ring, ring),)), Polygons(((ring,),))]
    statistics.add(AnnotatedImage("a", annotations=tuple(Annotation(0, shape=shape) for shape in shapes)), None)
    assert (statistics.with_parts, statistics.with_holes) == (1, 1)


def test_a_histogram_counts_as_numpy_does():
    values = np.random.default_rng(0).exponential(100, 500)
    histogram = Histogram((4.0, 8.0, 16.0, 64.0))
    for value in values:
        histogram.add(value)
    assert histogram.counts == np.histogram(values, [-1, 4, 8, 16, 64, np.inf])[0].tolist()
    assert [label for label, _ in histogram.rows()] == ["under 4", "4 - 8", "8 - 16", "16 - 64", "64 and more"]
    assert Histogram((1, 2, 3)).rows() == []


# ---- images


@pytest.fixture
def photos(tmp_path):
    """Two different images in train, one of them halved in val."""
    for name, index in (("one.png", 0), ("two.png", 1)):
        Image.fromarray(draw(4, index, size_px=96).image).save(tmp_path / name)
    Image.open(tmp_path / "two.png").resize((48, 48), Image.Resampling.LANCZOS).save(tmp_path / "half.png")
    return tmp_path


def image(folder, name, split="train", image_hw=None, annotations=()):
    return AnnotatedImage(name, str(folder / name), image_hw, tuple(annotations), split)


def found(inspection):
    return {kind: [(one.image, one.message) for one in examples] for kind, _, examples in inspection.findings.rows()}


def test_near_duplicates_across_splits_and_within_one(photos):
    for i in range(2):
        shutil.copy(photos / "one.png", photos / f"copy{i}.png")
    images = [image(photos, name) for name in ("one.png", "two.png", "copy0.png", "copy1.png")]
    inspection = inspect(dataset([*images, image(photos, "half.png", "val")]))
    assert dict(inspection.findings.counts) == {"near_duplicates_across_splits": 1, "near_duplicates": 1}
    ((name, message),) = found(inspection)["near_duplicates_across_splits"]
    assert name == "two.png" and "in train" in message and "half.png (val)" in message
    ((name, message),) = found(inspection)["near_duplicates"]
    assert name == "one.png" and "copy0.png" in message and "copy1.png" in message and "0 of 64" in message


@pytest.mark.parametrize("pixels", [True, False])
def test_images_that_are_missing_damaged_or_of_another_size(photos, pixels):
    (photos / "broken.png").write_bytes((photos / "one.png").read_bytes()[:20])
    (photos / "text.jpg").write_text("no image")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20), "red").save(photos / "turned.png", exif=exif)
    names = ["one.png", "gone.png", "broken.png", "text.jpg", "turned.png"]
    images = [image(photos, name, image_hw=hw) for name, hw in zip(names, [(95, 96)] * 4 + [(20, 40)], strict=True)]
    inspection = inspect(dataset([*images, AnnotatedImage("nowhere.jpg")]), duplicates=pixels)
    said = found(inspection)
    assert [name for name, _ in said["missing_image"]] == ["gone.png"]
    assert [(name, message.partition(":")[0]) for name, message in said["unreadable_image"]] == [
        ("broken.png", "truncated"),
        ("text.jpg", "not_an_image"),
    ]
    assert [name for name, _ in said["unlocated_image"]] == ["nowhere.jpg"]
    (one, turned) = said["image_size"]
    assert one == ("one.png", "annotations say 96 x 95 pixels; it has 96 x 96")
    assert turned[0] == "turned.png" and "before EXIF rotation; it has 20 x 40" in turned[1]
    assert len(said) == 4


def test_damaged_pixels_behind_a_good_header_show_only_when_decoded(photos):
    data = (photos / "one.png").read_bytes()
    (photos / "cut.png").write_bytes(data[: len(data) // 2])
    cut = dataset([image(photos, "cut.png")])
    assert inspect(cut).findings.counts == {"unreadable_image": 1}
    assert inspect(cut, duplicates=False).clean


def test_only_the_first_bytes_are_read_for_a_header(photos, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)).save(photos / "large.jpg")
    read = []
    original = image_checks.storage.read_range
    monkeypatch.setattr(
        image_checks.storage,
        "read_range",
        lambda uri, start, length: read.append(length) or original(uri, start, length),
    )
    monkeypatch.setattr(image_checks.storage, "read", None)
    assert inspect(dataset([image(photos, "large.jpg", image_hw=(900, 900))]), duplicates=False).clean
    assert sum(read) <= 1 << 16


def test_embedded_images_are_looked_at(photos):
    data = (photos / "one.png").read_bytes()
    images = [AnnotatedImage("in.png", None, (5, 5), data=data), AnnotatedImage("bad.png", None, data=b"x")]
    for pixels in (True, False):
        counts = inspect(dataset(images), duplicates=pixels).findings.counts
        assert counts == {"image_size": 1, "unreadable_image": 1}


def test_images_come_in_their_order_whatever_the_threads_do(photos):
    images = [image(photos, f"gone{i:03d}.png") for i in range(150)]
    inspection = inspect(dataset(images), threads=8)
    assert inspection.findings.counts["missing_image"] == 150
    assert [name for name, _ in found(inspection)["missing_image"]] == [one.name for one in images[:MAX_EXAMPLES]]
    assert inspect(dataset(images), threads=1).as_json() == inspection.as_json()


def test_few_images_are_held_at_a_time(photos):
    taken, done = [], []

    class Images:
        def __iter__(self):
            for i in range(200):
                taken.append(i)
                assert len(taken) - len(done) <= 2 * 4 + 2
                yield image(photos, "one.png", annotations=[boxed()])

    inspect(Dataset((Category("cat"),), Images()), threads=4, progress=lambda n, _: done.append(n))
    assert done == list(range(1, 201))


def test_progress_knows_the_total_where_there_is_one(photos):
    seen = []
    inspect(Dataset((), [image(photos, "one.png")] * 3), progress=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_faults_of_the_reader_are_shown_and_errors_come_through(photos):
    class Failing:
        def __init__(self, faults):
            self.faults = faults

        def __iter__(self):
            yield image(photos, "one.png")
            self.faults.add("f.json", "box", "line 3", "no box")
            yield image(photos, "two.png")

    faults = Faults("skip")
    inspection = inspect(Dataset((), Failing(faults), faults=faults))
    assert inspection.faults == Counter(box=1) and inspection.fault_messages == ["f.json: line 3: no box"]
    assert not inspection.clean and inspection.statistics.images == 2
    before = threading.active_count()
    with pytest.raises(BadAnnotation, match="line 3"):
        inspect(Dataset((), Failing(Faults("raise")), faults=None))
    assert threading.active_count() == before


def test_a_store_that_does_not_answer_is_no_finding(photos, monkeypatch):
    def away(uri, **_):
        raise Unreachable(uri, "no answer")

    monkeypatch.setattr(image_checks.storage, "read", away)
    with pytest.raises(Unreachable):
        inspect(dataset([image(photos, "one.png")]))


@pytest.mark.parametrize("pixels", [True, False])
def test_images_in_object_storage(bucket, photos, pixels):
    for name in ("one.png", "half.png"):
        storage.write(f"{bucket}/a b/{name}", (photos / name).read_bytes())
    storage.write(f"{bucket}/a b/text.png", b"no image")
    names = ["one.png", "half.png", "gone.png", "text.png"]
    images = [AnnotatedImage(name, f"{bucket}/a b/{name}", (96, 96)) for name in names]
    said = found(inspect(dataset(images), duplicates=pixels))
    assert {kind: [name for name, _ in examples] for kind, examples in said.items()} == {
        "missing_image": ["gone.png"],
        "unreadable_image": ["text.png"],
        "image_size": ["half.png"],
    }


def test_examples_are_seeded_and_flawed_ones_kept_apart(photos):
    images = [AnnotatedImage(f"{i}.png", str(photos / "one.png"), annotations=(boxed(),)) for i in range(30)]
    images[7] = AnnotatedImage("odd.png", str(photos / "one.png"), annotations=(boxed(), boxed()))
    inspection = inspect(dataset(images), duplicates=False, examples=5)
    names = [one.name for one in inspection.examples]
    assert len(names) == 5 and names == sorted(names, key=lambda name: int(name[:-4]))
    assert [one.name for one in inspection.flawed] == ["odd.png"]
    assert [one.name for one in inspect(dataset(images[::-1]), duplicates=False, examples=5).examples] == names[::-1]
    assert [one.name for one in inspect(dataset(images), duplicates=False, examples=5, seed=1).examples] != names


def test_the_whole_goes_through_json(photos):
    images = [image(photos, "gone.png", annotations=[boxed(attributes={"\ud800": 1})]), image(photos, "one.png")]
    inspection = inspect(dataset(images))
    said = json.loads(json.dumps(inspection.as_json()))
    assert said["findings"][0]["kind"] == "missing_image" and said["findings"][0]["count"] == 1
    assert said["findings"][0]["examples"][0]["image"] == "gone.png"
    assert said["clean"] is False and said["near_duplicates_looked_for"] is True


def test_nothing_at_all():
    inspection = inspect(dataset([]))
    assert inspection.clean and inspection.statistics.images == 0
