"""Names of classes as a format writes them: each another, and none that a file cannot hold."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from rayseg.annotations import Category
from rayseg.formats.losses import Losses

_SHOWN_CHARS = 80


def distinct(
    categories: Iterable[Category], losses: Losses, tool: str, clean: Callable[[str], str] = str
) -> tuple[Category, ...]:
    """The categories with names that `clean` leaves as they are, the second of a name with a number; tells of changes."""
    used: set[str] = set()
    named = []
    for category in categories:
        name = clean(category.name.encode("utf-8", "replace").decode())
        name = next(
            one for one in itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2))) if one not in used
        )
        used.add(name)
        if name != category.name:
            losses.approximated(
                "class", f"{tool} cannot hold its name, or another class has it: now {name[:_SHOWN_CHARS]!r}"
            )
        named.append(dataclasses.replace(category, name=name))
    return tuple(named)
