"""Splits: every image in exactly one, the shares met, classes in proportion, groups whole, the same from the same seed."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory_data import Source, boxed, dataset, names_of, of_classes

from rayseg.annotations import AnnotatedImage
from rayseg.datasets import grouped_split, random_split, stratified_split
from rayseg.datasets.splits import attribute, folder, name_pattern, name_prefix
from rayseg.datasets.stratification import Item, share_out
from rayseg.errors import UsageError

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}
BY = {
    "random": random_split,
    "stratified": stratified_split,
    "grouped": lambda data, shares, seed=0: grouped_split(data, shares, name_prefix("_"), seed),
}


def shuffled(data, seed):
    images = list(data.images)
    random.Random(seed).shuffle(images)
    return replace(data, images=Source(images))


def mapping(parts):
    return {name: split for split in parts for name in names_of(parts[split])}


@pytest.fixture
def data():
    chance = random.Random(3)
    # class 0 is everywhere, class 1 in a tenth, class 2 in 12 images of 400; some have none
    lists = [[0] * (chance.random() < 0.8) + [1] * (chance.random() < 0.1) + [2] * (i < 12) for i in range(400)]
    return of_classes(lists, name="walk_{:04d}.jpg")


@pytest.mark.parametrize("how", ["random", "stratified"])
def test_sizes_are_the_shares(data, how):
    parts = BY[how](data, SHARES, seed=4)
    assert list(parts) == ["train", "val", "test"]
    for split, share in SHARES.items():
        assert len(list(parts[split].images)) == len(parts[split].images) == parts.counts[split]
        assert abs(parts.counts[split] - 400 * share) <= (0.5 if how == "random" else 4)


@pytest.mark.parametrize("how", BY)
def test_every_image_is_in_one_split_which_it_says(data, how):
    parts = BY[how](data, SHARES, seed=4)
    assert sorted(name for split in parts for name in names_of(parts[split])) == sorted(names_of(data))
    assert all(image.split == split for split in parts for image in parts[split].images)
    assert {image.name: image.split for image in parts.whole.images} == mapping(parts)
    assert names_of(parts.whole) == names_of(data) and len(parts.whole.images) == 400


@pytest.mark.parametrize("how", BY)
def test_seed_and_names_alone_decide(data, how):
    first = mapping(BY[how](data, SHARES, seed=4))
    assert mapping(BY[how](shuffled(data, 9), SHARES, seed=4)) == first
    if how != "grouped":  # here one group holds everything
        assert mapping(BY[how](data, SHARES, seed=5)) != first


def test_nothing_but_the_split_changes(data):
    for image in random_split(data, SHARES).whole.images:
        assert replace(image, split=None) in data.images.made


@pytest.mark.parametrize("how", BY)
def test_parts_read_the_source_again_and_keep_nothing(data, how):
    parts = BY[how](data, SHARES)
    assert data.images.passes == 1
    train = parts["train"]
    assert data.images.passes == 1
    assert names_of(train) == names_of(train)
    assert data.images.passes == 3


def test_an_added_image_moves_few_others(data):
    before = mapping(random_split(data, SHARES))
    more = replace(data, images=Source([*data.images, AnnotatedImage("new.jpg")]))
    after = mapping(random_split(more, SHARES))
    assert sum(after[name] != before[name] for name in before) <= len(SHARES)


def test_rare_classes_get_their_share(data):
    parts = stratified_split(data, {"train": 0.5, "val": 0.5}, seed=1)
    for split in parts:
        images = Counter(
            c for image in parts[split].images for c in {one.category for one in image.annotations} or {-1}
        )
        assert images[2] == 6  # the rarest class exactly
        whole = Counter(c for image in data.images for c in {one.category for one in image.annotations} or {-1})
        for label, count in whole.items():
            assert abs(images[label] - count / 2) <= 2, (split, label)


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_stratification_keeps_proportions_better_than_chance(seed):
    """The paper's LD: the mean over labels of how far the odds of a label differ between subset and whole."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.02, 0.4, 8)
    present = rng.random((300, 8)) < rates
    items = [Item(1, {int(label): 1 for label in np.flatnonzero(row)}) for row in present]
    shares = [0.6, 0.3, 0.1]
    placed = np.array(share_out(items, shares, seed))
    chance = rng.permutation(np.repeat([0, 1, 2], [180, 90, 30]))

    def distance(places):
        odds = (present.mean(axis=0) + 1e-9) / (1 - present.mean(axis=0) + 1e-9)
        return np.mean([np.abs(_odds(present[places == k]) - odds).mean() for k in range(3)])

    assert distance(placed) < distance(chance)
    rarest = min((count, label) for label, count in enumerate(present.sum(axis=0)) if count)[1]
    for k, share in enumerate(shares):
        assert abs(present[placed == k, rarest].sum() - share * present[:, rarest].sum()) < 1
        assert abs((placed == k).sum() - 300 * share) <= 8


def _odds(rows):
    rate = rows.mean(axis=0)
    return (rate + 1e-9) / (1 - rate + 1e-9)


def test_a_case_done_by_hand():
    """Two of label 1 in halves, one each; then label 0's other four, of which each half wants two more."""
    items = [Item(1, {0: 1, 1: 1}), Item(1, {0: 1, 1: 1}), *[Item(1, {0: 1})] * 4, Item(1, {}), Item(1, {})]
    for seed in range(10):
        placed = share_out(items, [0.5, 0.5], seed)
        assert sorted(placed[:2]) == sorted(placed[6:]) == [0, 1]
        assert sorted(placed[2:6]) == [0, 0, 1, 1]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_groups_stay_together_and_sizes_come_near(sizes, seed):
    images = [AnnotatedImage(f"g{g}_{i}.jpg") for g, size in enumerate(sizes) for i in range(size)]
    parts = grouped_split(dataset(images), {"train": 0.75, "val": 0.25}, name_prefix("_"), seed)
    splits = {}
    for name, split in mapping(parts).items():
        assert splits.setdefault(name.partition("_")[0], split) == split
    assert abs(parts.counts["train"] - 0.75 * len(images)) <= max(sizes)


def test_groups_can_be_stratified():
    images = [
        AnnotatedImage(f"{group:03d}/{i}.jpg", annotations=(boxed(int(group < 12)),))
        for group in range(120)
        for i in range(5)
    ]
    parts = grouped_split(dataset(images), {"train": 0.75, "val": 0.25}, folder, seed=2, stratify=True)
    rare = {split: sum(image.annotations[0].category for image in parts[split].images) for split in parts}
    assert rare == {"train": 45, "val": 15} and parts.counts == {"train": 450, "val": 150}


def test_keys():
    image = AnnotatedImage("a_b/walk3_0001_x.jpg", attributes={"site": "north", "tags": [1]})
    assert folder(image) == "a_b" and folder(AnnotatedImage("x.jpg")) == ""
    assert name_prefix("_")(image) == "a_b/walk3"
    assert name_pattern(r"walk(\d+)")(image) == "3" and name_pattern(r"\d+_x")(image) == "0001_x"
    assert attribute("site")(image) == "north" and attribute("tags")(image) == "[1]" and attribute("no")(image) is None


def test_an_image_without_the_key_is_named():
    with pytest.raises(UsageError, match="0000"):
        grouped_split(of_classes([[0]]), SHARES, attribute("site"))
    with pytest.raises(UsageError, match="regular expression"):
        name_pattern("(")


@pytest.mark.parametrize("shares", [{}, {"train": 0.8, "val": 0.1}, {"train": 1.2, "val": -0.2}, {"a": 1.0, "b": 0.0}])
@pytest.mark.parametrize("how", BY)
def test_shares_that_are_none_are_refused(how, shares):
    with pytest.raises(UsageError, match="add up to 1"):
        BY[how](of_classes([[0]] * 10), shares)


def test_an_image_that_comes_later_is_no_silent_loss():
    data = of_classes([[0]] * 10)
    parts = random_split(data, SHARES)
    data.images.made.append(AnnotatedImage("late.jpg"))
    with pytest.raises(UsageError, match=r"late\.jpg"):
        names_of(parts["train"])


@pytest.mark.parametrize("how", BY)
def test_no_images_make_empty_splits(how):
    parts = BY[how](dataset([]), SHARES)
    assert parts.counts == {"train": 0, "val": 0, "test": 0} and names_of(parts["val"]) == []


def test_strange_names():
    data = dataset([AnnotatedImage(name) for name in ("\ud800.jpg", "ü.jpg", "", "a\0b")])
    assert sum(random_split(data, {"a": 0.5, "b": 0.5}).counts.values()) == 4
