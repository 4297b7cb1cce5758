"""The demo's pieces, without the Ray job between them."""

import json

import pytest
from rich.console import Console

import rayseg
from rayseg import demo
from rayseg.errors import UsageError
from rayseg.train.schedule import Budget


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The demo's folder after two steps of training."""
    root = demo.claim_folder(str(tmp_path_factory.mktemp("demo") / "out"))
    samples = demo.draw_data(root, 6, 3)
    model, history = demo.train_model(samples, Budget(steps=2), Console(quiet=True))
    metrics = demo.evaluate(model, root / "held-out")
    demo.save_model(root / "model", model, history, metrics)
    return root, model, history, metrics


def test_held_out_images_are_none_of_the_training_images(trained):
    root = trained[0]
    train, held_out = (
        {path.read_bytes() for path in (root / name / "images").iterdir()} for name in ("train", "held-out")
    )
    assert (len(train), len(held_out)) == (6, 3)
    assert not train & held_out


def test_the_checkpoint_answers_like_the_trained_model(trained):
    root, model, _, metrics = trained
    predictor = rayseg.load(str(root / "model"))
    assert predictor.class_names == demo.CLASS_NAMES
    assert predictor.info.metrics["segm"]["AP"] == metrics.segm["AP"]
    assert demo.evaluate(model, root / "held-out") == metrics  # evaluating does not change the model


def test_the_card_says_how_it_was_trained(trained):
    root, _, history, _ = trained
    training = json.loads((root / "model" / "model.json").read_text())["training"]
    assert history.steps == training["steps"] == 2
    assert training["images"] == 6  # an epoch: a step of four images and one of two
    assert training["recipe"]["learning_rate"] == demo.RECIPE.learning_rate


def test_an_earlier_demo_makes_room(tmp_path):
    root = demo.claim_folder(str(tmp_path / "out"))
    (root / "labels").mkdir()
    (root / "labels" / "manifest.json").write_text("{}")
    (root / "notes.txt").write_text("mine")
    demo.claim_folder(str(root))
    assert sorted(path.name for path in root.iterdir()) == ["demo.json", "notes.txt"]


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").write_text("x")
    with pytest.raises(UsageError, match="other files"):
        demo.claim_folder(str(tmp_path))
    assert (tmp_path / "model" / "precious").exists()
    with pytest.raises(UsageError, match="found a file"):
        demo.claim_folder(str(tmp_path / "model" / "precious"))


def test_commands_to_try_next_can_be_pasted(tmp_path):
    import shlex

    for command in demo._next_commands(tmp_path / "a folder"):
        words = shlex.split(command)
        assert words[0] == "rayseg" and words[1] in ("label", "verify")
        assert not any("a folder" not in word for word in words if word.startswith(str(tmp_path)))
