"""Going through a data set once, its images looked at by threads while their annotations are checked.

Held at any time: a few images, names and fingerprints of all, and the examples to be shown. The same data set and seed
give the same inspection, in the order of the images.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayseg.annotations import AnnotatedImage, Category, Dataset
from rayseg.datasets.duplicates import MAX_DISTANCE, Fingerprint, distance, near_duplicates
from rayseg.datasets.findings import Finding, Findings, annotation_findings
from rayseg.datasets.image_checks import Look, look
from rayseg.datasets.seeded_order import rank
from rayseg.datasets.statistics import Statistics

Progress = Callable[[int, int | None], None]  # images done, images in all where that is known
THREADS = 16
_NAMED = 4  # images of a group of near duplicates that its finding names


@dataclass(slots=True)
class Inspection:
    """What was seen.

    faults    counts and messages of the items that the reader passed over
    examples  images to show: some at random, in the order of the data set
    flawed    images to show: the first with findings
    """

    categories: tuple[Category, ...]
    statistics: Statistics
    findings: Findings = field(default_factory=Findings)
    faults: Counter[str] = field(default_factory=Counter)
    fault_messages: list[str] = field(default_factory=list)
    examples: list[AnnotatedImage] = field(default_factory=list)
    flawed: list[AnnotatedImage] = field(default_factory=list)
    pixels_seen: bool = True

    @property
    def clean(self) -> bool:
        """Whether nothing was found and nothing passed over."""
        return not self.findings.counts and not self.faults

    def as_json(self) -> dict[str, Any]:
        """Everything but the examples, as JSON takes it."""
        findings = [
            {
                "kind": kind,
                "count": count,
                "examples": [dict(zip(one._fields[1:], one[1:], strict=True)) for one in found],
            }
            for kind, count, found in self.findings.rows()
        ]
        return {
            **self.statistics.as_json(),
            "findings": findings,
            "faults": {"counts": dict(self.faults), "messages": self.fault_messages},
            "near_duplicates_looked_for": self.pixels_seen,
            "clean": self.clean,
        }


def inspect(
    dataset: Dataset,
    *,
    duplicates: bool = True,
    max_distance: int = MAX_DISTANCE,
    threads: int = THREADS,
    examples: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inspection:
    """Go through all images: count, check, and look at their files.

    duplicates    read and decode every image to find near duplicates; without, only headers are read
    max_distance  bits by which near duplicates may differ, see `rayseg.datasets.duplicates`
    threads       images that are read at the same time
    examples      how many images are kept to be shown, and as many with findings

    Raises what the data set's reader raises, and StorageError where a store cannot be asked at all.
    """
    visit = _Visit(dataset, examples, seed)
    total = _count(dataset.images)
    for image, seen in _looked_at(dataset.images, duplicates, threads):
        visit.add(image, seen)
        if progress is not None:
            progress(visit.inspection.statistics.images, total)
    return visit.finished(max_distance, duplicates)


class _Visit:
    """An inspection in the making."""

    def __init__(self, dataset: Dataset, examples: int, seed: int) -> None:
        self.inspection = Inspection(dataset.categories, Statistics.of_classes(dataset.class_names))
        self._faults = dataset.faults
        self._examples = examples
        self._seed = seed
        self._best: list[tuple[int, int, AnnotatedImage]] = []  # a heap, worst first: negative rank, place, image
        self._names: list[tuple[str, str]] = []  # name and split of those with a fingerprint
        self._prints: list[Fingerprint] = []

    def add(self, image: AnnotatedImage, seen: Look) -> None:
        actual_hw = seen.header.image_hw if seen.header else None
        image_hw = image.image_hw or actual_hw
        found = [*_image_findings(image, seen), *annotation_findings(image, image_hw)]
        for finding in found:
            self.inspection.findings.add(finding)
        self.inspection.statistics.add(image, image_hw)
        if seen.fingerprint is not None:
            self._names.append((image.name, image.split or ""))
            self._prints.append(seen.fingerprint)
        if seen.problem is None:
            self._consider(image, bool(found))

    def finished(self, max_distance: int, pixels_seen: bool) -> Inspection:
        inspection = self.inspection
        prints = np.array(self._prints, np.uint64).reshape(-1, 2)
        for group in near_duplicates(prints, max_distance) if pixels_seen else ():
            inspection.findings.add(self._group_finding(group.tolist()))
        flawed = {image.name for image in inspection.flawed}
        in_order = sorted(self._best, key=lambda one: one[1])
        inspection.examples = [image for _, _, image in in_order if image.name not in flawed]
        inspection.pixels_seen = pixels_seen
        if self._faults is not None:
            inspection.faults = Counter(self._faults.counts)
            inspection.fault_messages = list(self._faults.messages)
        return inspection

    def _consider(self, image: AnnotatedImage, has_findings: bool) -> None:
        if has_findings and len(self.inspection.flawed) < self._examples:
            self.inspection.flawed.append(image)
        elif image.annotations:
            heapq.heappush(self._best, (-rank(self._seed, image.name), self.inspection.statistics.images, image))
            if len(self._best) > self._examples:
                heapq.heappop(self._best)

    def _group_finding(self, group: list[int]) -> Finding:
        """One group: its first image, and the first of another split where there is one."""
        names, splits = zip(*(self._names[i] for i in group), strict=True)
        across = len(set(splits)) > 1
        other = next(k for k in range(1, len(group)) if not across or splits[k] != splits[0])
        apart = distance(self._prints[group[0]], self._prints[group[other]])
        listed = [other, *(k for k in range(1, len(group)) if k != other)][: _NAMED - 1]
        words = [f"{names[k]} ({splits[k]})" if splits[k] else names[k] for k in listed]
        more = f" and {len(group) - 1 - len(listed):,} more" if len(group) > _NAMED else ""
        own = f"in {splits[0]}, " if splits[0] else ""
        message = f"{own}is nearly {', '.join(words)}{more}; the first two differ in {apart} of 64 bits"
        return Finding("near_duplicates_across_splits" if across else "near_duplicates", names[0], "", message)


def _image_findings(image: AnnotatedImage, seen: Look) -> Iterator[Finding]:
    if seen.problem is not None:
        yield Finding(seen.problem[0], image.name, "", seen.problem[1])
    if seen.header is None or image.image_hw is None or tuple(image.image_hw) == seen.header.image_hw:
        return
    (height, width), (said_height, said_width) = seen.header.image_hw, image.image_hw
    turned = ", which is its raster before EXIF rotation" if (said_height, said_width) == (width, height) else ""
    message = f"annotations say {said_width} x {said_height} pixels{turned}; it has {width} x {height}"
    yield Finding("image_size", image.name, "", message)


def _looked_at(source: Iterable[AnnotatedImage], pixels: bool, threads: int) -> Iterator[tuple[AnnotatedImage, Look]]:
    """The images in their order, each with what a thread saw of it; a few are ahead."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="inspect")
    waiting: deque[tuple[AnnotatedImage, Future[Look]]] = deque()
    try:
        images = iter(source)
        for image in images:
            waiting.append((image, pool.submit(look, image, pixels=pixels)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _count(images: Iterable[AnnotatedImage]) -> int | None:
    try:
        return len(images)  # type: ignore[arg-type]
    except TypeError:
        return None
