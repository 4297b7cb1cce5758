"""What the seeded comparisons do not reach: empty input, odd numbers, refusals, tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernels.kernel_references import ring_area
from torchvision import ops

from rayseg import kernels

NOTHING = np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)


def test_no_boxes() -> None:
    boxes, scores, classes = NOTHING
    assert kernels.nms(boxes, scores, 0.5).tolist() == kernels.batched_nms(boxes, scores, classes, 0.5).tolist() == []
    assert kernels.fast_nms(boxes, scores, classes, 0.5).tolist() == []
    assert [part.tolist() for part in kernels.soft_nms(boxes, scores)] == [[], []]
    assert kernels.matrix_nms(np.empty((0, 0)), scores).tolist() == []
    assert kernels.mask_nms(kernels.Rles.empty((4, 5)), scores, 0.5).tolist() == []
    assert kernels.mask_ious(kernels.Rles.empty((4, 5)), kernels.Rles.empty((4, 5))).shape == (0, 0)


@pytest.mark.parametrize("threshold", [0.3, 0.1 + 0.2, 1 / 3, 0.0, -0.5, 1.0])
def test_thresholds_that_float32_cannot_hold(threshold: float) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 12, (400, 4)).astype(np.float32)  # small whole numbers: IoUs hit 0.3 and 1/3 exactly
    boxes[:, 2:] += boxes[:, :2]
    scores, classes = rng.random(400).astype(np.float32), rng.integers(0, 3, 400)
    tensors = [torch.from_numpy(v) for v in (boxes, scores, classes)]
    assert kernels.nms(boxes, scores, threshold).tolist() == ops.nms(*tensors[:2], threshold).tolist()
    assert (
        kernels.batched_nms(boxes, scores, classes, threshold).tolist() == ops.batched_nms(*tensors, threshold).tolist()
    )


def test_scores_that_are_not_numbers_come_first_as_in_torch() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6], [8, 8, 9, 9]], np.float32)
    scores = np.array([0.9, np.nan, -0.0, 0.0], np.float32)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    assert kernels.nms(boxes, scores, 0.5).tolist() == expected.tolist() == [1, 2, 3]


def test_classes_of_any_value() -> None:
    rng = np.random.default_rng(1)
    for count in (200, 1500):
        boxes = rng.random((count, 4)).astype(np.float32) * 50
        boxes[:, 2:] += boxes[:, :2]
        scores = rng.permutation(count).astype(np.float32)
        classes = rng.choice([-7, 0, 3, 10**6, 2**40], count)
        expected = ops.batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), 0.4)
        assert kernels.batched_nms(boxes, scores, classes, 0.4).tolist() == expected.tolist()


def test_shapes_that_do_not_fit_are_named() -> None:
    boxes, scores = np.zeros((3, 4), np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"scores must be \(3,\), one per box, found \(2,\)"):
        kernels.nms(boxes, scores, 0.5)
    with pytest.raises(ValueError, match=r"boxes_xyxy must be \(N, 4\)"):
        kernels.nms(boxes[:, :3], scores, 0.5)
    with pytest.raises(ValueError, match=r"classes must be \(2,\)"):
        kernels.batched_nms(boxes[:2], scores, np.zeros(5, int), 0.5)
    with pytest.raises(ValueError, match="method must be"):
        kernels.soft_nms(boxes[:2], scores, method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="measure must be"):
        kernels.mask_nms(kernels.Rles.empty((1, 1)), scores[:0], 0.5, measure="dice")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of different images"):
        kernels.mask_ious(kernels.Rles.empty((1, 1)), kernels.Rles.empty((1, 2)))


def test_dense_input_of_other_kinds_is_refused() -> None:
    with pytest.raises(TypeError, match="masks must be bool or uint8, found float32"):
        kernels.encode(np.zeros((1, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"masks must be \(N, H, W\)"):
        kernels.encode(np.zeros((2, 2), np.uint8))
    with pytest.raises(TypeError, match="an id map must hold integers"):
        kernels.encode_id_map(np.zeros((2, 2)))
    assert len(kernels.encode(np.zeros((0, 5, 5), bool))) == 0
    assert kernels.encode(np.zeros((2, 0, 5), bool)).check() == [None, None]
    assert len(kernels.encode_id_map(np.zeros((0, 5), np.int32))[1]) == 0


def test_ring_of_one_pixel_runs_clockwise_on_the_screen() -> None:
    mask = np.zeros((1, 3, 4), bool)
    mask[0, 1, 2] = True
    ((ring,),) = kernels.to_polygons(kernels.encode(mask))[0]
    corners = ring.tolist()
    start = corners.index([2, 1])
    assert corners[start:] + corners[:start] == [[2, 1], [3, 1], [3, 2], [2, 2]]


def test_corners_do_not_join_parts_but_join_holes() -> None:
    mask = np.ones((1, 6, 6), bool)
    mask[0, 2, 2] = mask[0, 3, 3] = False
    assert [len(part) for part in kernels.to_polygons(kernels.encode(mask))[0]] == [2]
    assert [len(part) for part in kernels.to_polygons(kernels.encode(~mask))[0]] == [1, 1]


def test_simplified_rings_stay_within_the_tolerance() -> None:
    y, x = np.mgrid[:120, :160]
    mask = ((x - 80) ** 2 / 70**2 + (y - 60) ** 2 / 50**2 < 1) & ~((x - 80) ** 2 + (y - 60) ** 2 < 20**2)
    rles = kernels.encode(mask[None])
    exact, simple = kernels.to_polygons(rles)[0][0], kernels.to_polygons(rles, 1.5)[0][0]
    for whole, ring in zip(exact, simple, strict=True):
        a, b = ring.astype(float), np.roll(ring, -1, axis=0).astype(float)
        along = ((whole[:, None] - a) * (b - a)).sum(2) / ((b - a) ** 2).sum(1)
        distances = np.linalg.norm(whole[:, None] - (a + along.clip(0, 1)[..., None] * (b - a)), axis=2)
        assert distances.min(1).max() <= 1.5
        assert len(ring) < len(whole) / 3
    assert ring_area(simple[1]) < 0 < ring_area(simple[0])


def test_polygons_fill_pixels_whose_centres_they_hold() -> None:
    triangle = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    far = np.array([[-10.0, -10.0], [-5.0, -10.0], [-5.0, 90.0]])
    overlapping = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    rles = kernels.from_polygons([[[triangle], [overlapping], [far]], []], (5, 6))
    x, y = np.arange(6) + 0.5, np.arange(5)[:, None] + 0.5
    assert np.array_equal(rles.decode(0), (x + y < 4) & (x > 0))
    assert rles.areas().tolist() == [6, 0]
    with pytest.raises(ValueError, match=r"a ring must be \(K, 2\) finite numbers"):
        kernels.from_polygons([[[np.array([[np.nan, 1.0]])]]], (5, 6))


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = kernels.nope
    assert {"nms", "paste_rle", "Rles"} <= set(dir(kernels))
