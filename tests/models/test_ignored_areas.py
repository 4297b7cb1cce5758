"""Crowds are neither objects nor background, in the proposals' losses and in the heads'."""

import pytest
import torch

from rayseg.models.architectures import settings_of
from rayseg.models.ignored_areas import IGNORED
from rayseg.models.maskrcnn import build

BOXES = torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60], [50, 30, 70, 50], [80, 80, 90, 90], [30, 30, 90, 90]])


@pytest.fixture(scope="module")
def model():
    return build("maskrcnn_resnet10_fpn", 2, settings_of("maskrcnn_resnet10_fpn"))


def targets(*labelled):
    boxes = torch.tensor([box for box, _ in labelled]).reshape(-1, 4)
    return [{"boxes": boxes, "labels": torch.tensor([label for _, label in labelled], dtype=torch.int64)}]


OBJECT = ([0.0, 0, 10, 10], 2)
CROWD = ([40.0, 40, 60, 60], IGNORED)  # holds all of box 1, a quarter of box 2, a ninth of box 4


def test_background_in_a_crowd_is_no_background(model):
    labels, matched = model.rpn.assign_targets_to_anchors([BOXES], targets(OBJECT, CROWD))
    assert labels[0].tolist() == [1, -1, 0, 0, 0]
    assert matched[0][0].tolist() == OBJECT[0]


def test_the_heads_leave_proposals_in_a_crowd_alone(model):
    target = targets(OBJECT, CROWD)[0]
    matched, labels = model.roi_heads.assign_targets_to_proposals([BOXES], [target["boxes"]], [target["labels"]])
    assert labels[0].tolist() == [2, -1, 0, 0, 0]
    assert matched[0][0] == 0


def test_an_object_in_a_crowd_stays_one(model):
    inside = ([40.0, 40, 60, 60], 1)
    labels, _ = model.rpn.assign_targets_to_anchors([BOXES], targets(inside, ([30.0, 30, 70, 70], IGNORED)))
    assert labels[0].tolist() == [0, 1, -1, 0, 0]


@pytest.mark.parametrize("labelled", [(), (OBJECT,), (OBJECT, ([20.0, 5, 31, 14], 1))])
def test_without_crowds_all_is_as_torchvision_has_it(model, labelled):
    target = targets(*labelled)
    rpn = type(model.rpn).__base__.assign_targets_to_anchors(model.rpn, [BOXES], target)
    for ours, theirs in zip(model.rpn.assign_targets_to_anchors([BOXES], target), rpn, strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_an_image_of_nothing_but_a_crowd_trains(model):
    boxes = torch.tensor([[10.0, 10, 100, 100]])
    target = {"boxes": boxes, "labels": torch.tensor([IGNORED]), "masks": torch.ones(1, 128, 128, dtype=torch.uint8)}
    losses = model.train()([torch.rand(3, 128, 128)], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == 0 and losses["loss_box_reg"] == 0


@pytest.mark.parametrize("head_norm", ["none", "batch", "group"])
def test_an_image_that_a_crowd_covers_teaches_the_heads_nothing(head_norm):
    """Every proposal lies in the crowd: there is nothing to take a mean of."""
    settings = settings_of("maskrcnn_resnet10_fpn").model_copy(update={"head_norm": head_norm})
    model = build("maskrcnn_resnet10_fpn", 2, settings).train()
    boxes = torch.tensor([[0.0, 0, 128, 128]])
    target = {"boxes": boxes, "labels": torch.tensor([IGNORED]), "masks": torch.ones(1, 128, 128, dtype=torch.uint8)}
    losses = model([torch.rand(3, 128, 128)], [target])
    assert {name: losses[name].item() for name in ("loss_classifier", "loss_box_reg", "loss_mask")} == dict.fromkeys(
        ("loss_classifier", "loss_box_reg", "loss_mask"), 0
    )
    sum(losses.values()).backward()
    heads = {name: weight.grad for name, weight in model.roi_heads.named_parameters()}
    assert all(grad is not None and not grad.any() for grad in heads.values()), heads
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_the_heads_learn_from_proposals_that_are_too_unlikely_for_labelling():
    """Else, once the proposals' network knows background, an image without objects would leave the heads nothing."""
    settings = settings_of("maskrcnn_resnet10_fpn").model_copy(update={"rpn_score_threshold": 0.05})
    model = build("maskrcnn_resnet10_fpn", 2, settings)
    torch.nn.init.constant_(model.rpn.head.cls_logits.bias, -20)
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 128, 128, dtype=torch.uint8),
    }
    image = torch.rand(3, 128, 128)
    losses = model.train()([image], [nothing])
    assert losses["loss_classifier"] > 0.5 and all(torch.isfinite(loss) for loss in losses.values())
    with torch.inference_mode():
        assert len(model.eval()([image])[0]["boxes"]) == 0
        torch.nn.init.constant_(model.rpn.head.cls_logits.bias, 0)
        assert len(model([image])[0]["boxes"]) > 0
