"""The objects of a Cityscapes `_polygons.json`, and the id map that they make.

Objects lie in layers, later ones over earlier ones; each is one ring without holes, whose whole-numbered points are
pixels, these included. So cityscapesScripts draws them (`preparation/json2instanceImg.py`), with Pillow, and so it is done
here: the n-th object of a label that tells objects apart gets the number id * 1000 + n, all others the bare id, deleted
ones and those of a negative id none.

Shapes: K points of a ring, H W image pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from rayseg.annotations import Annotation
from rayseg.formats import json_values, shapes
from rayseg.formats.bridges import joined
from rayseg.formats.cityscapes_labels import GROUP, PER_LABEL, Table
from rayseg.formats.faults import Faults

_BACKGROUND = "unlabeled"
_NOT_DRAWN = "license plate"


def drawn(objects: Sequence[Any], image_hw: tuple[int, int], table: Table, uri: str, faults: Faults) -> np.ndarray:
    """The id map (H, W) int64 of objects; tells `faults` of broken ones and of unknown labels."""
    image = Image.new("I", (image_hw[1], image_hw[0]), 0)
    drawer = ImageDraw.Draw(image)
    counts: Counter[int] = Counter()
    for i, entry in enumerate(objects):
        try:
            ring, label = ring_of(entry)
            number = _number(label, table, counts) if ring is not None else None
        except ValueError as error:
            faults.add(uri, "polygon", f"objects[{i}]", str(error))
            continue
        if ring is not None and number is not None:
            drawer.polygon([(x, y) for x, y in ring.tolist()], fill=number)
    return np.asarray(image).astype(np.int64)


def ring_of(entry: Any) -> tuple[np.ndarray | None, str]:
    """The ring (K, 2) of an object, None for a deleted one, and its label. Raises `ValueError`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError(f"expected an object with a label, found {json_values.shown(entry)}")
    if entry.get("deleted"):
        return None, entry["label"]
    ring = json_values.points(entry.get("polygon"), "polygon")
    if len(ring) < 3:
        raise ValueError(f"expected a polygon of at least 3 points, found {len(ring)}")
    return ring, entry["label"]


def object_of(annotation: Annotation, table: Table, image_hw: tuple[int, int]) -> dict[str, Any]:
    """The object of an annotation with a mask: a ring through the centres of its outermost pixels.

    Drawn as above it gives the same pixels again, but where holes or parts are joined by bridges a line of them.
    """
    parts = shapes.polygons_of(annotation, image_hw).parts
    ring = joined([_through_centres(ring) for part in parts for ring in part])
    return {"label": label_of(annotation, table), "polygon": [[int(x), int(y)] for x, y in ring.tolist()]}


def label_of(annotation: Annotation, table: Table) -> str:
    """The label of an object, or of a group where objects are told apart."""
    name = table.categories[annotation.category].name
    return name + GROUP if annotation.crowd and table.has_instances[annotation.category] else name


def _number(label: str, table: Table, counts: Counter[int]) -> int | None:
    """The number of the next object of a label; None for one that is not drawn."""
    found = table.named(label)
    if found is None and label == _BACKGROUND:
        return 0
    if found is None and label.removesuffix(GROUP) == _NOT_DRAWN:
        return None
    if found is None:
        raise ValueError(f"expected a label of the table, found {label[:80]!r}")
    place, is_group = found
    if is_group or not table.has_instances[place]:
        return table.ids[place]
    counts[place] += 1
    if counts[place] > PER_LABEL:
        raise ValueError(f"expected at most {PER_LABEL} objects of {label!r}, found more")
    return table.ids[place] * PER_LABEL + counts[place] - 1


def _through_centres(ring: np.ndarray) -> np.ndarray:
    """A ring (K, 2) along pixel edges, clockwise on the screen around pixels, moved onto the pixels it encloses.

    A side's inner pixels lie to its right: half a pixel inwards are their centres, which in whole numbers are the pixels.
    """
    along = np.sign(ring - np.roll(ring, 1, axis=0))
    inwards = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return ring + (inwards + np.roll(inwards, -1, axis=0) - 1) / 2
