"""What a training starts from: which tensors are loaded, which skipped, which new, and why."""

import pytest
import safetensors.torch
import torch
from torchvision.models import resnet18

from rayseg.errors import ModelError, UsageError
from rayseg.models import checkpoints, presets
from rayseg.models.architectures import settings_of
from rayseg.models.maskrcnn import body_of, build
from rayseg.models.starting import start_model

ARCHITECTURE = "maskrcnn_resnet10_fpn"
SMALL = {"fpn_channels": 8, "box_head_size": 8, "mask_layers": (8,)}
OF_CLASSES = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    torch.manual_seed(3)
    settings = settings_of(ARCHITECTURE).model_copy(update=SMALL)
    checkpoints.save(folder, build(ARCHITECTURE, 3, settings), ARCHITECTURE, settings, ["ant", "bee", "cat"])
    return folder


def same(model, name, other):
    return torch.equal(model.state_dict()[name], other[name])


def test_from_scratch_everything_is_new():
    model, report = start_model(ARCHITECTURE, ["a", "b"], settings=SMALL)
    assert model.training and report.source == "random weights" and not report.loaded and not report.skipped
    assert set(report.new) == set(model.state_dict())
    assert model.roi_heads.box_predictor.cls_score.out_features == 3
    assert report.settings.fpn_channels == 8


def test_the_seed_decides_the_random_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return start_model(ARCHITECTURE, ["a"], settings=SMALL)[0].state_dict()

    one, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_the_same_classes_is_taken_whole(checkpoint):
    model, report = start_model(checkpoint, ["ant", "bee", "cat"])
    state = checkpoints.load(checkpoint).module.state_dict()
    assert set(report.loaded) == set(state) and not report.skipped and not report.new and not report.notes
    assert all(same(model, name, state) for name in state)
    assert report.settings == checkpoints.load(checkpoint).settings and report.architecture == ARCHITECTURE


@pytest.mark.parametrize("classes", [["ant"], ["ant", "bee", "dog"], ["bee", "ant", "cat"]])
def test_of_other_classes_the_heads_that_tell_them_apart_are_replaced(checkpoint, classes):
    """As many classes of other names are other classes, though the shapes would fit."""
    model, report = start_model(checkpoint, classes)
    state = checkpoints.load(checkpoint).module.state_dict()
    skipped = [name for name in state if name.startswith(OF_CLASSES)]
    assert [name for name, _ in report.skipped] == skipped == list(report.new)
    assert all(same(model, name, state) for name in report.loaded) and len(report.loaded) == len(state) - len(skipped)
    assert not same(model, "roi_heads.box_predictor.cls_score.weight", state) or len(classes) != 3
    assert "3 classes (ant, bee, cat)" in report.notes[0] and f"{len(classes)} classes (" in report.notes[0]


def test_what_other_settings_change_the_shape_of_is_new(checkpoint):
    _, report = start_model(
        ARCHITECTURE, ["ant", "bee", "cat"], settings={**SMALL, "box_head_size": 16}, weights=checkpoint
    )
    reasons = dict(report.skipped)
    assert reasons["roi_heads.box_head.fc7.weight"] == "(8, 8) in the weights, (16, 16) in the network"
    assert set(report.new) == set(reasons) and "roi_heads.box_head.fc6.bias" in reasons
    assert "backbone.body.conv1.weight" in report.loaded


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A checkpoint whose norms are as those of torchvision's first COCO weights."""
    folder = str(tmp_path_factory.mktemp("frozen"))
    norms = {"backbone_norm": "frozen_batch", "backbone_norm_eps": 0.0}
    settings = settings_of(ARCHITECTURE).model_copy(update=SMALL | norms)
    checkpoints.save(folder, build(ARCHITECTURE, 1, settings), ARCHITECTURE, settings, ["ant"])
    return folder


@pytest.mark.parametrize(
    ("asked", "norm", "eps"),
    [
        ({}, "frozen_batch", 0.0),
        ({"backbone_norm_eps": 1e-3}, "frozen_batch", 1e-3),
        ({"backbone_norm": "batch"}, "batch", 1e-5),
        ({"backbone": "timm/resnet18"}, "batch", 1e-5),
    ],
    ids=["as they come", "another eps", "others asked for", "another body"],
)
def test_weights_bring_the_norms_of_their_backbone(frozen, asked, norm, eps):
    model, report = start_model(ARCHITECTURE, ["bee"], settings={**SMALL, **asked}, weights=frozen)
    assert (report.settings.backbone_norm, report.settings.backbone_norm_eps) == (norm, eps)
    learns = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.backbone.body.modules())
    assert learns == (norm == "batch")
    assert any("backbone_norm frozen_batch" in note for note in report.notes) == (norm == "frozen_batch")


def test_a_backbone_of_its_own_brings_no_norms_of_the_weights(frozen, tmp_path):
    path = str(tmp_path / "body.pth")
    torch.save({"conv1.weight": torch.full((64, 3, 7, 7), 0.5)}, path)
    _, report = start_model(ARCHITECTURE, ["bee"], settings=SMALL, weights=frozen, backbone_weights=path)
    assert report.settings.backbone_norm == "batch"


def test_two_architectures_over_the_same_body_know_it():
    bodies = [body_of(name, settings_of(name)) for name in ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")]
    assert bodies[0] == bodies[1] != body_of(ARCHITECTURE, settings_of(ARCHITECTURE))


def test_settings_of_a_checkpoint_can_be_changed(checkpoint):
    model, report = start_model(checkpoint, ["ant"], settings={"min_size": 100})
    assert model.transform.min_size == (100,) and report.settings.min_size == 100 and report.settings.fpn_channels == 8


def test_weights_of_which_nothing_fits_are_refused(checkpoint):
    with pytest.raises(ModelError, match=r"none of its tensors fits a maskrcnn_mobilenet"):
        start_model("maskrcnn_mobilenet_v3_large_fpn", ["a"], settings={"fpn_channels": 16}, weights=checkpoint)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.body."])
def test_a_backbone_s_file_is_matched_by_name_below_whatever_prefix(tmp_path, suffix, prefix):
    path, source = str(tmp_path / f"body{suffix}"), resnet18()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    settings = {**SMALL, "backbone": "timm/resnet18"}
    model, report = start_model(ARCHITECTURE, ["a"], settings=settings, backbone_weights=path)
    assert report.loaded and all(name.startswith("backbone.body.") for name in report.loaded)
    assert {name for name, _ in report.skipped} == {f"{prefix}fc.weight", f"{prefix}fc.bias"}
    assert set(report.loaded) | set(report.new) == set(model.state_dict()) and not report.notes
    for name in report.loaded:
        assert same(model, name, {name: source.state_dict()[name.removeprefix("backbone.body.")]})


def renamed(state, keep=lambda name: True):
    return {f"t{i}": tensor for i, (name, tensor) in enumerate(state.items()) if keep(name)}


def test_a_file_without_a_name_that_fits_is_matched_by_order_and_says_so(tmp_path):
    path, state = str(tmp_path / "body.pth"), resnet18().state_dict()
    torch.save(renamed(state, lambda name: "num_batches" not in name), path)
    model, report = start_model(
        ARCHITECTURE, ["a"], settings={**SMALL, "backbone": "timm/resnet18"}, backbone_weights=path
    )
    assert "100 tensors were matched by order and shape" in report.notes[0]
    assert [why for _, why in report.skipped] == ["after the backbone's last tensor"] * 2
    inner = {name.removeprefix("backbone.body."): name for name in report.loaded}
    assert all(torch.equal(model.state_dict()[full], state[name]) for name, full in inner.items())


def test_safetensors_are_never_matched_by_order_for_they_have_none(tmp_path):
    path, state = str(tmp_path / "body.safetensors"), resnet18().state_dict()
    safetensors.torch.save_file(renamed(state, lambda name: "num_batches" not in name), path)
    with pytest.raises(ModelError, match="no tensor has a name that fits"):
        start_model(ARCHITECTURE, ["a"], settings={**SMALL, "backbone": "timm/resnet18"}, backbone_weights=path)


def test_a_file_that_fits_neither_by_name_nor_by_order_is_refused(tmp_path):
    path, state = str(tmp_path / "body.pth"), renamed(resnet18().state_dict(), lambda name: "num_batches" not in name)
    state["t5"] = torch.zeros(7)
    state = {name: tensor for name, tensor in state.items() if name != "t6"}
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"not weights of this backbone.*in order tensor \d+ is .*expected"):
        start_model(ARCHITECTURE, ["a"], settings={**SMALL, "backbone": "timm/resnet18"}, backbone_weights=path)


def test_both_a_checkpoint_and_a_backbone_are_taken_the_backbone_last(tmp_path, checkpoint):
    path = str(tmp_path / "body.pth")
    torch.save({"conv1.weight": torch.full((64, 3, 7, 7), 0.5)}, path)
    model, report = start_model(checkpoint, ["ant", "bee", "cat"], backbone_weights=path)
    assert report.source == f"{checkpoint} and {path}" and not report.new
    assert (model.state_dict()["backbone.body.conv1.weight"] == 0.5).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "torch cannot read"), (b"not a file of torch's", "expected a state dict"), (None, "found none")],
)
def test_files_that_are_no_weights_are_named(tmp_path, content, message):
    path = tmp_path / "body.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"body\.pth.*{message}"):
        start_model(ARCHITECTURE, ["a"], settings=SMALL, backbone_weights=str(path))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = str(tmp_path / "body.pth")
    torch.save({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, path)
    with pytest.raises(ModelError, match=r"conv1\.weight holds numbers that are not finite"):
        start_model(ARCHITECTURE, ["a"], settings=SMALL, backbone_weights=path)


@pytest.mark.parametrize(
    "name",
    ["ResNet50_Weights.IMAGENET1K_V2", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1", "maskrcnn_resnet50_fpn"],
)
def test_weights_that_cannot_be_downloaded_say_where_to_put_them(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refused(*_args, **_options):
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(ModelError, match=rf"cannot be downloaded from https://.*put that file at {tmp_path}"):
        start_model("maskrcnn_resnet50_fpn", ["a"], weights=name)


def test_a_torchvision_weight_that_is_there_is_used(monkeypatch, tmp_path):
    """Downloaded once, by its name, as weights or as backbone_weights."""
    source = resnet18()
    path = tmp_path / "resnet18.pth"
    torch.save(source.state_dict(), path)
    asked = []
    monkeypatch.setattr(presets, "fetched", lambda url, name: asked.append((url, name)) or path)
    settings = {**SMALL, "backbone": "timm/resnet18"}
    for given in ({"weights": "ResNet18_Weights.IMAGENET1K_V1"}, {"backbone_weights": "ResNet18_Weights.DEFAULT"}):
        model, report = start_model(ARCHITECTURE, ["a"], settings=settings, **given)
        assert report.source == next(iter(given.values()))
        assert same(model, "backbone.body.conv1.weight", {"backbone.body.conv1.weight": source.conv1.weight})
    assert all(url.startswith("https://download.pytorch.org/models/resnet18-") for url, _ in asked) and len(asked) == 2


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("maskrcnn_resnet11_fpn", {}, ModelError, "did you mean maskrcnn_resnet10_fpn"),
        ("rectangles", {}, UsageError, "cannot be trained"),
        (ARCHITECTURE, {"settings": {"min_sise": 3}}, UsageError, r"settings\.min_sise"),
        (ARCHITECTURE, {"settings": {"fpn_channels": 0}}, UsageError, r"settings\.fpn_channels.*found 0"),
        (ARCHITECTURE, {"settings": {"backbone": "resnet18"}}, UsageError, r"settings\.backbone"),
        (ARCHITECTURE, {"settings": {"backbone": "timm/no_such_net"}}, ModelError, "no model 'no_such_net'"),
        (ARCHITECTURE, {"weights": "ResNet18_Weights.NONE"}, ModelError, "no such weights"),
        (
            ARCHITECTURE,
            {"weights": "ResNet18_Weights.DEFAULT", "backbone_weights": "x.pth"},
            UsageError,
            "give one",
        ),
    ],
)
def test_what_cannot_be_started_from_is_named(model, options, error, message):
    with pytest.raises(error, match=message):
        start_model(model, ["a"], **options)


def test_no_classes_are_refused():
    with pytest.raises(UsageError, match="no classes"):
        start_model(ARCHITECTURE, [])


def test_a_timm_body_comes_with_its_own_normalisation_unless_told_otherwise():
    body = {**SMALL, "backbone": "timm/tf_efficientnet_lite0"}
    assert start_model(ARCHITECTURE, ["a"], settings=body)[1].settings.image_mean == (0.5, 0.5, 0.5)
    told = {**body, "image_mean": (0.1, 0.2, 0.3)}
    assert start_model(ARCHITECTURE, ["a"], settings=told)[1].settings.image_mean == (0.1, 0.2, 0.3)
