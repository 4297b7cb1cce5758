import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayseg.formats.ordinals import OrdinalBitmap, count_ordinals, decode_ranges, encode_ranges

TOTAL = 5000
ordinal_sets = st.one_of(
    st.sets(st.integers(0, TOTAL - 1), max_size=60),
    st.lists(st.tuples(st.integers(0, TOTAL - 1), st.integers(1, 1500)), max_size=5).map(
        lambda runs: {o for start, length in runs for o in range(start, min(start + length, TOTAL))}
    ),
)


def ranges_of(ordinals: set[int]) -> np.ndarray:
    return decode_ranges(encode_ranges(np.array(sorted(ordinals), np.int64)))


def test_text_is_what_people_write():
    ordinals = [*range(32), 40, *range(64, 96)]
    assert encode_ranges(np.array(ordinals)) == "0-31,40,64-95"
    assert decode_ranges("0-31,40,64-95").tolist() == [[0, 32], [40, 41], [64, 96]]


@given(ordinal_sets)
def test_text_and_back(ordinals: set[int]):
    ranges = ranges_of(ordinals)
    assert {o for start, stop in ranges.tolist() for o in range(start, stop)} == ordinals
    assert count_ordinals(ranges) == len(ordinals)
    assert len(ranges) == sum(o - 1 not in ordinals for o in ordinals)  # no more ranges than runs


@pytest.mark.parametrize("ordinals", [[3, 2], [1, 1], [-1, 0]])
def test_only_ascending_ordinals_become_text(ordinals: list[int]):
    with pytest.raises(ValueError, match="strictly ascending"):
        encode_ranges(np.array(ordinals))


@pytest.mark.parametrize("text", ["x", "1,", ",", "5-3", "1-2-3", "-4", "1-", "4,2", "0-5,3-9", "0-5,6-9", "1 ,2", "²"])
def test_other_text_is_refused(text: str):
    with pytest.raises(ValueError, match="ranges of ordinals"):
        decode_ranges(text)


@given(st.lists(ordinal_sets, max_size=4), st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_bitmap_is_a_set(added: list[set[int]], a: int, b: int):
    bitmap, reference = OrdinalBitmap(TOTAL), set()
    for ordinals in added:
        clash = bool(reference & ordinals)
        assert bitmap.overlaps(ranges_of(ordinals)) == clash
        assert bitmap.add_ranges(ranges_of(ordinals)) == clash
        reference |= ordinals
        assert bitmap.count() == len(reference)
    start, stop = sorted((a, b))
    assert bitmap.missing(start, stop).tolist() == [o for o in range(start, stop) if o not in reference]
    chunks = list(bitmap.missing_chunks(700))
    assert [o for chunk in chunks for o in chunk.tolist()] == sorted(set(range(TOTAL)) - reference)
    assert all(0 < len(chunk) <= 700 for chunk in chunks)


@given(st.lists(st.lists(st.integers(0, 99), max_size=30), max_size=4))
def test_bitmap_says_which_were_there(batches: list[list[int]]):
    bitmap, seen = OrdinalBitmap(100), set()
    for batch in batches:
        expected = []
        for ordinal in batch:
            expected.append(ordinal in seen)
            seen.add(ordinal)
        assert bitmap.add(np.array(batch, np.int64)).tolist() == expected
    assert bitmap.count() == len(seen)


@pytest.mark.parametrize("total", [0, 1, 7, 8, 9, 1001])
def test_bitmap_of_any_size_can_be_filled(total: int):
    bitmap = OrdinalBitmap(total)
    assert bitmap.missing(0, total).tolist() == list(range(total))
    bitmap.add_ranges(np.array([[0, total]] if total else np.empty((0, 2)), np.int64))
    assert bitmap.count() == total
    assert not list(bitmap.missing_chunks())


@pytest.mark.parametrize("ranges", [[[0, 11]], [[-1, 3]], [[0, 2], [10, 11]]])
def test_bitmap_refuses_ordinals_it_does_not_have(ranges: list[list[int]]):
    bitmap = OrdinalBitmap(10)
    for call in (bitmap.add_ranges, bitmap.overlaps):
        with pytest.raises(ValueError, match="expected 0-9"):
            call(np.array(ranges))
    with pytest.raises(ValueError, match="expected 0-9"):
        bitmap.add(np.array(ranges).ravel())
    assert bitmap.count() == 0


def test_a_hundred_million_ordinals_in_one_range_and_in_crumbs():
    bitmap = OrdinalBitmap(100_000_000)
    bitmap.add_ranges(np.array([[10, 99_999_990]]))
    assert bitmap.count() == 99_999_980
    assert [chunk.tolist() for chunk in bitmap.missing_chunks()] == [
        list(range(10)),
        list(range(99_999_990, 100_000_000)),
    ]
    crumbs = np.arange(0, 1_000_000, 2)
    sparse = OrdinalBitmap(100_000_000)
    assert not sparse.add_ranges(np.stack([crumbs, crumbs + 1], axis=1))
    assert sparse.count() == 500_000
    assert sparse.missing(0, 10).tolist() == [1, 3, 5, 7, 9]
