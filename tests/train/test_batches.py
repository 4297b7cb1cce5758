"""What the loop feeds on: tensors that agree with each other, every sample once per round."""

import itertools

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from rayseg.datasets.synthetic import generate
from rayseg.errors import UsageError
from rayseg.train.batches import endless_batches, mirror_boxes, to_tensors


@pytest.fixture(scope="module")
def samples():
    return list(generate(7, seed=3, size_px=64))


@pytest.mark.parametrize("mirror", [False, True])
def test_boxes_belong_to_their_masks_mirrored_or_not(samples, mirror):
    for sample in samples:
        image, target = to_tensors(sample, mirror=mirror)
        tight = masks_to_boxes(target["masks"])
        tight[:, 2:] += 1  # torchvision's boxes end at the last pixel, ours behind it
        assert torch.equal(target["boxes"], tight)
        assert target["labels"].tolist() == [c + 1 for c in sample.classes]
        expected = sample.image[:, ::-1] if mirror else sample.image
        assert np.array_equal((image.permute(1, 2, 0) * 255).round().numpy(), expected)
        assert image.dtype == torch.float32 and target["masks"].dtype == torch.uint8


def test_mirroring_twice_changes_nothing():
    boxes = torch.tensor([[1.0, 2, 5, 9], [0, 0, 64, 64]])
    assert torch.equal(mirror_boxes(mirror_boxes(boxes, 64), 64), boxes)


def test_every_sample_once_per_round_in_changing_order(samples):
    batches = endless_batches(samples, 7, 0.0, seed=0)
    rounds = []
    for images, _ in itertools.islice(batches, 2):
        rounds.append(
            [next(i for i, s in enumerate(samples) if torch.equal(to_tensors(s)[0], image)) for image in images]
        )
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(7))
    assert rounds[0] != rounds[1]


def test_the_seed_decides_order_and_mirroring(samples):
    def first(seed):
        return torch.stack(next(endless_batches(samples, 7, 0.5, seed))[0])

    assert torch.equal(first(4), first(4))
    assert not torch.equal(first(4), first(5))


def test_batches_can_be_larger_than_the_set(samples):
    images, targets = next(endless_batches(samples[:2], 5, 0.5, seed=0))
    assert len(images) == len(targets) == 5


def test_wrong_batch_size_is_named(samples):
    with pytest.raises(UsageError, match="batch_size"):
        endless_batches(samples, 0, 0.5, seed=0)
