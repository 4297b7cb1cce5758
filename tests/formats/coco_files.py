"""COCO files for tests: read, written, and as pycocotools reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from rayseg.annotations import Annotation, Dataset, Mask
from rayseg.formats import coco
from rayseg.formats.faults import Faults
from rayseg.formats.losses import Losses
from rayseg.formats.sink import output
from rayseg.kernels import Rles

SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]


def read(uri: Path | str, images: Path | str | None = None, on_error: Any = "raise") -> Dataset:
    """The data set at `uri`."""
    return coco.read(str(uri), images=None if images is None else str(images), faults=Faults(on_error))


def write(dataset: Dataset, folder: Path) -> Losses:
    """Write over what `folder` holds."""
    losses = Losses()
    with output(str(folder), overwrite=True) as sink:
        coco.write(dataset, sink, losses)
    return losses


def loaded(path: Path) -> COCO:
    """pycocotools' own reading, without what it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        return COCO(str(path))


def document(*items: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A file of one image, one class, and annotations that `items` complete."""
    bare = {"image_id": 7, "category_id": 4, "iscrowd": 0}
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        "annotations": [{"id": number, **bare, **item} for number, item in enumerate(items, 1)],
        "categories": [{"id": 4, "name": "cat"}],
        **keys,
    }


def put(folder: Path, value: Any, name: str = "a.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def only(dataset: Dataset) -> tuple[Annotation, ...]:
    (image,) = dataset.images
    return image.annotations


def decoded(mask: Mask) -> np.ndarray:
    return Rles.from_strings([mask.counts], mask.image_hw).decode(0)


def loaded_results(truth: COCO, results: Path | list) -> COCO:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        return truth.loadRes(str(results) if isinstance(results, Path) else results)
