"""`rayseg demo`: the whole way on one machine, in under five minutes, with no network, no GPU and no arguments.

draw      a data set of synthetic objects       DIR/train, DIR/held-out     images and COCO JSON
train     a small Mask R-CNN, plain PyTorch     DIR/model                   a checkpoint folder
evaluate  mask AP on the held-out images        in the checkpoint's card, and printed
label     the held-out images, with Ray         DIR/labels                  Parquet, one row per image
verify    that nothing is lost or twice         the exit code
look                                            DIR/gallery.html
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torchvision.models.detection import MaskRCNN

from rayseg import __version__, images
from rayseg.datasets.synthetic import CLASS_NAMES, Sample, generate, write_coco
from rayseg.errors import UsageError
from rayseg.evaluation.coco import Metrics, mask_ap, results_of
from rayseg.label.run import Summary, run
from rayseg.label.spec import LabelSpec
from rayseg.models.architectures import settings_of
from rayseg.models.checkpoints import save
from rayseg.models.maskrcnn import build
from rayseg.models.predictor import from_model
from rayseg.outputs.report import Report
from rayseg.outputs.verify import verify
from rayseg.specs import validate
from rayseg.train.loop import History, Step
from rayseg.train.recipe import Recipe
from rayseg.train.samples import train
from rayseg.train.schedule import Budget
from rayseg.views.gallery import write_gallery

ARCHITECTURE = "maskrcnn_resnet10_fpn"
SIZE_PX = 128
TRAIN_IMAGES = 700
TRAIN_SECONDS = 200.0
HELD_OUT_IMAGES = 100
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # two streams of the generator: no held-out image is ever trained on
THREADS = 2
EVALUATION_BATCH = 8
SHOWN_SCORE = 0.5  # where the gallery's slider stands at first

# For objects of 40 to 80 pixels in images of 128, on two cores: narrow, without the coarse stages, few proposals and
# samples of them. Batch norm in the heads would be fitted to sampled proposals and then see all of them: group norm.
SETTINGS = settings_of(ARCHITECTURE).model_copy(
    update={
        "min_size": SIZE_PX,
        "max_size": 2 * SIZE_PX,
        "returned_layers": (1, 2),
        "head_norm": "group",
        "fpn_channels": 64,
        "anchor_sizes": ((36,), (52,), (76,)),
        "anchor_ratios": (1.0,),
        "roi_sampling_ratio": 1,
        "box_head_convs": (64,),
        "box_head_size": 256,
        "mask_layers": (32, 32),
        "rpn_top_n_train": 64,
        "rpn_samples": 64,
        "box_samples": 32,
        "box_positive_fraction": 0.4,
        "max_detections": 50,
    }
)
RECIPE = Recipe(batch_size=4, learning_rate=1.5e-3)

_MARKER = "demo.json"


def run_demo(out: str = "rayseg-demo", train_seconds: float = TRAIN_SECONDS) -> int:
    """Do all of it in the folder `out` and say what was done; the exit code, 0 where `verify` finds nothing wrong.

    Raises `UsageError` when `out` holds anything that no demo has put there.
    """
    console, begin = Console(highlight=False), time.monotonic()
    root = claim_folder(out)
    with _stage(console, f"draw {TRAIN_IMAGES} training and {HELD_OUT_IMAGES} held-out images"):
        samples = draw_data(root, TRAIN_IMAGES, HELD_OUT_IMAGES)
    with _stage(console, f"train {ARCHITECTURE} from random weights for {train_seconds:.0f} s"):
        model, history = train_model(samples, Budget(seconds=train_seconds), console)
    with _stage(console, "evaluate on the held-out images, and save the checkpoint"):
        metrics = evaluate(model, root / "held-out")
        save_model(root / "model", model, history, metrics)
    with _stage(console, "label the held-out images as a Ray job"):
        summary = label(root)
    with _stage(console, "verify the labels"):
        report = verify(str(root / "labels"))
    with _stage(console, "write the gallery"):
        write_gallery(str(root / "labels"), str(root / "gallery.html"), title="rayseg demo", min_score=SHOWN_SCORE)
    seconds = time.monotonic() - begin
    _mark(root, {"seconds": round(seconds, 1), "steps": history.steps, "metrics": metrics.to_json()})
    console.print(_conclusion(root, history, metrics, summary, report, seconds))
    return 0 if report.ok else 1


def claim_folder(out: str) -> Path:
    """The demo's folder, empty. What an earlier demo left there is removed; a folder with anything else is refused."""
    root = Path(out)
    if root.exists() and not root.is_dir():
        raise UsageError(f"--out {out}: expected a folder, found a file")
    if root.is_dir() and any(root.iterdir()):
        if not (root / _MARKER).is_file():
            raise UsageError(
                f"--out {out}: expected a new or empty folder or an earlier demo's, found other files in it"
            )
        for name in ("train", "held-out", "model", "labels"):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / "gallery.html").unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    _mark(root, {})
    return root


def draw_data(root: Path, train_images: int, held_out_images: int) -> list[Sample]:
    """Write `train/` and `held-out/` with images and COCO JSON; returns the training samples."""
    samples = list(generate(train_images, TRAIN_SEED, SIZE_PX))
    write_coco(root / "train", samples)
    write_coco(root / "held-out", generate(held_out_images, HELD_OUT_SEED, SIZE_PX))
    return samples


def train_model(samples: Sequence[Sample], budget: Budget, console: Console) -> tuple[MaskRCNN, History]:
    """A Mask R-CNN trained from random weights, and its losses."""
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    torch.manual_seed(RECIPE.seed)
    model = build(ARCHITECTURE, len(CLASS_NAMES), SETTINGS)
    with Progress(
        TextColumn("  step {task.fields[step]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("train", total=1.0, step=0, loss=0.0)
        smooth = 0.0

        def show(step: Step) -> None:
            nonlocal smooth
            smooth = step.loss if step.number == 0 else 0.95 * smooth + 0.05 * step.loss
            bar.update(task, completed=step.progress, step=step.number + 1, loss=smooth)

        history = train(model, samples, budget, RECIPE, on_step=show)
    return model, history


def evaluate(model: MaskRCNN, data: Path) -> Metrics:
    """COCO's metrics of `model` on the images of `data`, read from their files as the label job reads them."""
    truth = json.loads((data / "instances.json").read_text(encoding="utf-8"))
    predictor = from_model(model, ARCHITECTURE, SETTINGS, CLASS_NAMES)
    predictor.score_threshold = 0.01  # the tail of the precision-recall curve counts too
    category_ids = [category["id"] for category in truth["categories"]]
    results = []
    for batch in _batched(truth["images"], EVALUATION_BATCH):
        pixels = [images.decode((data / "images" / entry["file_name"]).read_bytes()) for entry in batch]
        for entry, found in zip(batch, predictor.predict(pixels), strict=True):
            results += results_of(found, entry["id"], category_ids)
    return mask_ap(truth, results)


def save_model(folder: Path, model: MaskRCNN, history: History, metrics: Metrics) -> None:
    """Write the checkpoint folder, with how it was trained and what it reached."""
    training = {
        "data": f"rayseg.datasets.synthetic, seed {TRAIN_SEED}, {SIZE_PX} px",
        "recipe": asdict(RECIPE),
        "steps": history.steps,
        "images": history.images,
        "seconds": round(history.seconds, 1),
    }
    save(str(folder), model, ARCHITECTURE, SETTINGS, CLASS_NAMES, training=training, metrics=metrics.to_json())


def label(root: Path) -> Summary:
    """Label the held-out images with the checkpoint, as `rayseg label` would."""
    where = {"images": root / "held-out" / "images", "model": root / "model", "out": root / "labels"}
    return run(validate(LabelSpec, {name: str(path) for name, path in where.items()}))


def _mark(root: Path, content: dict[str, Any]) -> None:
    """Write `demo.json`, by which a later demo knows the folder for its own."""
    (root / _MARKER).write_text(json.dumps({"rayseg": __version__, **content}, indent=2), encoding="utf-8")


@contextmanager
def _stage(console: Console, what: str) -> Iterator[None]:
    begin = time.monotonic()
    console.print(f"[bold]{what}[/bold] ...")
    yield
    console.print(f"  [dim]{time.monotonic() - begin:.1f} s[/dim]")


def _batched(entries: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


def _conclusion(
    root: Path, history: History, metrics: Metrics, summary: Summary, report: Report, seconds: float
) -> Group:
    """What was done, and the next three commands."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    segm, bbox = metrics.segm, metrics.bbox
    classes = ", ".join(f"{name} {ap:.2f}" for name, ap in metrics.class_ap.items())
    table.add_row("trained", f"{history.steps:,} steps, {history.images:,} images, {history.seconds:.0f} s")
    table.add_row("mask AP", f"{segm['AP']:.3f} on held-out images (AP50 {segm['AP50']:.3f}, box AP {bbox['AP']:.3f})")
    table.add_row("by class", classes)
    counts = summary.counts
    table.add_row(
        "labelled",
        f"{counts.labelled:,} images, {counts.empty:,} empty, {counts.failed:,} failed; {counts.instances:,} instances",
    )
    table.add_row("verified", escape(report.text()))
    table.add_row("gallery", escape(str(root / "gallery.html")))
    table.add_row("time", f"{seconds:.0f} s")
    return Group("", table, "", "Next:", *(f"  {escape(command)}" for command in _next_commands(root)))


def _next_commands(root: Path) -> list[str]:
    """Three commands that go on from here, ready to paste."""
    model, labels, photos = (shlex.quote(str(root / name)) for name in ("model", "labels", "train/images"))
    return [
        f"rayseg verify {labels}",
        f"rayseg label --images {photos} --model {model} --out {shlex.quote(str(root / 'train-labels'))}",
        "rayseg label --images PHOTOS --model maskrcnn_resnet50_fpn_v2 --out photo-labels",
    ]
