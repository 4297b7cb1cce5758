"""What a format has no place for, told to the losses: once per thing and per annotation, image, category or data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayseg.annotations import AnnotatedImage, Annotation, Dataset
from rayseg.formats.losses import Losses


@dataclass(frozen=True, slots=True)
class Held:
    """What a format keeps beside shapes and classes.

    tool           how a reason calls it ("YOLO")
    name           the format's name, under which its own extras stand
    attributes     the names of annotations' attributes; None for all
    image_attributes, class_ids, colours, supercategories   whether these are kept
    """

    tool: str
    name: str
    crowd: bool = False
    score: bool = False
    group: bool = False
    attributes: Collection[str] | None = field(default=())
    image_attributes: bool = False
    class_ids: bool = False
    colours: bool = False
    supercategories: bool = False

    def annotation(self, annotation: Annotation, losses: Losses, lost: Collection[str] = ()) -> None:
        """Tell of flags, scores, groups, attributes and extras of one annotation that is written; `lost` attributes are not."""
        for kind, given, held in (
            ("crowd flag", annotation.crowd, self.crowd),
            ("score", annotation.score is not None, self.score),
            ("group", annotation.group is not None, self.group),
        ):
            if given:
                self._tell(losses, kind, held, f"{self.tool} has no {kind}s")
        for key in annotation.attributes:
            held = key not in lost and (self.attributes is None or key in self.attributes)
            self._tell(losses, "attribute", held, f"{self.tool} has no place for {key!r}")
        self._extras(annotation.extras, losses)

    def image(self, image: AnnotatedImage, losses: Losses) -> None:
        """Tell of an image's attributes and extras."""
        for key in image.attributes:
            self._tell(losses, "attribute", self.image_attributes, f"{self.tool} has no place for an image's {key!r}")
        self._extras(image.extras, losses)

    def dataset(self, dataset: Dataset, losses: Losses, ids: Sequence[int] | None = None) -> None:
        """Tell of the categories' ids, colours, supercategories and extras, and what is said of the whole.

        `ids` are those under which the categories are written, where the format has its own.
        """
        for place, category in enumerate(dataset.categories):
            losses.kept("class")
            if category.source_id is not None and ids is not None:
                tell_of_id(category.source_id, ids[place], losses, f"{self.tool} numbers its classes by its own rule")
            elif category.source_id is not None:
                self._tell(losses, "class id", self.class_ids, f"{self.tool} has no numbers of classes")
            if category.colour is not None:
                self._tell(losses, "class colour", self.colours, f"{self.tool} has no colours of classes")
            if category.supercategory is not None:
                self._tell(losses, "supercategory", self.supercategories, f"{self.tool} has no supercategories")
            self._extras(category.extras, losses)
        self._extras(dataset.info, losses)

    def _extras(self, extras: Mapping[str, Mapping[str, Any]], losses: Losses) -> None:
        foreign = sorted(name for name, values in extras.items() if name != self.name and values)
        if foreign:
            losses.dropped("extra", f"only {' and '.join(foreign)} can read it")

    @staticmethod
    def _tell(losses: Losses, kind: str, held: bool, reason: str) -> None:
        if held:
            losses.kept(kind)
        else:
            losses.dropped(kind, reason)


def tell_of_id(source_id: int | None, written: Any, losses: Losses, reason: str) -> None:
    """Tell of a class that came with a number, and of the one it is written with."""
    if source_id is None:
        return
    if source_id == written:
        losses.kept("class id")
    else:
        losses.approximated("class id", reason)
