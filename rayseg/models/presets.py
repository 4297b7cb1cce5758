"""Models by name alone: torchvision's COCO weights for the architectures that have them. Torch-free until downloading.

The files go where torchvision itself keeps them, so one that is there already is used as it is.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rayseg.errors import ModelError
from rayseg.models import cache
from rayseg.models.architectures import MaskRCNNSettings, settings_of
from rayseg.models.cards import ModelInfo, info_of

DOWNLOAD_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 20

COCO_CLASS_NAMES = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|
    bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|
    snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|
    fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|
    potted plant|bed|dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|
    refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush""".replace("|\n    ", "|").split("|")
)
"""The 80 classes of COCO, in the order of their ids."""

_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_LABEL_IDS = tuple(label for label in range(1, 91) if label not in _COCO_GAPS)
"""The output of each of the 80 classes in a network with COCO's own 91 outputs."""


@dataclass(frozen=True)
class Preset:
    """An architecture with weights that torchvision publishes at `url`, whose name ends in the sha256's first digits."""

    info: ModelInfo
    settings: MaskRCNNSettings
    url: str


_URLS = {
    "maskrcnn_resnet50_fpn": "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "maskrcnn_resnet50_fpn_v2": "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
}
_DETECTOR_WEIGHTS = {
    "MaskRCNN_ResNet50_FPN_Weights.COCO_V1": "maskrcnn_resnet50_fpn",
    "MaskRCNN_ResNet50_FPN_Weights.DEFAULT": "maskrcnn_resnet50_fpn",
    "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1": "maskrcnn_resnet50_fpn_v2",
    "MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT": "maskrcnn_resnet50_fpn_v2",
}
_FROZEN_NORM = {"backbone_norm": "frozen_batch", "backbone_norm_eps": 0.0}
"""The first COCO weights were trained with frozen norms that add nothing to the variance."""


def preset(name: str) -> Preset:
    """The preset `name`, of an architecture that exists; `ModelError` if no weights are published for it."""
    settings = settings_of(name)
    if name not in _URLS:
        raise ModelError(
            f"{name}: an architecture without published weights, so it must be trained first; "
            f"give its checkpoint folder, or one of {', '.join(_URLS)}"
        )
    norm = _FROZEN_NORM if name == "maskrcnn_resnet50_fpn" else {}
    settings = settings.model_copy(update={"label_ids": COCO_LABEL_IDS, **norm})
    info = info_of(name, name, settings, COCO_CLASS_NAMES, _URLS[name].rsplit("/", 1)[1])
    return Preset(info, settings, _URLS[name])


def is_detector_weight(name: str) -> bool:
    """Whether torchvision's weight `name` is a whole Mask R-CNN's, `MaskRCNN_ResNet50_FPN_Weights.COCO_V1`."""
    return name in _DETECTOR_WEIGHTS or name.startswith("MaskRCNN_")


def of_weight(name: str) -> str:
    """The preset that torchvision's weight `name` is; any other name is returned as it is."""
    return _DETECTOR_WEIGHTS.get(name, name)


def downloaded(chosen: Preset) -> Path:
    """The preset's weights on local disk: see `fetched`."""
    return fetched(chosen.url, chosen.info.uri)


def fetched(url: str, name: str) -> Path:
    """The file at `url` on local disk, downloaded if need be, once per machine; `name` is what it is called in errors.

    Raises `ModelError`, after `DOWNLOAD_TIMEOUT_S` at most without an answer, saying where to put the file by hand.
    """
    import torch

    file_name = url.rsplit("/", 1)[1]
    target = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    digits = file_name.rsplit("-", 1)[1].removesuffix(".pth")

    def fault(path: Path) -> str | None:
        digest = cache.sha256_of(path)
        if digest.startswith(digits):
            return None
        return f"{url}: expected a file whose sha256 begins with {digits}, found {digest}"

    return cache.fetched_once(target, fault, lambda file: _download(url, name, file, target))


def _download(url: str, name: str, file: BinaryIO, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise ModelError(
            f"{name}: its weights are not here and cannot be downloaded from {url} ({reason}); "
            f"put that file at {target}, or give a checkpoint folder"
        ) from None
