"""Masks of annotations into one id map, where a pixel holds one id: who is on top, and what the others lose.

Shapes: N annotations with a mask, H W image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rayseg.annotations import Annotation, Points, Polyline
from rayseg.formats import shapes
from rayseg.formats.losses import Losses
from rayseg.kernels import Rles

_HIDDEN = "a pixel holds one object: where masks overlap, the smaller one is kept"


class Painted(NamedTuple):
    """An id map and what became of the N masks.

    ids        (H, W) uint32, 0 where no mask is
    ious       (N,) float64, the visible part of each mask against the whole of it; 1 for an empty one
    """

    ids: np.ndarray
    ious: np.ndarray

    @property
    def disjoint(self) -> bool:
        """No mask lost a pixel to another."""
        return bool((self.ious == 1).all())


def paint(rles: Rles, ids: np.ndarray) -> Painted:
    """N masks as an id map of their `ids` (N,), distinct and above 0. Small ones lie on top: so the least is lost."""
    height, width = rles.image_hw
    flat = np.zeros(height * width, np.uint32)
    areas = rles.areas()
    runs, offsets = rles.runs()
    for i in np.argsort(-areas, kind="stable").tolist():
        ends = np.cumsum(runs[offsets[i] : offsets[i + 1]])
        for begin, end in zip(ends[0::2].tolist(), ends[1::2].tolist(), strict=False):
            flat[begin:end] = ids[i]
    return Painted(np.ascontiguousarray(flat.reshape(width, height).T), _visible(flat, ids, areas))


def drawable(
    annotations: Sequence[Annotation], image_hw: tuple[int, int], losses: Losses, tool: str
) -> tuple[list[int], Rles]:
    """Which annotations have a mask that can be drawn, as places, and their N masks; tells of lines and broken masks."""
    places = []
    for place, annotation in enumerate(annotations):
        if isinstance(annotation.shape, Polyline | Points):
            kind = "polyline" if isinstance(annotation.shape, Polyline) else "points"
            losses.dropped(kind, f"{tool} has no lines and points")
        elif shapes.has_mask(annotation):
            fault = shapes.fault(annotation, image_hw)
            if fault is None or fault[0] == "box":
                places.append(place)
            else:
                losses.dropped("mask", fault[1])
    return places, shapes.rles_of([annotations[place] for place in places], image_hw)


def tell_visible(painted: Painted, losses: Losses) -> None:
    """Tell of each mask that is painted whether it is whole."""
    for iou in painted.ious.tolist():
        if iou == 1:
            losses.kept("mask")
        elif iou > 0:
            losses.approximated("mask", _HIDDEN, iou)
        else:
            losses.dropped("mask", _HIDDEN + "; nothing of it is left")


def _visible(flat: np.ndarray, ids: np.ndarray, areas: np.ndarray) -> np.ndarray:
    names, counts = np.unique(flat, return_counts=True)
    places = np.minimum(np.searchsorted(names, ids), max(len(names) - 1, 0))
    seen = np.where(names[places] == ids, counts[places], 0) if len(names) else np.zeros(len(ids))
    return np.where(areas > 0, seen / np.maximum(areas, 1), 1.0)
