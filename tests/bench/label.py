"""Images per second of `rayseg label` against a plain loop and against the model's forward alone, in one run.

    uv run python tests/bench/label.py                      # 512 drawn images of 640x480, the small model, this machine
    uv run python tests/bench/label.py --detections 100     # a model that finds many objects

(a) plain    torchvision's MaskRCNN.forward (pastes dense masks), pycocotools' encode, one JSON file; one process
(b) forward  the network alone on tensors that are resized already: backbone, proposals, box and mask heads; no decode,
             no resize, no pasting, one process, all cores
(c) label    `rayseg label` from JPEG files to Parquet, start-up apart

All three use the same weights, images, cores and thresholds. Wanted: c/a at least 1.5, c/b at least 0.85.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_model import save_random


def draw(folder: Path, count: int) -> None:
    """`count` JPEG files of 640x480."""
    from rayseg.datasets.synthetic import draw as draw_sample

    folder.mkdir()
    for i in range(count):
        image = draw_sample(seed=11, index=i % 64, size_px=640, max_objects=12).image[:480]
        Image.fromarray(image).save(folder / f"{i:05d}.jpg", quality=90)


def plain(model: torch.nn.Module, files: list[Path], target: Path) -> tuple[float, float]:
    """(images per second, detections per image) of the loop people write."""
    results = []
    begin = time.perf_counter()
    with torch.inference_mode():
        for image_id, file in enumerate(files):
            pixels = np.asarray(Image.open(file).convert("RGB"))
            tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
            (found,) = model([tensor])
            masks = (found["masks"][:, 0] >= 0.5).numpy().astype(np.uint8)
            encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []
            for rle, box, score, label in zip(encoded, found["boxes"], found["scores"], found["labels"], strict=True):
                x1, y1, x2, y2 = box.tolist()
                segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
                row = {"image_id": image_id, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                results.append(row | {"score": float(score), "segmentation": segmentation})
    target.write_text(json.dumps(results))
    return len(files) / (time.perf_counter() - begin), len(results) / len(files)


def forward(model: torch.nn.Module, files: list[Path]) -> float:
    """Images per second of the network alone, the best of batch sizes 1, 2, 4 and 8."""
    tensors = [
        torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()).permute(2, 0, 1) / 255 for file in files
    ]
    best = 0.0
    with torch.inference_mode():
        for batch_size in (1, 2, 4, 8):
            batches = [model.transform(tensors[i : i + batch_size])[0] for i in range(0, len(tensors), batch_size)]
            for batch in batches[:2]:
                _network(model, batch)
            begin = time.perf_counter()
            for batch in batches:
                _network(model, batch)
            best = max(best, len(tensors) / (time.perf_counter() - begin))
    return best


def _network(model: torch.nn.Module, batch) -> None:
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    model.roi_heads(features, proposals, batch.image_sizes)


def label(images: Path, model: str, out: Path) -> dict:
    """The summary of `rayseg label`."""
    from rayseg.label.run import run
    from rayseg.label.spec import LabelSpec

    return run(LabelSpec(images=str(images), model=model, out=str(out))).as_json()


def main() -> None:
    """Measure and print the three rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--slow-images", type=int, default=128, help="images for the plain loop and the forward")
    parser.add_argument("--detections", type=int, default=20, help="objects the model may find per image")
    parser.add_argument("--model", help="a checkpoint folder to use instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        draw(scratch / "images", arguments.images)
        files = sorted((scratch / "images").iterdir())
        folder = arguments.model or save_random(scratch / "model", arguments.detections)

        from rayseg.models import checkpoints

        module = checkpoints.load(folder).module
        b = forward(module, files[: arguments.slow_images])
        a, found = plain(module, files[: arguments.slow_images], scratch / "plain.json")
        summary = label(scratch / "images", folder, scratch / "out")
        c = summary["rate"]
    threads = torch.get_num_threads()
    print(
        f"{arguments.images} images of 640x480, {found:.1f} detections per image, {threads} threads, torch {torch.__version__}"
    )
    print(f"(a) plain loop      {a:6.2f} images/s")
    print(f"(b) forward alone   {b:6.2f} images/s")
    print(f"(c) rayseg label    {c:6.2f} images/s   (start-up {summary['startup_s']:.1f} s apart)")
    print(f"c/a {c / a:.2f} (wanted 1.5)   c/b {c / b:.2f} (wanted 0.85)")


if __name__ == "__main__":
    sys.exit(main())
