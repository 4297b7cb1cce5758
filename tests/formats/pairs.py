"""Every ordered pair of formats: one synthetic data set converted, what came back compared, with what was reported lost.

    python tests/formats/pairs.py            prints the matrix and, per pair, what was reported
    python tests/formats/pairs.py coco yolo  one pair, with what was found lost
    python tests/formats/pairs.py --data URI a real data set through every format and on to COCO, which pycocotools loads

The data set is written in the first format and read again: that is the source. It is converted to the second and read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from formats.sample_records import sample_dataset

from rayseg.annotations import AnnotatedImage, Annotation, Category, Dataset, Points, Polygons, Polyline
from rayseg.formats import registry, shapes
from rayseg.formats.coco_layout import name_for
from rayseg.formats.keeping import kind_of
from rayseg.formats.losses import Losses

_NEAR = 1e-6  # pixels


@dataclass
class Pair:
    """One conversion: `lost` counts by kind what the source had and the target has not, by looking at both.

    own  the formats whose extras are not compared: what the target says in its own words is its own affair
    """

    first: str
    second: str
    source: Dataset
    target: Dataset
    losses: Losses
    ious: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    own: frozenset[str] = frozenset()
    details: list[str] = field(default_factory=list)

    @property
    def mean_iou(self) -> float:
        """Of all masks of the source, those that did not come count as 0."""
        return sum(self.ious) / len(self.ious) if self.ious else float("nan")

    @property
    def reported(self) -> Counter[str]:
        """What the losses say is approximated or dropped, by kind."""
        found: Counter[str] = Counter()
        for tallies in (self.losses.approximations, self.losses.drops):
            for (kind, _), tally in tallies.items():
                found[kind] += tally.count
        return found

    @property
    def unreported(self) -> Counter[str]:
        """What was lost beyond what was reported."""
        return self.lost - self.reported

    def lose(self, kind: str, detail: str) -> None:
        """Note one loss."""
        self.lost[kind] += 1
        self.details.append(f"{kind}: {detail}")


def convert_pair(sources: Mapping[str, Dataset], first: str, second: str, folder: Path) -> Pair:
    """Convert the source in the format `first` to `second`, and compare."""
    target = folder / f"{first}-{second}"
    losses = registry.write(sources[first], str(target), second)
    pair = Pair(first, second, sources[first], registry.read(str(target), second), losses)
    compare(pair)
    return pair


def write_sources(folder: Path, formats: Sequence[str] = registry.FORMATS) -> dict[str, Dataset]:
    """The synthetic data set as each format holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, found = sample_dataset(folder), {}
    for name in formats:
        registry.write(dataset, str(folder / name), name)
        found[name] = registry.read(str(folder / name), name)
    return found


# ---- comparing


def compare(pair: Pair) -> None:
    """Fill in `ious`, `lost` and `details`."""
    _compare_categories(pair)
    images = {image.name: image for image in pair.target.images}
    for image in pair.source.images:
        found = images.get(image.name)
        if found is None:
            pair.lose("image" if not _renamed(pair, image.name) else "image name", image.name)
            found = images.get(_renamed(pair, image.name) or "", AnnotatedImage(image.name))
        _compare_image(pair, image, found)
    _compare_extras(pair, "data set", pair.source.info, pair.target.info)


def _renamed(pair: Pair, name: str) -> str | None:
    """The image of the target that has the name's digits in its own, where just one has."""
    number = "".join(filter(str.isdigit, name))
    found = [image.name for image in pair.target.images if number and number in image.name]
    return found[0] if len(found) == 1 else None


def _compare_categories(pair: Pair) -> None:
    targets = {category.name: category for category in pair.target.categories}
    for category in pair.source.categories:
        found = targets.get(category.name)
        if found is None:
            pair.lose("class", category.name)
            found = Category(category.name)
        if category.source_id is not None and found.source_id != category.source_id:
            pair.lose("class id", f"{category.name}: {category.source_id} is {found.source_id}")
        if category.supercategory is not None and found.supercategory != category.supercategory:
            pair.lose("supercategory", f"{category.name}: {category.supercategory} is {found.supercategory}")
        if category.colour is not None and found.colour != category.colour:
            pair.lose("class colour", f"{category.name}: {category.colour} is {found.colour}")
        _compare_extras(pair, category.name, category.extras, found.extras)


def _compare_image(pair: Pair, image: AnnotatedImage, found: AnnotatedImage) -> None:
    if image.split != found.split:
        pair.lose("split", f"{image.name}: {image.split} is {found.split}")
    if image.image_hw is not None and image.image_hw != found.image_hw:
        pair.lose("image size", f"{image.name}: {image.image_hw} is {found.image_hw}")
    _compare_values(pair, image.name, image.attributes, found.attributes)
    _compare_extras(pair, image.name, image.extras, found.extras)
    matches = _matched(image, found)
    for number, annotation in enumerate(image.annotations):
        where = f"{image.name}[{number}]"
        if number in matches:
            _compare_annotation(pair, where, annotation, found.annotations[matches[number]], image.image_hw)
        else:
            pair.lose(kind_of(annotation), f"{where}: {annotation} is not there")
            pair.ious += [0.0] * shapes.has_mask(annotation)


def _matched(image: AnnotatedImage, found: AnnotatedImage) -> dict[int, int]:
    """Which annotation of `found` stands for which of `image`: the most similar first, each once."""
    candidates = sorted(
        (
            (-_similarity(a, b, image.image_hw) - 1e-4 * (a.category == b.category) - 1e-5 * (i == j), i, j)
            for (i, a), (j, b) in itertools.product(enumerate(image.annotations), enumerate(found.annotations))
        )
    )
    matches: dict[int, int] = {}
    for value, i, j in candidates:
        if value < -0.05 and i not in matches and j not in matches.values():
            matches[i] = j
    return matches


def _similarity(a: Annotation, b: Annotation, image_hw: tuple[int, int] | None) -> float:
    if isinstance(a.shape, Polyline | Points):
        return float(a.shape == b.shape)
    if isinstance(b.shape, Polyline | Points) or image_hw is None:
        return 0.0
    kinds = 1e-3 * (shapes.has_mask(a) == shapes.has_mask(b))
    return shapes.iou(shapes.rle_of(a, image_hw), shapes.rle_of(b, image_hw)) + kinds


def _compare_annotation(pair: Pair, where: str, a: Annotation, b: Annotation, image_hw: Any) -> None:
    if shapes.has_mask(a):
        value = shapes.iou(shapes.rle_of(a, image_hw), shapes.rle_of(b, image_hw)) if shapes.has_mask(b) else 0.0
        pair.ious.append(value)
        if value < 1:
            pair.lose("mask", f"{where}: IoU {value:.4f}")
        if value < 1 and _holes(a) > _holes(b) and isinstance(b.shape, Polygons):
            pair.lose("hole", where)
    elif a.shape is None and b.shape is not None:
        pair.lose("box", f"{where}: has become a shape")
    if a.box_xyxy is not None and not _is_near(a.box_xyxy, shapes.box_of(b)):
        pair.lose("box", f"{where}: {a.box_xyxy} is {shapes.box_of(b)}")
    for kind, mine, other in (
        ("crowd flag", a.crowd, b.crowd),
        ("score", a.score, b.score),
        ("group", a.group, b.group),
        ("class", pair.source.class_names[a.category], pair.target.class_names[b.category]),
    ):
        if mine not in (None, False) and mine != other:
            pair.lose(kind, f"{where}: {mine!r} is {other!r}")
    _compare_values(pair, where, a.attributes, b.attributes)
    _compare_extras(pair, where, a.extras, b.extras)


def _holes(annotation: Annotation) -> int:
    shape = annotation.shape
    return sum(len(part) - 1 for part in shape.parts) if isinstance(shape, Polygons) else 0


def _is_near(box: Iterable[float], other: Iterable[float] | None) -> bool:
    return other is not None and all(abs(a - b) <= _NEAR for a, b in zip(box, other, strict=True))


def _compare_values(pair: Pair, where: str, mine: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    for key, value in mine.items():
        if key not in others or others[key] != value or type(others[key]) is not type(value):
            pair.lose("attribute", f"{where}: {key} {value!r} is {others.get(key)!r}")


def _compare_extras(pair: Pair, where: str, mine: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """One loss where extras of other formats are missing."""
    own = pair.own | {pair.second}
    missing = {name: value for name, value in mine.items() if value and name not in own and others.get(name) != value}
    if missing:
        pair.lose("extra", f"{where}: {missing}")


# ---- the matrix


def matrix(pairs: Mapping[tuple[str, str], Pair]) -> str:
    """Mean IoU by source (down) and target (across), "=" where all came through."""
    names = list(dict.fromkeys(first for first, _ in pairs))
    lines = ["from \\ to   " + "".join(f"{name:>11}" for name in names)]
    for first in names:
        cells = []
        for second in names:
            pair = pairs[first, second]
            cells.append(f"{pair.mean_iou:.4f}{'=' if pair.losses.lossless else ' '}")
        lines.append(f"{first:<12}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def report(pair: Pair) -> str:
    """What was reported lost, in a line."""
    rows = [row for row in pair.losses.rows() if row["outcome"] != "kept"]
    found = Counter()
    for row in rows:
        found[f"{row['kind']} {row['outcome']}"] += row["count"]
    listed = ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "nothing"
    return f"{pair.first} -> {pair.second}: {listed}"


# ---- real data


def through(dataset: Dataset, name: str, folder: Path) -> Pair:
    """`dataset` to the format `name`, from there to COCO, and read again as pycocotools draws it."""
    losses = registry.write(dataset, str(folder / name), name)
    registry.write(registry.read(str(folder / name), name), str(folder / f"{name}-coco"), "coco")
    target = registry.read(str(folder / f"{name}-coco"), "coco")
    pair = Pair("source", name, dataset, target, losses, own=frozenset({"coco"}))
    compare(pair)
    return pair


def pycocotools_agrees(folder: Path) -> int:
    """How many masks of the COCO files in `folder` pycocotools loads and, where they are RLEs, draws as rayseg does."""
    drawn = 0
    for image in registry.read(str(folder), "coco").images:
        truth = _loaded(folder, image.split)
        for annotation in image.annotations:
            theirs = truth.anns[annotation.extras["coco"]["id"]]
            if theirs["segmentation"] and image.image_hw is not None:
                pixels = truth.annToMask(theirs)
                if isinstance(theirs["segmentation"], dict):
                    assert (pixels == shapes.rle_of(annotation, image.image_hw).decode(0)).all(), (
                        image.name,
                        theirs["id"],
                    )
                drawn += 1
    return drawn


@functools.cache
def _loaded(folder: Path, split: str | None) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / name_for(split)))


def real(uri: str) -> int:
    """Print what became of the data set at `uri` in every format."""
    dataset = registry.read(uri)
    dataset = dataclasses.replace(dataset, images=list(dataset.images))
    unreported = 0
    for name in registry.FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            pair = through(dataset, name, Path(folder))
            drawn = pycocotools_agrees(Path(folder, f"{name}-coco"))
        print(
            f"{name:<11} mean IoU {pair.mean_iou:.4f} of {len(pair.ious)} masks; pycocotools draws {drawn} on the way back"
        )
        print(f"            {report(pair)}")
        unreported += bool(pair.unreported)
        print(f"            not reported: {dict(pair.unreported)}\n" * bool(pair.unreported), end="")
    return int(unreported > 0)


def main(names: Sequence[str]) -> int:
    """Print the matrix, or one pair with its details."""
    if names[:1] == ["--data"]:
        return real(names[1])
    with tempfile.TemporaryDirectory() as folder:
        formats = names or registry.FORMATS
        sources = write_sources(Path(folder, "sources"), formats)
        asked = [tuple(names)] if len(names) == 2 else list(itertools.product(formats, repeat=2))
        pairs = {(a, b): convert_pair(sources, a, b, Path(folder)) for a, b in asked}
        if len(asked) > 1:
            print("Mean mask IoU against the source; = where nothing was lost\n\n" + matrix(pairs) + "\n")
        for pair in pairs.values():
            print(report(pair))
            if pair.unreported or len(asked) == 1:
                print(f"  lost: {dict(pair.lost)}; not reported: {dict(pair.unreported)}")
                print("".join(f"  {detail}\n" for detail in pair.details), end="")
    return int(any(pair.unreported for pair in pairs.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
