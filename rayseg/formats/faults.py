"""What is wrong with a data set's items: raised at once, or counted and passed over.

A reader meets a bad item and calls `faults.add(...)`: with `on_error="raise"` that raises, with "skip" it returns, and
the reader goes on without the item. A file that is not of its format at all is raised either way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from rayseg.errors import StorageError

OnError = Literal["raise", "skip"]
MAX_MESSAGES = 1000  # more are counted, not kept


class BadAnnotation(StorageError):
    """An item of an annotation file that cannot be taken as it is; the message names file and item."""


class Unusable(ValueError):
    """An item that a part of a reader cannot take: the reader passes `kind` and message on to its `Faults`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class Faults:
    """`counts` by kind ("polygon", "box", "image" ...), `messages` of the first `MAX_MESSAGES`."""

    on_error: OnError = "raise"
    counts: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def add(self, uri: str, kind: str, item: str, message: str) -> None:
        """One bad item: `item` says which within `uri` ("annotations[7]", "line 3"), `message` what was expected and found.

        Raises `BadAnnotation` unless items are to be skipped.
        """
        error = BadAnnotation(uri, f"{item}: {message}")
        if self.on_error == "raise":
            raise error
        self.counts[kind] += 1
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append(str(error))
