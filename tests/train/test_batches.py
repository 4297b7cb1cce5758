"""What the loop feeds on: tensors that agree with each other, areas to be ignored last."""

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from rayseg import kernels
from rayseg.datasets.synthetic import generate
from rayseg.models.architectures import settings_of
from rayseg.models.ignored_areas import IGNORED
from rayseg.models.maskrcnn import build
from rayseg.train.augmentation import Augmentation, TrainingImage, augment
from rayseg.train.batches import keep_sizes, to_tensors, training_image


@pytest.fixture(scope="module")
def samples():
    return list(generate(7, seed=3, size_px=64))


def scene(crowd=(False, False, False)):
    """Three instances: two masks and a box without one."""
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:6, 3:9] = masks[1, 10:12, 20:30] = True
    boxes = np.array([[3, 2, 9, 6], [20, 10, 30, 12], [4, 4, 8, 9]], np.float32)
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    return TrainingImage(image, boxes, np.array([4, 0, 2]), masks, np.array(crowd))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_belong_to_their_masks_mirrored_or_not(samples, flip):
    for sample in samples:
        image, target = to_tensors(augment(training_image(sample), Augmentation(flip=flip), seed=0, epoch=0, index=0))
        tight = masks_to_boxes(target["masks"])
        tight[:, 2:] += 1  # torchvision's boxes end at the last pixel, ours behind it
        assert torch.equal(target["boxes"], tight)
        assert target["labels"].tolist() == [c + 1 for c in sample.classes]
        expected = sample.image[:, ::-1] if flip else sample.image
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
        assert image.dtype == torch.uint8 and target["masks"].dtype == torch.uint8


def test_crowds_and_boxes_without_masks_come_last_to_be_ignored():
    _, target = to_tensors(scene(crowd=(True, False, False)))
    assert target["labels"].tolist() == [1, IGNORED, IGNORED]
    assert target["boxes"].tolist() == [[20, 10, 30, 12], [3, 2, 9, 6], [4, 4, 8, 9]]
    assert target["masks"].sum(dim=(1, 2)).tolist() == [20, 24, 0]


def test_boxes_of_no_area_are_left_out():
    image = scene()
    image.boxes_xyxy[0, 2] = image.boxes_xyxy[0, 0]
    _, target = to_tensors(image)
    assert target["labels"].tolist() == [1, IGNORED]


def test_packed_masks_are_the_dense_ones():
    dense = scene()
    packed = TrainingImage(dense.image, dense.boxes_xyxy, dense.classes, kernels.encode(dense.masks), dense.crowd)
    assert torch.equal(to_tensors(packed)[1]["masks"], to_tensors(dense)[1]["masks"])


def test_an_image_without_instances_has_an_empty_target_of_its_size():
    nothing = TrainingImage(
        np.zeros((5, 7, 3), np.uint8), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 7), bool), np.zeros(0, bool)
    )
    image, target = to_tensors(nothing)
    assert image.shape == (3, 5, 7)
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 5, 7) and target["labels"].shape == (0,)


def test_read_only_arrays_are_taken():
    image = scene()
    for array in (image.image, image.masks, image.boxes_xyxy):
        array.setflags(write=False)
    to_tensors(augment(image, Augmentation(flip=1.0), seed=0, epoch=0, index=0))


def test_kept_sizes_are_not_resized_in_training_and_labelling_still_resizes():
    model = build("maskrcnn_resnet10_fpn", 2, settings_of("maskrcnn_resnet10_fpn"))
    keep_sizes(model)
    images = [torch.zeros(3, 40, 60)]
    assert model.transform.train()(images)[0].image_sizes == [(40, 60)]
    assert model.transform.eval()(images)[0].image_sizes == [(192, 288)]
