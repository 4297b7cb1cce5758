"""What a writer of text files leaves out of an image before it begins, and tells the losses of.

Extras may have come through other formats' files, which anyone can write: a writer takes of its own ones what has the form
that its reader gives them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rayseg.annotations import AnnotatedImage
from rayseg.formats.keeping import is_json, kind_of
from rayseg.formats.losses import Losses

Checks = Mapping[str, Callable[[Any], bool]]
Extras = Mapping[str, Mapping[str, Any]]

_XML_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Own:
    """What the extras of the format `name` hold; with `others` also anything else that JSON can hold."""

    name: str
    image: Checks
    annotation: Checks
    category: Checks = field(default_factory=dict)
    others: bool = False

    def checked(self, extras: Extras, checks: Checks, losses: Losses) -> Extras:
        """Extras with those of the format that are of the right form."""
        values = extras.get(self.name)
        if not values:
            return extras
        kept = {key: one for key, one in values.items() if self._holds(key, one, checks)}
        if len(kept) < len(values):
            losses.dropped("extra", f"it has not the form of {self.name}'s")
        return {**extras, self.name: kept}

    def _holds(self, key: str, value: Any, checks: Checks) -> bool:
        check = checks.get(key)
        return is_json(value) and (self.others if check is None else check(value))


def drop_image(image: AnnotatedImage, reason: str, losses: Losses) -> None:
    """Tell of an image that is not written, and of its annotations."""
    losses.dropped("image", reason)
    for annotation in image.annotations:
        losses.dropped(kind_of(annotation), "its image is not written")


def writable(image: AnnotatedImage, own: Own, losses: Losses) -> AnnotatedImage:
    """The image without attributes that JSON cannot hold and extras of another form, its annotations likewise."""
    annotations = tuple(
        dataclasses.replace(
            one,
            attributes=_plain(one.attributes, losses),
            extras=own.checked(one.extras, own.annotation, losses),
        )
        if one.attributes or one.extras
        else one
        for one in image.annotations
    )
    return dataclasses.replace(
        image,
        attributes=_plain(image.attributes, losses),
        extras=own.checked(image.extras, own.image, losses),
        annotations=annotations,
    )


def foreign_extras(noted: Any, own: str) -> dict[str, Any]:
    """Other formats' extras out of a note of `keep_extras`; none where it is no such note."""
    values = noted if isinstance(noted, dict) else {}
    return {name: one for name, one in values.items() if name != own and is_object(one)}


def is_text(value: Any) -> bool:
    """A str."""
    return isinstance(value, str)


def is_object(value: Any) -> bool:
    """A dict by str."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def is_xml(value: Any) -> bool:
    """XML attributes: a dict of str by names that XML allows."""
    return is_object(value) and all(_XML_NAME.fullmatch(key) and isinstance(one, str) for key, one in value.items())


def is_list(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for a list all of whose items pass `check`."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def is_element(value: Any, depth: int = 0) -> bool:
    """An XML element as [tag, text], or [tag, list of such elements]."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or depth > _DEPTH_MAX:
        return False
    is_named = _XML_NAME.fullmatch(value[0]) is not None
    if isinstance(value[1], list):
        return is_named and all(is_element(child, depth + 1) for child in value[1])
    return is_named and isinstance(value[1], str)


def _plain(attributes: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    kept = {}
    for name, value in attributes.items():
        if is_json(value):
            kept[name] = value
        else:
            losses.dropped("attribute", "JSON cannot hold its value")
    return kept
