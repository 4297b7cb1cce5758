"""Pasting and resizing grids where things get odd: no detections, no size, no numbers, one pixel."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.kernel_references import coco_rles, pasted

from rayseg.kernels import map_images, paste_rle, resize_rle

ONES = np.ones((1, 28, 28), np.float32)


def test_no_detections_give_an_empty_record() -> None:
    rles = paste_rle(np.empty((0, 28, 28), np.float32), np.empty((0, 4), np.float32), (480, 640))
    assert len(rles) == 0 and rles.to_coco() == [] and rles.image_hw == (480, 640)
    assert len(resize_rle(np.empty((0, 5, 7), np.float32), (3, 4))) == 0


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 1, 5, 5],
        [1, 1, np.nan, 5],
        [np.inf, 1, np.inf, 5],
        [-np.inf, -np.inf, np.inf, np.inf],
        [-50, -50, -20, -20],
        [500, 500, 600, 600],
        [3e38, 0, 3.2e38, 5],
    ],
)
def test_box_that_is_not_finite_or_outside_gives_an_empty_mask(box: list[float]) -> None:
    rles = paste_rle(ONES, np.array([box], np.float32), (40, 60))
    assert rles.areas().tolist() == [0] and rles.check() == [None]
    assert rles.to_coco() == coco_rles(np.zeros((1, 40, 60)))


def test_box_far_larger_than_the_image_covers_it_without_allocating_it() -> None:
    box = np.array([[-1e7, -1e7, 1e7, 1e7]], np.float32)
    assert paste_rle(ONES, box, (40, 60)).areas().tolist() == [2400]


def test_mask_over_the_whole_image_is_one_run() -> None:
    rles = resize_rle(ONES, (30, 50))
    assert rles.to_coco() == coco_rles(np.ones((1, 30, 50)))


@pytest.mark.parametrize("image_hw", [(1, 1), (1, 300), (300, 1)])
def test_images_one_pixel_wide(image_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid = rng.random((28, 28), dtype=np.float32)
        box = np.sort(rng.random((2, 2)) * image_hw[::-1], axis=0).reshape(4).astype(np.float32)
        mask = pasted(grid, box, image_hw, 0.5)
        assert paste_rle(grid[None], box[None], image_hw).to_coco() == coco_rles(mask[None])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_treated_as_torch_treats_them(bad: float) -> None:
    rng = np.random.default_rng(1)
    for side, image_hw in ((28, (200, 300)), (28, (60, 60)), (5, (150, 9))):
        grid = rng.random((side, side), dtype=np.float32)
        grid[rng.integers(0, side, 6), rng.integers(0, side, 6)] = bad
        box = np.array([2, 3, image_hw[1] - 1.5, image_hw[0] - 4.25], np.float32)
        assert paste_rle(grid[None], box[None], image_hw).to_coco() == coco_rles(pasted(grid, box, image_hw, 0.5)[None])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(1, 150), st.integers(100, 400), st.integers(60, 400),
    st.sampled_from([0.0, 0.5, -1.0]),
)  # fmt: skip
def test_resizing_tall_grids_equals_interpolate(
    seed: int, rows: int, columns: int, height: int, width: int, threshold: float
) -> None:
    grid = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    values = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None], size=(height, width), mode="bilinear", align_corners=False
    )
    expected = coco_rles((values[0] >= threshold).numpy())
    assert resize_rle(grid[None], (height, width), threshold).to_coco() == expected


def test_image_of_many_pixels_and_a_small_grid() -> None:
    grid = np.random.default_rng(3).random((1, 6, 6), dtype=np.float32)
    values = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], size=(1500, 2100), mode="bilinear")
    rles = resize_rle(grid, (1500, 2100))
    assert rles.to_coco() == coco_rles((values[0] >= 0.5).numpy())
    assert coco.area(rles.to_coco()[0]) == rles.areas()[0]


@pytest.mark.parametrize(
    ("grids", "boxes", "words"),
    [
        (np.ones((2, 28, 28), np.float32), np.ones((1, 4), np.float32), "boxes_xyxy must be (2, 4)"),
        (np.ones((28, 28), np.float32), np.ones((1, 4), np.float32), "grids must be (N, M, M)"),
        (np.ones((1, 0, 0), np.float32), np.ones((1, 4), np.float32), "grids must be (N, M, M)"),
    ],
)
def test_wrong_shapes_are_named(grids: np.ndarray, boxes: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        paste_rle(grids, boxes, (10, 10))
    assert words in str(caught.value)


def test_wrong_image_size_is_named() -> None:
    with pytest.raises(ValueError, match="image_hw must be two whole numbers"):
        paste_rle(ONES, np.ones((1, 4), np.float32), (10, -1))


def test_threads_give_what_one_thread_gives() -> None:
    rng = np.random.default_rng(2)
    grids = [rng.random((n, 14, 14), dtype=np.float32) for n in (3, 0, 5, 1)]
    boxes = [np.sort(rng.random((len(g), 2, 2)) * 90, axis=1).reshape(-1, 4).astype(np.float32) for g in grids]
    sizes = [(100, 90), (10, 10), (90, 120), (50, 50)]
    assert map_images(paste_rle, grids, boxes, sizes, threads=3) == map_images(paste_rle, grids, boxes, sizes)
    with pytest.raises(ValueError, match="threads must be 1 or more"):
        map_images(paste_rle, grids, boxes, sizes, threads=0)
