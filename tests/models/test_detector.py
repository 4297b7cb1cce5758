"""The inference path against torchvision's own forward, paste and pycocotools' encode."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import to_tensor

from rayseg.errors import ModelError, UsageError
from rayseg.models.architectures import ARCHITECTURES
from rayseg.models.batching import BatchSizer
from rayseg.models.cards import info_of
from rayseg.models.detector import MaskRCNNDetector
from rayseg.models.predictor import Predictor, from_model
from rayseg.models.thresholds import Thresholds

NAMES = ("a", "b", "c")
SIZES = [(96, 128), (61, 40), (300, 170), (90, 91), (20, 400)]


def predictor_of(model, settings, architecture="maskrcnn_resnet10_fpn", labels=(1, 2, 3), **options):
    detector = MaskRCNNDetector(copy.deepcopy(model), labels, settings.preprocess, **options)
    return Predictor(detector, info_of("memory", architecture, settings, NAMES, "memory"))


@pytest.fixture(scope="module")
def network(lively):
    return lively("maskrcnn_resnet10_fpn")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_torchvision_to_the_last_float_bits(architecture, lively, noise, by_torchvision, mask_difference):
    model, settings = lively(architecture)
    predictor = predictor_of(model, settings, architecture, optimize=False)
    for i, hw in enumerate(SIZES[:2] if "resnet50" in architecture else SIZES[:4]):
        expected = by_torchvision(model, noise(*hw, seed=i))
        (found,) = predictor.predict([noise(*hw, seed=i)])
        assert len(found) == len(expected["scores"]) >= 5
        np.testing.assert_array_equal(found.classes, expected["classes"])
        np.testing.assert_allclose(found.scores, expected["scores"], rtol=1e-6)
        np.testing.assert_allclose(found.boxes_xyxy, expected["boxes"], rtol=1e-6, atol=1e-5)
        assert mask_difference(found.rles.to_coco(), expected["rles"]) <= 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_optimised_equals_torchvision_closely(architecture, lively, noise, by_torchvision, mask_difference):
    model, settings = lively(architecture)
    image = noise(100, 131)
    expected = by_torchvision(model, image)
    (found,) = predictor_of(model, settings, architecture).predict([image])
    assert len(found) == len(expected["scores"]) >= 5
    np.testing.assert_array_equal(found.classes, expected["classes"])
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found.boxes_xyxy, expected["boxes"], atol=1e-2)
    assert mask_difference(found.rles.to_coco(), expected["rles"]) <= 2


def test_nothing_found_is_an_empty_record(network, noise, by_torchvision):
    model, settings = network
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.roi_heads.box_predictor.cls_score.bias[0] = 1e4
    assert len(by_torchvision(silent, noise(80, 100))["scores"]) == 0
    (found,) = predictor_of(silent, settings).predict([noise(80, 100)])
    assert len(found) == 0 and found.image_hw == (80, 100)
    assert found.boxes_xyxy.shape == (0, 4) and found.to_coco() == []


def test_no_proposals_at_all(network, noise):
    model, settings = network
    blind = copy.deepcopy(model)
    blind.rpn.score_thresh = 2.0
    assert [len(found) for found in predictor_of(blind, settings).predict([noise(50, 60)] * 2)] == [0, 0]


def test_no_images(network):
    assert predictor_of(*network).predict([]) == []


def test_a_result_does_not_depend_on_the_batch(network, noise, mask_difference):
    # two sizes that share a batch although they differ, and others between them
    images = [noise(96, 128, 1), noise(300, 170, 2), noise(97, 128, 3), noise(96, 128, 4), noise(20, 400, 5)]
    model, settings = network
    together = predictor_of(model, settings, sizer=BatchSizer(start=4)).predict(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = predictor_of(model, settings).predict([image])
        assert found.image_hw == alone.image_hw == image.shape[:2]
        np.testing.assert_array_equal(found.classes, alone.classes)
        np.testing.assert_allclose(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        assert mask_difference(found.rles.to_coco(), alone.rles.to_coco()) <= 1


def test_a_result_does_not_depend_on_what_came_before(network, noise):
    # torchvision fixes the scale of its region pools by the first image it sees; after a strip they are wrong for good
    model, settings = network
    used = copy.deepcopy(model)
    used.roi_heads.box_roi_pool.scales = None  # as when new
    strip, image = noise(12, 500), noise(96, 128)
    with torch.inference_mode():
        used([to_tensor(strip)])
    assert used.roi_heads.box_roi_pool.scales[0] != 1 / 4, "the strip has misled torchvision"
    after = predictor_of(used, settings)
    after.predict([strip])
    (found,), (fresh,) = after.predict([image]), predictor_of(model, settings).predict([image])
    np.testing.assert_array_equal(found.boxes_xyxy, fresh.boxes_xyxy)


def test_thresholds_are_torchvisions(network, noise, by_torchvision):
    model, settings = network
    predictor = predictor_of(model, settings, optimize=False)
    predictor.score_threshold, predictor.iou_threshold, predictor.max_detections = 0.3, 0.2, 7
    strict = copy.deepcopy(model)
    heads = strict.roi_heads
    heads.score_thresh, heads.nms_thresh, heads.detections_per_img = 0.3, 0.2, 7
    image = noise(96, 128)
    (found,) = predictor.predict([image])
    expected = by_torchvision(strict, image)
    assert 0 < len(found) <= 7
    np.testing.assert_allclose(found.scores, expected["scores"], rtol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, expected["boxes"], rtol=1e-6, atol=1e-5)


def test_unnamed_outputs_are_left_out(lively, noise, by_torchvision):
    # outputs 1 and 3 are classes, 2 is a gap
    model, settings = lively("maskrcnn_resnet10_fpn", 2, label_ids=(1, 3), max_detections=1000)
    image = noise(96, 128)
    expected = by_torchvision(model, image)
    named = expected["classes"] != 1
    assert not named.all()
    (found,) = predictor_of(model, settings, labels=(1, 3), optimize=False).predict([image])
    np.testing.assert_array_equal(found.classes, expected["classes"][named] // 2)
    np.testing.assert_allclose(found.boxes_xyxy, expected["boxes"][named], rtol=1e-6, atol=1e-5)


def test_prepared_images_give_what_images_give(network, noise):
    model, settings = network
    predictor = predictor_of(model, settings)
    images = [noise(400, 500), noise(60, 70)]
    prepared = [predictor.prepare(image) for image in images]
    assert [p.resized for p in prepared] == [True, False]
    for p in prepared:
        p.pixels.flags.writeable = False  # as Ray hands them out
    for a, b in zip(predictor.predict(images), predictor.predict(prepared), strict=True):
        np.testing.assert_array_equal(a.boxes_xyxy, b.boxes_xyxy)
        assert a.rles == b.rles


def test_boxes_stay_inside_the_image(network, noise):
    model, settings = network
    for hw in SIZES:
        (found,) = predictor_of(model, settings).predict([noise(*hw)])
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [hw[1], hw[0], hw[1], hw[0]]).all()


@pytest.mark.parametrize("hw", [(1, 1), (1, 700), (900, 2)])
def test_extreme_shapes_are_labelled(network, noise, hw):
    (found,) = predictor_of(*network).predict([noise(*hw)])
    assert found.image_hw == hw


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        "x",
    ],
)
def test_what_is_not_an_image_is_said(network, image):
    with pytest.raises(UsageError, match=r"\(H, W, 3\)"):
        predictor_of(*network).predict([image])


def test_out_of_memory_names_the_image(network, noise, monkeypatch):
    model, settings = network
    detector = MaskRCNNDetector(copy.deepcopy(model), (1, 2, 3), settings.preprocess)

    def exhausted(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(detector._model.backbone, "forward", exhausted)
    with pytest.raises(ModelError, match="70 x 80"):
        detector.detect([noise(70, 80)], Thresholds())


def test_the_model_in_training_is_left_alone(network):
    model, settings = network
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    from_model(model, "maskrcnn_resnet10_fpn", settings, NAMES, "cpu")
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()
