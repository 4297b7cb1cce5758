"""One of two workers of a `torch.distributed` group, as a process of its own: see `main`."""

import torch
from tiny_training import Line, drawn, flat, slices_of, tiny, without_objects
from torch import distributed as dist
from torch import nn

from rayseg.train import validation
from rayseg.train.loop import Loop
from rayseg.train.order import Order
from rayseg.train.recipe import Recipe
from rayseg.train.schedule import Budget


def gradients(rank):
    model = tiny(backbone_norm="frozen_batch").to(memory_format=torch.channels_last)
    loop = Loop(model, Recipe(batch_size=4, clip_norm=1e9))
    loop.take(next(slices_of(drawn(), Order(4, 4, 2), rank, 2)), progress=0.0)
    return flat(weight.grad for weight in loop.weights), flat(loop.weights)


def losses(rank, samples, batch_size, micro_batch):
    loop = Loop(tiny(backbone_norm="frozen_batch"), Recipe(batch_size=batch_size))
    order = Order(len(samples), batch_size, micro_batch)
    history = loop.run(slices_of(samples, order, rank, 2), Budget(steps=3))
    return {"losses": history.losses, "skipped": history.skipped, "images": history.images}


def one_breaks(rank):
    loop = Loop(Line(broken={1} if rank else ()), Recipe(batch_size=2, optimizer="sgd", learning_rate=0.1))
    bad = []
    loop.on_bad_slice = lambda step, one, losses: bad.append((step, list(one.names)))
    history = loop.run(slices_of(drawn(2), Order(2, 2, 1), rank, 2), Budget(steps=3))
    return {"skipped": history.skipped, "bad": bad, "weight": loop.model.weight.item()}


def one_stops(rank):
    loop = Loop(Line(), Recipe(batch_size=2))
    loop.stop_wanted = lambda: rank == 1 and loop.step == 2
    loop.run(slices_of(drawn(2), Order(2, 2, 1), rank, 2), Budget(steps=100))
    return loop.step


def one_stops_in_validation(rank):
    """What `validate` answers, and how many of its three images each has labelled."""
    seen = []
    validation.labelled = lambda predictor, truth, ranks, **more: (seen.append(one) or one for one in ranks)
    return validation.validate(None, range(6), lambda: rank == 1), len(seen)


def half_precision_without_slices(rank):
    """One slice a step, all of them the first worker's."""
    recipe = Recipe(batch_size=2, precision="fp16", optimizer="sgd", learning_rate=0.1)
    loop = Loop(Line(), recipe)
    history = loop.run(slices_of(drawn(2), Order(2, 2, 2), rank, 2), Budget(steps=2))
    return {"skipped": history.skipped, "images": history.images, "weight": loop.model.weight.item()}


def statistics(rank):
    """A running mean in the model and in its average, as shared, and after a step that is passed over."""
    model = Line(broken={0})
    model.norm = nn.BatchNorm1d(1)
    loop = Loop(model, Recipe(batch_size=2, average=0.9))
    for state, value in ((model.state_dict(), 1.0), (loop.average.state, 10.0)):
        state["norm.running_mean"].fill_(value * rank)
    loop.share_statistics()
    shared = [state["norm.running_mean"].item() for state in (model.state_dict(), loop.average.state)]
    assert loop.take(next(slices_of(drawn(2), Order(2, 2, 1), rank, 2)), progress=0.0).skipped
    return [*shared, model.norm.running_mean.item()]


def main(rank, folder):
    """What the worker of `rank` finds is in RANK.pt of `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = drawn()
    order = Order(4, 2, 1).slices  # which images the second worker sees
    of_second = {one.indices[0] for step in range(2) for one in order(step)[1::2]}
    empty_rank = [without_objects(one) if index in of_second else one for index, one in enumerate(images)]
    found = {
        "gradients": gradients(rank),
        "empty_rank": losses(rank, empty_rank[:], 2, 1),
        "all_empty_step": losses(rank, [images[0], *map(without_objects, images[1:])], 2, 1),
        "no_slice": losses(rank, images[:3], 2, 2),
        "one_breaks": one_breaks(rank),
        "one_stops": one_stops(rank),
        "one_stops_in_validation": one_stops_in_validation(rank),
        "half_precision": half_precision_without_slices(rank),
        "statistics": statistics(rank),
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
