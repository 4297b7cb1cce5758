"""The kernels that every label run stands on, against torchvision and pycocotools, bit for bit."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import batched_nms as torchvision_batched_nms
from torchvision.ops import nms as torchvision_nms

from rayseg import kernels
from rayseg.kernels import Rles

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=60, deadline=None)


def smooth_grids(rng, count, side):
    """Random blobs, with values on both sides of a half."""
    coarse = torch.from_numpy(rng.random((count, 1, 4, 4), np.float32))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[:, 0].clamp(0, 1).numpy()


def boxes_around(rng, count, image_hw):
    """Boxes in, across and outside the image, some of no size."""
    height, width = image_hw
    corner = rng.uniform(-0.3, 1.1, (count, 2)) * (width, height)
    size = rng.uniform(0, 0.8, (count, 2)) * (width, height) * (rng.random((count, 1)) > 0.1)
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def pasted(grids, boxes, image_hw):
    """torchvision pastes, pycocotools encodes; torchvision fails on a box wholly outside, whose mask is empty."""
    masks = np.zeros((len(boxes), *image_hw), np.uint8)
    for mask, grid, box in zip(masks, torch.from_numpy(grids), torch.from_numpy(boxes), strict=True):
        with contextlib.suppress(RuntimeError):
            mask[:] = (paste_masks_in_image(grid[None, None], box[None], image_hw)[0, 0] >= 0.5).numpy()
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))


@few
@given(seeds, st.integers(0, 12), st.sampled_from([1, 2, 7, 14, 28, 56]), st.integers(1, 300), st.integers(1, 300))
def test_pasting_grids_equals_torchvision_and_pycocotools(seed, count, side, height, width):
    rng = np.random.default_rng(seed)
    grids, boxes = smooth_grids(rng, count, side), boxes_around(rng, count, (height, width))
    found = kernels.paste_rle(grids, boxes, (height, width))
    assert len(found) == count
    if count:
        expected = pasted(grids, boxes, (height, width))
        assert [rle["counts"] for rle in found.to_coco()] == [rle["counts"] for rle in expected]
        assert found.areas().tolist() == coco_mask.area(expected).tolist()


@few
@given(seeds, st.integers(0, 5), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_encoding_and_decoding_masks_equals_pycocotools(seed, count, height, width, density):
    masks = (np.random.default_rng(seed).random((count, height, width)) < density).astype(np.uint8)
    found = kernels.encode(masks)
    expected = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if count else []
    assert [rle["counts"] for rle in found.to_coco()] == [rle["counts"] for rle in expected]
    for i in range(count):
        np.testing.assert_array_equal(found.decode(i), masks[i])
    if count:
        np.testing.assert_array_equal(found.boxes_xywh(), coco_mask.toBbox(expected))
        assert Rles.from_coco(expected).to_coco() == found.to_coco()


@few
@given(seeds, st.integers(0, 400), st.integers(1, 90), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.booleans())
def test_nms_keeps_what_torchvision_keeps_in_its_order(seed, count, classes, iou_threshold, tied):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 120, (count, 2))], 1).astype(np.float32)
    scores = rng.random(count, np.float32)
    if tied:
        scores = np.round(scores, 1)
    labels = rng.integers(0, classes, count)
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    kept = kernels.nms(boxes, scores, iou_threshold)
    by_class = kernels.batched_nms(boxes, scores, labels, iou_threshold)
    expected = torchvision_nms(*tensors, iou_threshold).numpy()
    expected_by_class = torchvision_batched_nms(*tensors, torch.from_numpy(labels), iou_threshold).numpy()
    assert set(kept.tolist()) == set(expected.tolist())
    assert set(by_class.tolist()) == set(expected_by_class.tolist())
    np.testing.assert_array_equal(scores[kept], scores[expected])
    np.testing.assert_array_equal(scores[by_class], scores[expected_by_class])


@pytest.mark.parametrize("box", [[np.nan] * 4, [5, 5, 5, 5], [-50, -50, -40, -40], [0, 0, 1e6, 1e6]])
def test_strange_boxes_give_a_mask_of_the_image_all_the_same(box):
    found = kernels.paste_rle(np.ones((1, 28, 28), np.float32), np.array([box], np.float32), (10, 12))
    assert found.decode(0).shape == (10, 12)
