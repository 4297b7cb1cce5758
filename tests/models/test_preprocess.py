"""Preprocessing against torchvision's `GeneralizedRCNNTransform`."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.functional import to_tensor

from rayseg.models.architectures import settings_of
from rayseg.models.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@settings(deadline=None, max_examples=60)
@given(
    hw=st.tuples(st.integers(1, 200), st.integers(1, 200)).filter(lambda hw: max(hw) < 20 * min(hw)),
    min_size=st.integers(20, 100),
    stretch=st.floats(1, 2),
    seed=st.integers(0, 99),
)
def test_equals_torchvision_bit_for_bit(hw, min_size, stretch, seed):
    max_size = int(min_size * stretch)
    image = np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)
    transform = GeneralizedRCNNTransform(min_size, max_size, list(MEAN), list(STD)).eval()
    expected, _ = transform([to_tensor(image)])
    preprocess = Preprocess(min_size, max_size)
    height, width = expected.image_sizes[0]
    assert preprocess.resized_hw(hw) == (height, width)
    assert preprocess.padded_hw(hw) == tuple(expected.tensors.shape[-2:])
    assert torch.equal(preprocess.resize(image), expected.tensors[0, :, :height, :width])


def test_prepares_whichever_has_fewer_bytes():
    preprocess = Preprocess(50, 100)
    large, small = np.zeros((200, 300, 3), np.uint8), np.zeros((60, 60, 3), np.uint8)
    assert preprocess.prepare(large).pixels.shape == (3, 50, 75)
    assert preprocess.prepare(large).pixels.nbytes < large.nbytes
    assert preprocess.prepare(large).image_hw == (200, 300)
    assert preprocess.prepare(small).pixels is small


@pytest.mark.parametrize("hw", [(1, 5000), (5000, 1), (1, 1)])
def test_every_shape_keeps_a_pixel(hw):
    preprocess = settings_of("maskrcnn_resnet50_fpn").preprocess
    image = np.full((*hw, 3), 7, np.uint8)
    assert min(preprocess.resized_hw(hw)) >= 1
    assert preprocess.resize(image).shape == (3, *preprocess.resized_hw(hw))


def test_read_only_images_are_taken():
    image = np.zeros((40, 40, 3), np.uint8)
    image.flags.writeable = False
    assert Preprocess(20, 40).resize(image).shape == (3, 20, 20)


def test_travels_by_pickle():
    preprocess = Preprocess(50, 100)
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess


def test_planning_loads_no_torch():
    program = (
        "import sys; from rayseg.models.checkpoints import describe; from rayseg.models import predictor;"
        "describe('rectangles'); describe('maskrcnn_resnet50_fpn'); predictor.load('rectangles');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
