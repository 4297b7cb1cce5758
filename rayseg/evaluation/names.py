"""Which class and which image of the ground truth a prediction means: names decide, ids only where there are no names.

Classes: the same name, else the same but for case, spaces, hyphens and underscores, where that is clear.
Images: the same path within the data set, else the longest end of the prediction's path that is one image's path, else
its file name where one image alone has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class ClassNames:
    """The classes of the ground truth, as predictions name them."""

    def __init__(self, names: Sequence[str], source_ids: Sequence[int | None]) -> None:
        self.names = tuple(names)
        self._exact = {name: i for i, name in reversed(list(enumerate(self.names)))}
        folded = Counter(_folded(name) for name in self.names)
        self._folded = {_folded(name): i for i, name in enumerate(self.names) if folded[_folded(name)] == 1}
        known = all(one is not None for one in source_ids)
        self.by_id = {one: i for i, one in enumerate(source_ids) if one is not None} if known else None
        self.near: dict[str, str] = {}  # what was taken for which class though it is not spelled like it

    def find(self, name: str) -> int:
        """The class that `name` means, -1 for none."""
        if name in self._exact:
            return self._exact[name]
        found = self._folded.get(_folded(name), -1)
        if found >= 0:
            self.near[name] = self.names[found]
        return found

    def of_id(self, source_id: int) -> int:
        """The class with an id of the ground truth's format, -1 for none; where it has no ids, they are places from 0."""
        if self.by_id is not None:
            return self.by_id.get(source_id, -1)
        return source_id if 0 <= source_id < len(self.names) else -1


class ImageNames:
    """The images of the ground truth, by name and by the ids their format has."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.uris: list[str | None] = []
        self.ids: list[int | str | None] = []
        self._ranks: dict[str, int] = {}
        self._endings: dict[str, int] = {}  # by file name; -1 where several have it
        self._by_id: dict[int | str, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, uri: str | None, source_id: int | str | None) -> int:
        """Take in one image; returns its rank, -1 for a name that is there already.

        An id that comes again, as in the files of two splits, means no image any more.
        """
        if name in self._ranks:
            return -1
        rank = len(self.names)
        self.names.append(name)
        self.uris.append(uri)
        self.ids.append(source_id)
        self._ranks[name] = rank
        ending = name.rpartition("/")[2]
        self._endings[ending] = -1 if ending in self._endings else rank
        if source_id is not None:
            self._by_id[source_id] = -1 if source_id in self._by_id else rank
        return rank

    def of_path(self, path: str) -> int:
        """The rank of the image that a path or URI means, -1 for none."""
        path = path.replace("\\", "/")
        rank = self._ranks.get(path)
        cut = 0
        while rank is None and (cut := path.find("/", cut) + 1):
            rank = self._ranks.get(path[cut:])
        if rank is None:
            rank = self._endings.get(path.rpartition("/")[2], -1)
        return rank

    def of_id(self, value: int | str) -> int:
        """The rank of the image that a result's `image_id` means, -1 for none.

        Text that is no id is taken as a path; where the ground truth's format has no ids, a number is the image's place in
        the data set, from 0.
        """
        if value in self._by_id:
            return self._by_id[value]
        if isinstance(value, str):
            return self.of_path(value)
        if not self._by_id and 0 <= value < len(self.names):
            return value
        return -1

    def in_order(self) -> list[int]:
        """Ranks in the order in which the COCO API goes through images: by id where all have numbers, else as they came."""
        if all(isinstance(one, int) for one in self.ids) and -1 not in self._by_id.values():
            return sorted(range(len(self.ids)), key=lambda rank: self.ids[rank] or 0)
        return list(range(len(self.ids)))


def _folded(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())
