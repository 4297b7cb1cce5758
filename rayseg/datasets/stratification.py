"""Iterative stratification: sharing out items that carry several labels each, so that every subset gets its share of each.

Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1: the label
with the fewest items left comes first; each of its items goes to the subset that still wants most of that label, then to
the one that wants most items, then to one of these at random. Here an item may also stand for several images (`weight`),
which must stay together; heavy items then go before light ones, while they still fit.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_TIE = 1e-9  # shares times counts are rounded: what is this close counts as equal


class Item(NamedTuple):
    """What is placed as one: how many images it is, and in how many of them each label is."""

    weight: int
    labels: Mapping[int, int]


def share_out(items: Sequence[Item], shares: Sequence[float], seed: int) -> list[int]:
    """For each item the subset it goes to, 0 to len(shares) - 1; the shares add up to 1.

    The same items in the same order get the same subsets. Takes time in proportion to all labels of all items.
    """
    return _Placement(items, shares, random.Random(seed)).run()


class _Placement:
    """The state of algorithm 1."""

    def __init__(self, items: Sequence[Item], shares: Sequence[float], chance: random.Random) -> None:
        self.items = items
        self.chance = chance
        self.placed = [-1] * len(items)
        self.left: dict[int, int] = {}  # images of each label that are not placed yet
        self.bearers: dict[int, list[int]] = {}
        order = sorted(chance.sample(range(len(items)), len(items)), key=lambda i: -items[i].weight)
        self.order = order
        for i in order:
            for label, count in items[i].labels.items():
                self.left[label] = self.left.get(label, 0) + count
                self.bearers.setdefault(label, []).append(i)
        total = sum(item.weight for item in items)
        self.wanted = [share * total for share in shares]
        self.wanted_of = {label: [share * count for share in shares] for label, count in self.left.items()}

    def run(self) -> list[int]:
        while self.left:
            label = min(self.left, key=lambda label: (self.left[label], label))
            for i in self.bearers[label]:
                if self.placed[i] < 0:
                    self._place(i, self.wanted_of[label])
            del self.left[label]
        for i in self.order:
            if self.placed[i] < 0:
                self._place(i, self.wanted)
        return self.placed

    def _place(self, i: int, wish: list[float]) -> None:
        """Put item `i` where `wish`, the subsets' want of one label, is largest."""
        subset = self._neediest(wish)
        self.placed[i] = subset
        self.wanted[subset] -= self.items[i].weight
        for label, count in self.items[i].labels.items():
            self.wanted_of[label][subset] -= count
            if label in self.left:
                self.left[label] -= count

    def _neediest(self, wish: list[float]) -> int:
        candidates = range(len(wish))
        for want in (wish, self.wanted):
            most = max(want[k] for k in candidates)
            candidates = [k for k in candidates if want[k] >= most - _TIE]
        return candidates[0] if len(candidates) == 1 else self.chance.choice(candidates)
