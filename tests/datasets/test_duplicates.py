"""Near duplicates: what a fingerprint sees through, and that the search finds what comparing all pairs finds."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rayseg.datasets.duplicates import MAX_DISTANCE, Fingerprint, distance, fingerprint, near_duplicates
from rayseg.datasets.synthetic import draw


def slow_groups(prints, max_distance):
    """Connected components of the graph of all near pairs."""
    group = list(range(len(prints)))
    for i, one in enumerate(prints.tolist()):
        for k, other in enumerate(prints[:i].tolist()):
            if distance(Fingerprint(*one), Fingerprint(*other)) <= max_distance:
                old, new = max(group[i], group[k]), min(group[i], group[k])
                group = [new if g == old else g for g in group]
    members = {g: [i for i, other in enumerate(group) if other == g] for g in sorted(set(group))}
    return [found for found in members.values() if len(found) > 1]


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 40))
@settings(max_examples=80, deadline=None)
def test_the_search_finds_what_all_pairs_find(seed, max_distance, count):
    rng = np.random.default_rng(seed)
    prints = rng.integers(0, 2**64, (count, 2), np.uint64)
    for i in range(1, count):  # some are others with up to 8 bits turned, some the very same
        if rng.random() < 0.6:
            flips = [sum(1 << int(b) for b in rng.choice(64, rng.integers(0, 9), replace=False)) for _ in range(2)]
            prints[i] = prints[rng.integers(i)] ^ np.array(flips, np.uint64)
    found = near_duplicates(prints, max_distance)
    assert [group.tolist() for group in found] == slow_groups(prints, max_distance)


def test_many_that_share_bits_are_one_group_without_comparing_all():
    """A film of 30,000 frames, each a bit away from the last."""
    flips = np.random.default_rng(1).integers(0, 64, (30_000, 2)).astype(np.uint64)
    prints = np.bitwise_xor.accumulate(np.left_shift(np.uint64(1), flips), axis=0)
    assert [len(group) for group in near_duplicates(prints)] == [30_000]


def test_unrelated_images_are_not_grouped():
    assert near_duplicates(np.random.default_rng(2).integers(0, 2**64, (20_000, 2), np.uint64)) == []
    assert near_duplicates(np.empty((0, 2), np.uint64)) == []
    with pytest.raises(ValueError, match="0 to 20"):
        near_duplicates(np.empty((0, 2), np.uint64), 64)


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(draw(8, i, size_px=160, max_objects=6).image) for i in range(40)]


def through_jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "recompressed": through_jpeg,
    "halved": lambda picture: picture.resize((80, 80), Image.Resampling.LANCZOS),
    "darker": lambda picture: picture.point([round(v * 0.8 + 10) for v in range(256)] * 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_near_and_others_are_not(pictures, change):
    both = [np.asarray(one) for one in [*pictures, *map(CHANGES[change], pictures)]]
    prints = np.array([fingerprint(pixels) for pixels in both], np.uint64)
    expected = [[i, i + len(pictures)] for i in range(len(pictures))]
    found = [group.tolist() for group in near_duplicates(prints)]
    assert all(group in expected for group in found)
    assert len(found) >= 36  # of 40


def test_photographs(shared_data):
    paths = sorted((shared_data / "coco_small").rglob("*.jpg")) + sorted((shared_data / "kudzu").rglob("*.jpg"))
    prints = [fingerprint(np.asarray(Image.open(path).convert("RGB"))) for path in paths[::4]]
    assert near_duplicates(np.array(prints, np.uint64)) == []
    assert min(distance(a, b) for i, a in enumerate(prints) for b in prints[:i]) > MAX_DISTANCE


def test_bits_of_a_known_image():
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    assert fingerprint(ramp) == Fingerprint(2**64 - 1, 0)
    assert fingerprint(ramp[:, ::-1]) == Fingerprint(0, 0)
    assert fingerprint(np.ascontiguousarray(ramp.transpose(1, 0, 2))) == Fingerprint(0, 2**64 - 1)


def test_flat_images_have_nothing_to_compare():
    assert fingerprint(np.full((50, 60, 3), 130, np.uint8)) is None
    noisy = np.random.default_rng(0).integers(128, 132, (200, 200, 3), np.uint8)
    assert fingerprint(noisy) is None
    assert fingerprint(np.zeros((1, 1, 3), np.uint8)) is None
