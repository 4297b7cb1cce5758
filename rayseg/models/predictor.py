"""`Predictor`: from images to `Instances`, whatever the model. A labelling job and an endpoint run this same class.

Torch is loaded with the first model that needs it, not with this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rayseg import kernels
from rayseg.errors import ModelError
from rayseg.models import checkpoints, rectangles
from rayseg.models.architectures import MaskRCNNSettings
from rayseg.models.cards import ModelInfo, info_of
from rayseg.models.preprocess import Prepared
from rayseg.models.thresholds import Thresholds
from rayseg.records import Instances, RawDetections

if TYPE_CHECKING:
    import torch
    from torchvision.models.detection import MaskRCNN


class Detector(Protocol):
    """What a model family brings: images in, thresholded and suppressed detections out, best first."""

    @property
    def device(self) -> object: ...

    def detect(self, images: Sequence[np.ndarray | Prepared], thresholds: Thresholds) -> list[RawDetections]: ...


class Predictor:
    """A model and its thresholds.

    `score_threshold`, `iou_threshold`, `max_detections` and `mask_threshold` may be set at any time. One thread may
    call `detect` while others call `finish`.
    """

    def __init__(self, detector: Detector, info: ModelInfo) -> None:
        self._detector = detector
        self.info = info
        self.preprocess = info.preprocess
        self.score_threshold = info.thresholds.score
        self.iou_threshold = info.thresholds.iou
        self.max_detections = info.thresholds.max_detections
        self.mask_threshold = info.thresholds.mask

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class id."""
        return self.info.class_names

    @property
    def fingerprint(self) -> str:
        """Hex; models of one fingerprint give the same results."""
        return self.info.fingerprint

    @property
    def architecture(self) -> str:
        return self.info.architecture

    @property
    def device(self) -> str:
        """Where the network runs, as torch names it: "cpu", "cuda:0"."""
        return str(self._detector.device)

    def predict(self, images: Sequence[np.ndarray | Prepared]) -> list[Instances]:
        """The instances of each image, in order. Images are (H, W, 3) uint8 RGB, upright, of any sizes.

        An image's result does not depend on the others. Raises `UsageError` for what is not such an image,
        `ModelError` where a single one exhausts the memory.
        """
        return self.finish(self.detect(images))

    def prepare(self, image: np.ndarray) -> Prepared:
        """`image` (H, W, 3) uint8 on its way to `detect`; `preprocess.prepare` does the same without the model."""
        return self.preprocess.prepare(image)

    def detect(self, images: Sequence[np.ndarray | Prepared]) -> list[RawDetections]:
        """The network's part of `predict`."""
        thresholds = Thresholds(self.score_threshold, self.iou_threshold, self.max_detections, self.mask_threshold)
        return self._detector.detect(images, thresholds)

    def finish(self, raws: Sequence[RawDetections]) -> list[Instances]:
        """The rest of `predict`: grids to RLE at each image's size. Runs on one core and leaves the GIL to others."""
        return [self._finish(raw) for raw in raws]

    def _finish(self, raw: RawDetections) -> Instances:
        if raw.placement == "paste":
            rles = kernels.paste_rle(raw.grids, raw.boxes_xyxy, raw.image_hw, self.mask_threshold)
        else:
            rles = kernels.resize_rle(raw.grids, raw.image_hw, self.mask_threshold)
        height, width = raw.image_hw
        boxes = np.clip(raw.boxes_xyxy, 0, np.array([width, height, width, height], np.float32))
        return Instances(boxes, raw.scores, raw.classes, rles, raw.image_hw)


def load(uri: str, device: str | None = None) -> Predictor:
    """The model at `uri`: a checkpoint folder or its URI, a preset's name, a torchvision `.pth`, or `rectangles`.

    `device` is a torch device name; by default the first GPU, else the CPU.
    Raises `ModelError` or `StorageError`, naming `uri`.
    """
    if uri == rectangles.ARCHITECTURE:
        return Predictor(rectangles.RectanglesDetector(), rectangles.INFO)
    network = checkpoints.load(uri)
    return _of_network(network, device)


def from_model(
    model: MaskRCNN,
    architecture: str,
    settings: MaskRCNNSettings,
    class_names: Sequence[str],
    device: str | None = None,
) -> Predictor:
    """A predictor with a copy of `model` as it is now, a network in training for instance."""
    import copy

    info = info_of("memory", architecture, settings, tuple(class_names), weights_id="memory")
    return _of_network(checkpoints.Network(info, settings, copy.deepcopy(model)), device)


def _of_network(network: checkpoints.Network, device: str | None) -> Predictor:
    from rayseg.models.detector import MaskRCNNDetector

    labels = network.settings.labels_of(len(network.info.class_names))
    detector = MaskRCNNDetector(network.module, labels, network.info.preprocess, _device(device))
    return Predictor(detector, network.info)


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r}: not to be had here ({str(error).splitlines()[0]})") from None
    return device
