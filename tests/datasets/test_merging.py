"""Merging: classes joined by name, image names kept unique, everything else as it came."""

from collections import Counter
from dataclasses import replace

import pytest
from in_memory_data import boxed, dataset, names_of, of_classes

from rayseg.annotations import AnnotatedImage, Category, Dataset
from rayseg.datasets import merge, random_split
from rayseg.errors import UsageError
from rayseg.formats.faults import Faults


def test_classes_join_by_name():
    first = of_classes([[0], [1]], name="a{}.jpg", names=("cat", "dog"))
    second = of_classes([[0, 1], [2]], name="b{}.jpg", names=("dog", "cow", "cat"))
    merged = merge([first, second])
    assert merged.class_names == ("cat", "dog", "cow")
    found = {image.name: [merged.class_names[one.category] for one in image.annotations] for image in merged.images}
    assert found == {"a0.jpg": ["cat"], "a1.jpg": ["dog"], "b0.jpg": ["dog", "cow"], "b1.jpg": ["cat"]}
    assert len(merged.images) == 4


def test_a_class_keeps_what_the_first_set_says_and_its_number_if_free():
    one = Dataset((Category("cat", 1, colour=(1, 2, 3)), Category("dog", 2)), [])
    two = Dataset((Category("cow", 1), Category("dog", 7, "animal", extras={"coco": {"x": 1}})), [])
    assert merge([one, two]).categories == (
        Category("cat", 1, colour=(1, 2, 3)),
        Category("dog", 2, "animal", extras={"coco": {"x": 1}}),
        Category("cow", None),
    )


def test_clashing_names_are_refused_at_once_and_named():
    with pytest.raises(UsageError, match=r"'0000\.jpg' \(data sets 1 and 2\).*clashes='rename'"):
        merge([of_classes([[0]]), of_classes([[1]])])
    with pytest.raises(UsageError, match="and 3 more"):
        merge([of_classes([[0]] * 8), of_classes([[0]] * 8)])
    with pytest.raises(UsageError, match="refuse or rename"):
        merge([of_classes([])], clashes="ignore")


def test_clashing_names_are_renamed():
    images = [AnnotatedImage(name, uri=f"/1/{name}") for name in ("d.x/a.jpg", "d.x/a-2.jpg", ".hidden", "plain")]
    first, second = dataset(images), dataset([replace(one, uri="/2/" + one.name) for one in images])
    merged = merge([first, second, second], clashes="rename")
    names = names_of(merged)
    assert names[:4] == names_of(first) and len(set(names)) == len(names) == len(merged.images) == 12
    assert names[4:8] == ["d.x/a-3.jpg", "d.x/a-2-2.jpg", ".hidden-2", "plain-2"]
    assert [image.uri for image in merged.images][4:8] == [f"/2/{one.name}" for one in images]
    assert names_of(merged) == names


def test_merging_is_lazy_after_one_pass_over_the_names():
    first, second = of_classes([[0]], name="a{}"), of_classes([[1]], name="b{}")
    merged = merge([first, second])
    assert (first.images.passes, second.images.passes) == (1, 1)
    assert list(merged.images) == list(merged.images)
    assert (first.images.passes, second.images.passes) == (3, 3)


def test_splits_scores_and_info_ride_along():
    image = AnnotatedImage("x.jpg", split="val", annotations=(boxed(score=0.5, group=3),), data=b"bytes")
    first = dataset([image], info={"coco": {"year": 1}})
    second = of_classes([[0]], info={"coco": {"year": 2}, "voc": {"a": 1}})
    merged = merge([first, second])
    assert next(iter(merged.images)) == image
    assert merged.info == {"coco": {"year": 1}, "voc": {"a": 1}}


def test_faults_are_added_up_as_they_stand():
    one, two = Faults("skip"), Faults("skip")
    merged = merge([of_classes([], faults=one), of_classes([], faults=two), of_classes([])])
    one.add("f", "box", "1", "bad")
    two.add("g", "box", "2", "bad")
    two.add("g", "image", "3", "gone")
    assert merged.faults.counts == Counter(box=2, image=1) and merged.faults.on_error == "skip"
    assert merged.faults.messages == ["f: 1: bad", "g: 2: bad", "g: 3: gone"]
    assert merge([of_classes([])]).faults is None


def test_a_split_and_merged_set_is_the_same_again():
    data = of_classes([[i % 3] for i in range(30)])
    parts = random_split(data, {"a": 0.5, "b": 0.5})
    merged = merge([parts["a"], parts["b"]])
    assert sorted(merged.images, key=lambda image: image.name) == list(parts.whole.images)


def test_nothing_to_merge():
    with pytest.raises(UsageError, match="at least one"):
        merge([])
