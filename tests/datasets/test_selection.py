"""Filter and sample: what stays meets the conditions, classes stay contiguous, nothing is read before it is asked for."""

import random
from dataclasses import replace

import numpy as np
import pytest
from in_memory_data import Source, boxed, dataset, names_of, of_classes, square
from pycocotools import mask as coco_mask

from rayseg.annotations import AnnotatedImage, Annotation, Ellipse, Mask, Points, Polygons, Polyline
from rayseg.datasets import filter, sample
from rayseg.datasets.measures import area_px, ring_area
from rayseg.errors import UsageError
from rayseg.kernels import encode


def mask_annotation(seed=0):
    pixels = np.random.default_rng(seed).random((1, 20, 30)) < 0.3
    return Annotation(0, shape=Mask(encode(pixels).strings()[0], (20, 30)))


def kept(data, **conditions):
    return [one for image in filter(data, **conditions).images for one in image.annotations]


def test_classes_by_name_leave_the_table_and_stay_contiguous():
    data = of_classes([[0, 1], [2, 2], [1]])
    only = filter(data, classes=["dog", "cow"])
    assert only.class_names == ("dog", "cow")
    assert [[one.category for one in image.annotations] for image in only.images] == [[0], [1, 1], [0]]
    without = filter(data, without_classes=["cat"])
    assert without.class_names == ("dog", "cow") and list(without.images) == list(only.images)


def test_the_order_of_the_classes_is_the_data_sets():
    assert filter(of_classes([]), classes=["cow", "cat"]).class_names == ("cat", "cow")


def test_a_class_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="'dgo' is not in the data set; did you mean 'dog'"):
        filter(of_classes([]), classes=["dgo"])
    with pytest.raises(UsageError, match="list of names"):
        filter(of_classes([]), without_classes="dog")


def test_area_of_every_shape():
    hole = Polygons(((np.array([(0, 0), (10, 0), (10, 10), (0, 10)]), np.array([(2, 2), (4, 2), (4, 4), (2, 4)])),))
    mask = mask_annotation()
    rle = {"size": list(mask.shape.image_hw), "counts": mask.shape.counts}
    assert area_px(Annotation(0, shape=hole)) == 96
    assert area_px(mask) == coco_mask.area(rle)
    assert area_px(Annotation(0, shape=Ellipse((5, 5), (3, 2), 30))) == pytest.approx(6 * np.pi)
    assert area_px(boxed(box=(1, 2, 4, 8))) == 18 and area_px(boxed(box=(4, 2, 1, 8))) == 0
    line = np.array([(0, 0), (9, 9)], np.float64)
    assert area_px(Annotation(0, shape=Polyline(line))) is area_px(Annotation(0, shape=Points(line))) is None
    assert area_px(Annotation(0)) is None and area_px(Annotation(0, shape=Polygons(()))) == 0
    assert area_px(Annotation(0, shape=Mask(b"no rle", (3, 3)))) == 0
    assert ring_area(np.array([(1e6, 1e6), (1e6 + 1, 1e6), (1e6, 1e6 + 1)])) == 0.5


def test_area_and_side_bounds():
    data = dataset([AnnotatedImage("a", annotations=(square(0, 0, 3), square(0, 0, 5), boxed(box=(0, 0, 2, 20))))])
    assert kept(data, min_area_px=10, max_area_px=30) == [square(0, 0, 5)]
    assert kept(data, min_area_px=25) == [square(0, 0, 5), boxed(box=(0, 0, 2, 20))]
    assert kept(data, min_side_px=3) == [square(0, 0, 3), square(0, 0, 5)]
    assert kept(data, max_side_px=4) == [square(0, 0, 3)]
    assert len(kept(data)) == 3


def test_lines_meet_no_bound_of_area_but_are_kept_without():
    data = dataset([AnnotatedImage("a", annotations=(Annotation(0, shape=Points(np.zeros((1, 2)))),))])
    assert len(kept(data)) == 1 and kept(data, min_area_px=0) == [] and kept(data, max_area_px=10) == []
    assert len(kept(data, max_side_px=1)) == 1


def test_attributes_and_predicate():
    easy, hard = boxed(attributes={"pose": "left"}), boxed(attributes={"difficult": True, "pose": "left"})
    data = dataset([AnnotatedImage("a", annotations=(easy, hard)), AnnotatedImage("b", annotations=(boxed(),))])
    assert kept(data, attributes={"difficult": False}) == [easy, boxed()]
    assert kept(data, attributes={"pose": "left", "difficult": True}) == [hard]
    assert kept(data, predicate=lambda one, image: image.name == "b" and not one.crowd) == [boxed()]


def test_emptied_images_stay_or_go_and_empty_ones_stay():
    data = of_classes([[0], [1], []])
    assert names_of(filter(data, classes=["dog"])) == ["0000.jpg", "0001.jpg", "0002.jpg"]
    assert names_of(filter(data, classes=["dog"], emptied="drop")) == ["0001.jpg", "0002.jpg"]


def test_filter_is_lazy_and_repeats():
    data = of_classes([[0], [1]])
    only = filter(data, classes=["dog"])
    assert data.images.passes == 0
    assert list(only.images) == list(only.images) and data.images.passes == 2


def test_a_sample_is_so_many_in_the_sources_order():
    data = of_classes([[0]] * 200)
    some = sample(data, 20, seed=3)
    assert len(some.images) == len(names_of(some)) == 20 and names_of(some) == sorted(names_of(some))
    assert names_of(some) == names_of(sample(data, 20, seed=3)) != names_of(sample(data, 20, seed=4))
    assert names_of(sample(data, share=0.1, seed=3)) == names_of(some)
    assert set(names_of(some)) < set(names_of(sample(data, 50, seed=3)))
    assert len(names_of(sample(data, 500))) == 200 and names_of(sample(data, 0)) == []


def test_a_sample_does_not_depend_on_the_order():
    data = of_classes([[0]] * 100)
    images = list(data.images)
    random.Random(1).shuffle(images)
    other = sample(replace(data, images=Source(images)), 10)
    assert sorted(names_of(other)) == names_of(sample(data, 10))


def test_a_sample_is_even():
    """Each of 50 images is drawn about as often as any other over 400 seeds: 80 times, standard deviation 8."""
    data = of_classes([[0]] * 50)
    drawn = dict.fromkeys(names_of(data), 0)
    for seed in range(400):
        for name in names_of(sample(data, 10, seed=seed)):
            drawn[name] += 1
    assert sum(drawn.values()) == 4000 and all(40 < times < 120 for times in drawn.values())


@pytest.mark.parametrize(
    "wrong", [{}, {"count": -1}, {"share": 1.5}, {"share": float("nan")}, {"count": 1, "share": 0.5}]
)
def test_a_sample_of_what(wrong):
    with pytest.raises(UsageError, match="count"):
        sample(of_classes([]), **wrong)
