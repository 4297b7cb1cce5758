"""CVAT for video 1.1: tracks, each with its shapes frame by frame, turned into frames, each with the shapes of all tracks.

A file is read track by track; what its tracks hold goes to a temporary file, of which only the places are kept in memory
(about 20 bytes a shape), and comes back in the order of the frames. CVAT writes the frames between keyframes itself, so
nothing is interpolated here; where `outside` is set the object is not in the frame.
A track's number is the attribute `track_id` of each of its shapes, as in what CVAT exports to COCO: so every format that
holds attributes holds it, and the others' writers tell that they do not.
Source: CVAT's "XML annotation format" and `dataset_manager/formats/cvat.py`.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from rayseg import storage
from rayseg.formats.cvat_labels import Task
from rayseg.formats.cvat_shapes import TAGS, Item, item_of
from rayseg.formats.cvat_text import whole
from rayseg.formats.faults import BadAnnotation, Faults
from rayseg.formats.safe_xml import elements, line_of

TRACK = "track_id"
FRAMES_MAX = 10_000_000  # a video that claims more is taken for a broken one


class Frame(NamedTuple):
    """One frame: its number, its name without suffix, its size (H, W) if known, its split, the shapes on it."""

    number: int
    stem: str
    image_hw: tuple[int, int] | None
    subset: str | None
    items: list[Item]


def frames(uri: str, tasks: Sequence[Task], faults: Faults) -> Iterator[Frame]:
    """All frames of all tasks, also those without a shape, by number. Raises `BadAnnotation` for a broken file."""
    tasks = tasks or [Task("")]
    with tempfile.TemporaryFile() as spool:
        places = _Places(spool, [task.id for task in tasks])
        with storage.open(uri) as file:
            for track in elements(file, uri, "track"):
                places.add(track, uri, faults)
        order, starts = places.sorted()
        at = 0
        for index, task in enumerate(tasks):
            end = at + int(np.searchsorted(order[at:, 0], index, side="right"))
            yield from _task_frames(
                task, order[at:end, 1], starts[at:end], spool, index if len(tasks) > 1 else None, uri
            )
            at = end


class _Places:
    """Shapes on their way to the spool: (task, frame) and the offset of each."""

    def __init__(self, spool: BinaryIO, task_ids: list[str]) -> None:
        self._spool, self._tasks = spool, {task_id: i for i, task_id in enumerate(task_ids)}
        self._keys, self._starts, self._end = array("q"), array("q"), 0

    def add(self, track: Element, uri: str, faults: Faults) -> None:
        task = self._tasks.get(track.get("task_id", ""), 0)
        of_track = {"label": track.get("label", ""), "source": track.get("source", "manual")}
        if track.get("group_id"):
            of_track["group_id"] = track.get("group_id", "")
        number = _number(track)
        for element in track:
            if element.tag not in TAGS or element.get("outside") == "1":
                continue
            try:
                frame = whole(element.get("frame"), "frame")
            except ValueError as error:
                faults.add(uri, "frame", f"line {line_of(element)}, {element.tag}", str(error))
                continue
            item = item_of(element)
            xml = of_track | {key: value for key, value in item.xml.items() if key not in ("frame", "outside")}
            attributes = item.attributes
            if number is not None and all(name != TRACK for name, _, _ in attributes):
                attributes = [*attributes, [TRACK, str(number), True]]
            line = json.dumps([item.tag, xml, attributes, _without_hidden(item.children), item.line]) + "\n"
            self._keys.extend((task, frame))
            self._starts.append(self._end)
            self._end += self._spool.write(line.encode("utf-8", "surrogatepass"))

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) task and frame, (N,) offsets: by task and frame, then as they came."""
        keys = np.array(self._keys, np.int64).reshape(-1, 2)
        starts = np.array(self._starts, np.int64)
        order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
        return keys[order], starts[order]


def _number(track: Element) -> int | None:
    try:
        return whole(track.get("id"), "id")
    except ValueError:
        return None


def _without_hidden(children: list[Item]) -> list[Item]:
    """A skeleton's points have a frame of their own in a track, which is the skeleton's."""
    kept = []
    for child in children:
        xml = {key: value for key, value in child.xml.items() if key != "frame"}
        kept.append(child._replace(xml=xml))
    return kept


def _task_frames(
    task: Task, numbers: np.ndarray, starts: np.ndarray, spool: BinaryIO, index: int | None, uri: str
) -> Iterator[Frame]:
    """The frames of one task, the `index`-th if there are several; `numbers` (N,), rising, `starts` are of its shapes."""
    if (task.size or 0) > FRAMES_MAX:
        raise BadAnnotation(uri, f"size: expected at most {FRAMES_MAX:,} frames, found {task.size:,}")
    declared = np.arange(task.size or 0, dtype=np.int64) * task.step + task.start
    folder = f"task_{task.id if task.id.isalnum() else index}/" if index is not None else ""
    for number in np.union1d(declared, numbers).tolist():
        first, last = np.searchsorted(numbers, [number, number + 1])
        items = [_spooled(spool, int(start)) for start in starts[first:last]]
        yield Frame(number, f"{folder}frame_{number:06d}", task.image_hw, task.subset, items)


def _spooled(spool: BinaryIO, start: int) -> Item:
    spool.seek(start)
    return Item(*json.loads(spool.readline()))
