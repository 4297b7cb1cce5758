"""What a finished training leaves behind: its best checkpoint as a model that any command takes, and its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rayseg.models import checkpoints
from rayseg.models.maskrcnn import MaskRCNN, build
from rayseg.models.predictor import Predictor, from_model
from rayseg.models.starting import StartReport
from rayseg.train import checkpointing
from rayseg.train.checkpointing import Checkpoint
from rayseg.train.loop import Loop
from rayseg.train.records import Records
from rayseg.train.reporting import write_report
from rayseg.train.spec import TrainSpec
from rayseg.train.watching import clock


def finish(
    spec: TrainSpec,
    start: StartReport,
    loop: Loop,
    data: Records,
    val: Records | None,
    device: str,
    say: Callable[[str], None],
) -> None:
    """Write the model and then the report; a model without its report is whole all the same.

    A damaged checkpoint is passed over for the next best, and told to `say`. Raises `JobError` where none is whole.
    """
    chosen, weights = checkpointing.best_weights(spec.out, say)
    network = build(start.architecture, len(data.class_names), start.settings)
    network.load_state_dict(weights)
    _write_model(spec, start, loop, data, network, chosen)
    write_report(spec, _predictor(network, start, data, device), data, val, _facts(start, loop, chosen))


def _write_model(
    spec: TrainSpec, start: StartReport, loop: Loop, data: Records, network: MaskRCNN, chosen: Checkpoint
) -> None:
    training = {
        "spec": spec.result_fields(),
        "images": len(data),
        "instances": data.instances,
        "steps": loop.step,
        "step": chosen.step,
        "seconds": round(loop.elapsed_s, 1),
    }
    checkpoints.save(
        spec.out,
        network,
        start.architecture,
        start.settings,
        data.class_names,
        training=training,
        metrics=chosen.card["notes"]["scores"],
    )


def _predictor(network: MaskRCNN, start: StartReport, data: Records, device: str) -> Predictor:
    return from_model(network, start.architecture, start.settings, data.class_names, device)


def _facts(start: StartReport, loop: Loop, chosen: Checkpoint) -> dict[str, Any]:
    scores = chosen.card["notes"]["scores"]
    found = {
        f"{name} AP": f"{scores[measure]['AP']:.3f} (AP50 {scores[measure]['AP50']:.3f})"
        for measure, name in (("segm", "mask"), ("bbox", "box"))
        if scores.get(measure) and scores[measure].get("AP") is not None
    }
    return {
        "model": f"{start.architecture}, from {start.source}",
        "steps": f"{loop.step:,}, of which the model is that after step {chosen.step:,}",
        "training time": clock(loop.elapsed_s),
        **found,
    }
