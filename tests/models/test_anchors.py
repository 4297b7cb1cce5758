"""Fitted anchors fit better, as boxes laid over each other one by one say, and are what torchvision makes of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from rayseg.errors import UsageError
from rayseg.models.anchors import anchor_shapes, fit_anchors, mean_best_iou, network_sizes
from rayseg.models.architectures import MaskRCNNSettings, settings_of
from rayseg.models.preprocess import Preprocess

SETTINGS = settings_of("maskrcnn_resnet50_fpn")


def by_hand(boxes_wh, found):
    """The mean best IoU, one pair of centred boxes after the other."""
    best = []
    for w, h in boxes_wh:
        ious = []
        for level in found.anchor_sizes:
            for size in level:
                for ratio in found.anchor_ratios:
                    aw, ah = size / ratio**0.5, size * ratio**0.5
                    shared = min(w, aw) * min(h, ah)
                    ious.append(shared / (w * h + aw * ah - shared))
        best.append(max(ious))
    return sum(best) / len(best)


def drawn(seed, count=300, low=5, high=60):
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(low), np.log(high), (count, 2)))


def test_the_reported_ious_are_those_counted_by_hand():
    boxes = drawn(0, 40)
    found = fit_anchors(boxes, SETTINGS)
    assert found.iou_after == pytest.approx(by_hand(boxes, found), abs=1e-12)
    assert found.iou_before == pytest.approx(by_hand(boxes, SETTINGS), abs=1e-12)
    assert found.iou_after > found.iou_before + 0.2  # boxes of 5 to 60 pixels, anchors of 32 to 512


def test_planted_sizes_and_ratios_are_found():
    rng = np.random.default_rng(1)
    planted = anchor_shapes(np.array([10.0, 25, 60, 150, 400]), np.array([0.4, 1.0, 2.5]))
    boxes = planted[rng.integers(len(planted), size=2000)] * np.exp(rng.normal(0, 0.03, (2000, 2)))
    found = fit_anchors(boxes, SETTINGS)
    assert np.allclose([size for level in found.anchor_sizes for size in level], [10, 25, 60, 150, 400], rtol=0.05)
    assert np.allclose(found.anchor_ratios, [0.4, 1.0, 2.5], rtol=0.05) and found.iou_after > 0.94


def test_with_one_ratio_no_other_size_is_better():
    """Against all sizes tried: one level, one size, one ratio."""
    chosen = MaskRCNNSettings(returned_layers=(4,), anchor_sizes=((32,), (64,)), anchor_ratios=(1.0,))
    boxes = np.stack([np.r_[np.full(50, 12.0), np.full(50, 40.0)]] * 2, axis=1)
    found = fit_anchors(boxes, chosen)
    tried = max(
        mean_best_iou(boxes, anchor_shapes(np.array([a, b], float), np.ones(1)))
        for a in range(5, 60)
        for b in range(a, 60)
    )
    assert found.iou_after == pytest.approx(tried) == 1.0 and found.anchor_sizes == ((12,), (40,))


def test_the_shapes_are_those_torchvision_makes():
    sizes, ratios = (32.0, 64.0), (0.5, 1.0, 2.0)
    made = AnchorGenerator(((32, 64),), (ratios,)).generate_anchors([32, 64], list(ratios)).numpy()
    ours = {tuple(np.round(shape / 2) * 2) for shape in anchor_shapes(np.array(sizes), np.array(ratios))}
    assert {tuple(box[2:] - box[:2]) for box in made} == ours


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 2000), st.floats(0.01, 2000)), min_size=1, max_size=30),
    st.sampled_from(["maskrcnn_resnet50_fpn", "maskrcnn_mobilenet_v3_large_fpn"]),
)
def test_no_fit_is_worse_than_what_there_was_and_settings_take_it(sizes, architecture):
    boxes, base = np.array(sizes), settings_of(architecture)
    found = fit_anchors(boxes, base)
    assert found.iou_after >= found.iou_before
    taken = MaskRCNNSettings.model_validate({**base.model_dump(), **found.fields()})
    assert [len(level) for level in taken.anchor_sizes] == [len(level) for level in base.anchor_sizes]
    assert len(taken.anchor_ratios) == len(base.anchor_ratios)
    assert found == fit_anchors(boxes, base)


def test_boxes_of_no_area_do_not_count():
    boxes = drawn(2, 50)
    odd = np.concatenate([boxes, [[0, 5], [5, 0], [-3, 4], [np.nan, 2], [np.inf, 2]]])
    assert fit_anchors(odd, SETTINGS) == fit_anchors(boxes, SETTINGS)
    with pytest.raises(UsageError, match="no box has an area"):
        fit_anchors(odd[50:], SETTINGS)
    with pytest.raises(UsageError, match="no box has an area"):
        fit_anchors(np.zeros((0, 2)), SETTINGS)


def test_sizes_are_those_after_the_network_s_own_resize():
    image = (100, 50), np.array([[10, 20, 20, 60]])  # twice as large at a shorter side of 100
    found = network_sizes([image, ((100, 100), np.zeros((0, 4)))], Preprocess(min_size=100, max_size=1000))
    assert found.tolist() == [[20, 80]]
    assert network_sizes([], Preprocess(min_size=100)).shape == (0, 2)


def test_centred_ious_are_torchvision_s():
    boxes, shapes = drawn(3, 20), drawn(4, 7)
    placed = [torch.from_numpy(np.concatenate([-wh / 2, wh / 2], axis=1)) for wh in (boxes, shapes)]
    assert mean_best_iou(boxes, shapes) == pytest.approx(float(box_iou(*placed).max(dim=1).values.mean()))
