"""A training goes on from a checkpoint as if nothing had happened."""

import pytest
import torch
from tiny_training import Line, drawn, slices_of, tiny

from rayseg import storage
from rayseg.errors import JobError
from rayseg.train import checkpointing
from rayseg.train.loop import Loop
from rayseg.train.order import Order
from rayseg.train.recipe import Recipe
from rayseg.train.schedule import Budget

SAMPLES, ORDER = drawn(3), Order(3, 2, 1, seed=5)


def run(loop, until):
    budget = Budget(steps=8)
    source = slices_of(SAMPLES, ORDER, first_step=loop.step)
    loop.stop_wanted = lambda: loop.step + 1 == until
    return loop.run(source, budget).losses


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(batch_size=2, average=0.9, warmup_steps=2, precision="bf16"),
        Recipe(batch_size=2, optimizer="sgd", learning_rate=0.01, schedule="step", milestones=(0.5,), warmup_steps=2),
    ],
    ids=["adamw", "sgd"],
)
def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path, recipe):
    whole, first, second = (Loop(tiny().to(memory_format=torch.channels_last), recipe) for _ in range(3))
    expected = run(whole, until=5)
    begun = run(first, until=3)
    checkpointing.save(str(tmp_path), first, None, {"best": None})
    found = checkpointing.restore_latest(str(tmp_path), second)
    assert found is not None and found.step == second.step == 3 and second.elapsed_s == first.elapsed_s
    assert begun + run(second, until=5) == pytest.approx(expected, abs=1e-6)
    for name, tensor in whole.weights_to_keep().items():
        assert torch.allclose(tensor, second.weights_to_keep()[name], atol=1e-6), name


def saved(out, steps, scores):
    for step, score in zip(steps, scores, strict=True):
        loop = Loop(Line(), Recipe())
        loop.step = step
        loop.model.weight.data.fill_(step)
        checkpointing.save(str(out), loop, score, {})


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    saved(tmp_path, [1, 2, 3, 4, 5], [0.1, 0.4, 0.4, None, 0.2])
    checkpointing.prune(str(tmp_path), 2)
    found = checkpointing.all_of(str(tmp_path))
    assert [one.step for one in found] == [3, 4, 5]
    assert checkpointing.best_of(found) == found[0]
    best, weights = checkpointing.best_weights(str(tmp_path))
    assert best == found[0] and weights["weight"].item() == 3
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 6


def test_a_damaged_or_half_written_one_is_passed_over(tmp_path):
    saved(tmp_path, [1, 2, 3], [None] * 3)
    found = checkpointing.all_of(str(tmp_path))
    storage.write(storage.join(found[1].uri, "state.safetensors"), b"cut off")
    storage.delete(storage.join(found[2].uri, "state.json"))
    loop, said = Loop(Line(), Recipe()), []
    assert checkpointing.restore_latest(str(tmp_path), loop, said.append).step == 1
    assert loop.model.weight.item() == 1
    assert len(said) == 1 and "step-00000002: damaged" in said[0]


def damage(out, step, size_bytes=None):
    """Change a byte of the tensors, or cut them to a size."""
    path = out / "checkpoints" / f"step-{step:08d}" / "state.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if size_bytes is None else data[:size_bytes])


@pytest.mark.parametrize("size_bytes", [None, 10], ids=["changed", "cut off"])
def test_a_damaged_last_one_does_not_push_out_what_is_learnt_after_it(tmp_path, size_bytes):
    saved(tmp_path, [50, 100], [0.9, None])
    damage(tmp_path, 100, size_bytes)
    loop = Loop(Line(), Recipe())
    assert checkpointing.restore_latest(str(tmp_path), loop).step == 50
    for step in (60, 70):
        loop.step = step
        checkpointing.save(str(tmp_path), loop, None, {})
        checkpointing.prune(str(tmp_path), 1)
        assert [one.step for one in checkpointing.all_of(str(tmp_path))] == [50, step]
    assert not list(tmp_path.rglob("*100/*"))


def test_a_best_one_that_is_cut_off_does_not_push_out_the_next_best(tmp_path):
    saved(tmp_path, [1, 2, 3], [0.9, 0.5, None])
    damage(tmp_path, 1, 10)
    checkpointing.prune(str(tmp_path), 1)
    assert [one.step for one in checkpointing.all_of(str(tmp_path))] == [2, 3]


def test_the_model_is_the_best_that_is_whole(tmp_path):
    saved(tmp_path, [1, 2, 3], [0.9, 0.5, None])
    for step, left in ((1, 2), (2, 3)):
        damage(tmp_path, step)
        said = []
        best, weights = checkpointing.best_weights(str(tmp_path), said.append)
        assert best.step == weights["weight"].item() == left
        assert len(said) == step and f"step-{step:08d}: damaged" in said[-1]
    damage(tmp_path, 3)
    with pytest.raises(JobError, match="no whole checkpoint"):
        checkpointing.best_weights(str(tmp_path))


def test_one_of_another_model_is_refused(tmp_path):
    saved(tmp_path, [1], [None])
    with pytest.raises(JobError, match="another model or recipe"):
        checkpointing.restore_latest(str(tmp_path), Loop(tiny(), Recipe()))


def test_none_is_none(tmp_path):
    assert checkpointing.restore_latest(str(tmp_path / "nothing"), Loop(Line(), Recipe())) is None


def test_object_storage_keeps_them_as_well(bucket):
    out = f"{bucket}/runs/one"
    saved(out, [1, 2, 3], [0.5, None, None])
    checkpointing.prune(out, 1)
    assert [one.step for one in checkpointing.all_of(out)] == [1, 3]
    loop = Loop(Line(), Recipe())
    assert checkpointing.restore_latest(out, loop).step == loop.model.weight.item() == 3
