"""The training loop: a model, slices of images, a recipe and a budget in; a trained model and its losses out.

Plain PyTorch on one device, alone or as one worker of a `torch.distributed` group. It knows nothing of files, clusters or
metrics: whoever calls it brings the slices (`order` says which) and looks at the model afterwards. Any model will do that,
in training mode, turns images and targets into a dict of losses, as torchvision's detectors do.

Workers meet once per step, in one sum of all gradients, losses and wishes: a worker without slices or without objects
brings zeros and waits for nobody, and what one of them sees (a loss that is not finite, a wish to stop) all of them know.

B images of a slice, N instances, H W image pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rayseg.errors import JobError
from rayseg.train.optimizer import WeightAverage, build_optimizer
from rayseg.train.recipe import Recipe
from rayseg.train.schedule import Budget
from rayseg.train.stand_ins import StandIn

_LOSSES = 16  # most losses a model may name
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """B images (3, H, W) uint8 and their targets, which go through the network together; see `order.Slice`."""

    images: Sequence[Tensor]
    targets: Sequence[Mapping[str, Tensor]]
    names: Sequence[str]
    weight: float
    seed: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: `progress` in (0, 1] is the share of the budget that was spent when it began.

    `losses` are the means over the batches of all workers, `images` counts those of this one, and `seconds` is where this
    one's time went: wait (for data), forward, backward, optimizer (with the wait for other workers).
    """

    number: int
    progress: float
    elapsed_s: float
    learning_rate: float
    losses: dict[str, float]
    skipped: bool
    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The sum that was minimised."""
        return sum(self.losses.values())


@dataclass(slots=True)
class History:
    """Every step's loss, and how the training went as a whole."""

    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    images: int = 0
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return len(self.losses)


class Loop:
    """A model in training with its optimiser, and how far it has come.

    `on_bad_slice` is told of every slice of this worker whose loss is not finite, with its losses; `on_stand_in` of every
    image that another one stands in for, once. `stop_wanted` is asked once per step; where any worker's says yes,
    `stopping` becomes true on all of them after the same step.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, device: str | torch.device = "cpu") -> None:
        self.model, self.recipe, self.device = model, recipe, torch.device(device)
        self.optimizer = build_optimizer(model, recipe)
        self.weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.average = WeightAverage(model, recipe.average) if recipe.average else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.scaler.scale(
            torch.zeros((), device=self.device)
        )  # a worker's first step may have no loss to make the scale
        self.step, self.elapsed_s, self.skipped_in_a_row = 0, 0.0, 0
        self.stopping = False
        self._statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._last_good = [buffer.clone() for buffer in self._statistics]
        self.joined = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        self.stop_wanted: Callable[[], bool] = lambda: False
        self.on_bad_slice: Callable[[int, TensorSlice, dict[str, float]], None] = lambda step, one, losses: None
        self.on_stand_in: Callable[[str], None] = lambda why: None
        self._stood_in_for = set[str]()
        self._clock = time.monotonic()

    def run(
        self,
        batches: Iterable[Sequence[TensorSlice]],
        budget: Budget,
        on_step: Callable[[Step], None] | None = None,
    ) -> History:
        """One step per batch until the budget or the batches end, or a worker wants to stop.

        Raises `JobError` after `max_skipped` steps in a row without an update.
        """
        history, begin = History(), time.monotonic()
        self._clock = begin - self.elapsed_s
        source = iter(batches)
        while not self.stopping and (progress := budget.progress(self.step, self.elapsed_s)) < 1:
            asked = time.monotonic()
            batch = next(source, None)
            if batch is None:
                break
            wait_s = time.monotonic() - asked
            if not history.losses:  # the start of what loads is no training
                self.leave_out(wait_s)
                wait_s = 0.0
            step = self.take(batch, progress, wait_s)
            history.losses.append(step.loss)
            history.skipped += step.skipped
            history.images += step.images
            self._stop_if_diverged(step)
            if on_step:
                on_step(step)
        history.seconds = time.monotonic() - begin
        return history

    def take(self, batch: Sequence[TensorSlice], progress: float, wait_s: float = 0.0) -> Step:
        """Forward and backward of each slice, the sum over workers, one update.

        A step with a non-finite loss or gradient is passed over: it must not reach the weights, the optimiser's state or
        running statistics.
        """
        seconds = {"wait": wait_s, "forward": 0.0, "backward": 0.0}
        number, begun_s = self.step, self.elapsed_s
        rate = self.recipe.rate(number, progress)
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, float] = {}
        for one in batch:
            self._tell_of_stand_ins(one)
            for name, value in self._learn(one, seconds).items():
                losses[name] = losses.get(name, 0.0) + value * one.weight
        begin = time.monotonic()
        losses = self._meet(losses)
        taken = math.isfinite(sum(losses.values())) and self._update(rate)
        seconds["optimizer"] = time.monotonic() - begin
        if taken:
            self.trust_statistics()
        else:
            self._take_back_statistics()
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        self.step += 1
        images = sum(len(one.images) for one in batch)
        return Step(number, progress, begun_s, rate, losses, not taken, images, seconds)

    def _tell_of_stand_ins(self, one: TensorSlice) -> None:
        for name in one.names:
            if isinstance(name, StandIn) and name.why not in self._stood_in_for:
                self._stood_in_for.add(name.why)
                self.on_stand_in(name.why)

    def _learn(self, one: TensorSlice, seconds: dict[str, float]) -> dict[str, float]:
        """Add the gradient of a slice, if its loss is finite; its losses by name."""
        begin = time.monotonic()
        torch.manual_seed(one.seed)  # which anchors and proposals are sampled must not depend on what came before
        images = [image.to(self.device, non_blocking=True).float().div_(255) for image in one.images]  # B of (3, H, W)
        targets = [{key: value.to(self.device, non_blocking=True) for key, value in t.items()} for t in one.targets]
        dtype = _DTYPES.get(self.recipe.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            named = self.model(images, targets)
        terms = torch.stack([loss.float() for loss in named.values()])
        losses = dict(zip(named, terms.detach().tolist(), strict=True))
        between = time.monotonic()
        seconds["forward"] += between - begin
        if not math.isfinite(sum(losses.values())):
            self.on_bad_slice(self.step, one, losses)
            if not self.joined:  # a backward through synchronised norms is waited for by the other workers
                return losses
        self.scaler.scale(terms.sum() * one.weight).backward()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds["backward"] += time.monotonic() - between
        return losses

    def _meet(self, losses: dict[str, float]) -> dict[str, float]:
        """Sum gradients, losses and wishes over the workers; this worker's losses by name, now those of all."""
        if not _workers():
            self.elapsed_s = time.monotonic() - self._clock
            self.stopping = self.stop_wanted()
            return losses
        lead = dist.get_rank() == 0
        told = [time.monotonic() - self._clock if lead else 0.0, float(self.stop_wanted()), *losses.values()]
        told += [0.0] * (2 + _LOSSES - len(told))
        tail = torch.tensor(told, dtype=torch.float32, device=self.device)
        grads = [_gradient(weight) for weight in self.weights]
        flat = torch.cat([grad.reshape(-1) for grad in grads] + [tail])
        dist.all_reduce(flat)
        start = 0
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.empty_like(weight)
            weight.grad.copy_(flat[start : start + weight.numel()].view(weight.shape))  # in the weight's memory format
            start += weight.numel()
        summed = flat[start:].tolist()
        self.elapsed_s, self.stopping = summed[0], summed[1] > 0
        names = [*losses, *(f"loss {i}" for i in range(len(losses), _LOSSES))]  # a worker without slices knows no names
        return {name: value for name, value in zip(names, summed[2:], strict=True) if name in losses or value != 0}

    def _update(self, rate: float) -> bool:
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)
        finite = math.isfinite(norm.item())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if finite and self.average is not None:
            self.average.update(self.model)
        return finite

    def trust_statistics(self) -> None:
        """Take the model's running statistics for good: a step that is passed over leaves them as they are now."""
        if self._statistics:
            torch._foreach_copy_(self._last_good, self._statistics)  # type: ignore[attr-defined]

    def _take_back_statistics(self) -> None:
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._last_good)  # type: ignore[attr-defined]

    def share_weights(self) -> None:
        """Give all workers the lead's weights."""
        if _workers():
            for tensor in self.model.state_dict().values():
                dist.broadcast(tensor, 0)

    def share_statistics(self) -> None:
        """Make running statistics, as of batch norm, the mean of all workers', in the model and in its moving average.

        Weights are the same on all of them.
        """
        if not _workers():
            return
        averaged = self.average.state if self.average else {}
        for name, buffer in self.model.named_buffers():
            for one in (buffer, averaged.get(name)):
                if one is not None and one.is_floating_point():
                    dist.all_reduce(one)
                    one.div_(dist.get_world_size())
        self.trust_statistics()

    def leave_out(self, seconds: float) -> None:
        """Do not count `seconds` that something else took, between two steps, as training."""
        self._clock += seconds

    def weights_to_keep(self) -> dict[str, Tensor]:
        """The state that a finished model should have: the moving average where there is one."""
        return self.average.state if self.average else self.model.state_dict()

    def position(self) -> dict[str, Any]:
        """How far it has come, as JSON."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "skipped_in_a_row": self.skipped_in_a_row,
            "averaged": self.average.updates if self.average else 0,
            "scaler": self.scaler.state_dict(),
        }

    def _stop_if_diverged(self, step: Step) -> None:
        if self.skipped_in_a_row < self.recipe.max_skipped:
            return
        last = ", ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
        raise JobError(
            f"training diverged: {self.skipped_in_a_row} steps in a row up to step {step.number} had a non-finite loss or "
            f"gradient ({last}); a lower learning_rate or a longer warmup_steps usually helps"
        )


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight, dtype=torch.float32) if weight.grad is None else weight.grad.float()


def _workers() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
