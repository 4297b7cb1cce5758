"""Anchors for the objects of a training data set, as the network will see them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rayseg.formats import shapes
from rayseg.models.anchors import FittedAnchors, fit_anchors, network_sizes
from rayseg.models.architectures import MaskRCNNSettings
from rayseg.train.records import Records


def fitted_anchors(data: Records, settings: MaskRCNNSettings) -> FittedAnchors:
    """The anchors of `settings` fitted to all objects of `data` that are no crowd, resized as for labelling.

    The same data give the same anchors on every worker. Raises `UsageError` where no object has an area.
    """
    return fit_anchors(network_sizes(_boxes(data), settings.preprocess), settings)


def _boxes(data: Records) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """(H, W) and the boxes_xyxy (n, 4) of each image; where no annotation tells the size, the image is decoded."""
    for rank in range(len(data)):
        image = data.image(rank)
        image_hw = image.image_hw or data.training_image(rank).image_hw
        boxes = [shapes.box_of(one) for one in image.annotations if not one.crowd]
        yield (image_hw[0], image_hw[1]), np.array([box for box in boxes if box is not None], float).reshape(-1, 4)
