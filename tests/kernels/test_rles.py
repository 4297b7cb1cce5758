"""The RLE record: its forms, its checks, and what it says of its masks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pyarrow as pa
import pycocotools.mask as coco
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.kernel_references import coco_rles

from rayseg.kernels import Rles, check_rle, encode

MASKS = np.random.default_rng(0).random((4, 20, 30)) < np.array([0.02, 0.5, 0.0, 1.0])[:, None, None]


def test_forms_lead_back_to_the_same_record() -> None:
    rles = encode(MASKS)
    dicts = coco_rles(MASKS)
    assert rles.to_coco() == dicts
    assert Rles.from_coco(dicts) == rles
    assert Rles.from_coco([{**d, "counts": d["counts"].decode()} for d in dicts]) == rles
    assert Rles.from_strings(rles.strings(), (20, 30)) == rles
    assert Rles.from_runs(*rles.runs(), (20, 30)) == rles
    assert pickle.loads(pickle.dumps(rles)) == rles == copy.deepcopy(rles)
    assert all(np.array_equal(rles.decode(i), MASKS[i]) for i in range(4))
    assert repr(rles).startswith("Rles(4 masks of 20 x 30 pixels")


def test_uncompressed_runs_are_taken() -> None:
    rle = {"size": [3, 4], "counts": [3, 6, 3]}
    assert Rles.from_coco([rle]).to_coco() == [coco.frPyObjects(rle, 3, 4)]


def test_arrow_takes_the_bytes_without_a_copy() -> None:
    rles = encode(MASKS)
    offsets, counts = rles.arrow_buffers()
    column = pa.StringArray.from_buffers(len(rles), pa.py_buffer(offsets), pa.py_buffer(counts))
    assert column.to_pylist() == [s.decode() for s in rles.strings()]
    assert np.shares_memory(counts, rles.counts)
    assert column.buffers()[2].address == rles.counts.ctypes.data


def test_selection_by_index_and_by_flag() -> None:
    rles = encode(MASKS)
    assert rles.select([2, 0, 2]).to_coco() == coco_rles(MASKS[[2, 0, 2]])
    assert rles.select(np.array([True, False, False, True])).to_coco() == coco_rles(MASKS[[0, 3]])
    assert len(rles.select([])) == 0
    assert rles.select([3]) != rles.select([2])


def test_nothing_has_a_size_too() -> None:
    empty = Rles.empty((5, 6))
    assert len(empty) == 0 and empty.to_coco() == [] and empty.areas().shape == (0,)
    assert empty.boxes_xywh().shape == (0, 4) and empty.check() == [] and empty == Rles.from_coco([], (5, 6))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (b"", "is empty"),
        (b"0a", "middle of a number"),
        (b"5 ", "outside '0'..'o'"),
        (b"5\xff", "outside '0'..'o'"),
        (b"oooooooo0", "more than"),
        (b"O", "negative"),
        (b"3006", "length 0"),
        (b"5", "fewer pixels"),
        (b"=", "more pixels"),
    ],
)
def test_broken_rles_are_told_apart(counts: bytes, words: str) -> None:
    found = check_rle(counts, (3, 4))
    assert found.reason is not None and words in found.reason
    assert found.area == 0 and found.box_xywh == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="RLE 0 of 3 x 4 pixels"):
        Rles.from_strings([counts], (3, 4)).decode(0)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1))
def test_valid_rles_are_measured(seed: int, height: int, width: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    rle = coco_rles(mask[None])[0]
    found = check_rle(rle["counts"].decode(), (height, width))
    assert found.reason is None and found.area == mask.sum()
    assert found.box_xywh == tuple(coco.toBbox(rle).astype(int))
    assert check_rle(rle["counts"], (height, width + 1)).reason is not None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(1, 20), st.integers(1, 20))
def test_any_bytes_are_judged_without_harm(data: bytes, height: int, width: int) -> None:
    found = check_rle(data, (height, width))
    if found.reason is None:
        assert Rles.from_strings([data], (height, width)).decode(0).sum() == found.area


def test_records_of_mixed_sizes_are_refused() -> None:
    mixed = [coco_rles(MASKS)[0], {"size": [5, 5], "counts": b"i0"}]
    with pytest.raises(ValueError, match=r"RLE 1 has size \[5, 5\], expected \[20, 30\]"):
        Rles.from_coco(mixed)
    with pytest.raises(ValueError, match="image_hw is needed"):
        Rles.from_coco([])
