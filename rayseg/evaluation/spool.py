"""Columns by shard, held in memory up to a limit and on local disk beyond it.

A shard is a run of `SHARD_IMAGES` images in the order of the ground truth. Rows come in any order of shards; what is over
the limit is appended to one file per shard, so that millions of images need the memory of some hundred.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import fields
from pathlib import Path

import numpy as np

from rayseg.evaluation.columns import Columns, by_image, joined

SHARD_IMAGES = 512
MEMORY_BYTES = 256 << 20


class Spool:
    """Columns by shard."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._held: dict[int, list[Columns]] = {}
        self._held_bytes = 0
        self._folder: Path | None = None

    def add(self, columns: Columns) -> None:
        """Rows of any images."""
        if not len(columns):
            return
        shards = columns.images // SHARD_IMAGES
        if shards[0] == shards[-1] and (shards == shards[0]).all():
            self._hold(int(shards[0]), columns)
        else:
            order = np.argsort(shards, kind="stable")
            cuts = np.flatnonzero(np.diff(shards[order])) + 1
            for rows in np.split(order, cuts):
                self._hold(int(shards[rows[0]]), columns.take(rows))
        if self._held_bytes > self._memory_bytes:
            self._spill()

    def columns(self, shard: int) -> Columns:
        """The rows of a shard, image by image, within an image in the order they came."""
        return by_image(joined([*self._spilled(shard), *self._held.get(shard, ())]))

    @property
    def on_disk(self) -> bool:
        """Whether anything had to be spilled."""
        return self._folder is not None

    def _hold(self, shard: int, columns: Columns) -> None:
        self._held.setdefault(shard, []).append(columns)
        self._held_bytes += columns.size_bytes

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="rayseg-eval-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        for shard, pieces in self._held.items():
            with (self._folder / f"{shard:08d}").open("ab") as file:
                for one in fields(Columns):
                    np.save(file, getattr(joined(pieces), one.name), allow_pickle=False)
        self._held.clear()
        self._held_bytes = 0

    def _spilled(self, shard: int) -> list[Columns]:
        path = self._folder / f"{shard:08d}" if self._folder else None
        if path is None or not path.exists():
            return []
        pieces, size = [], path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                pieces.append(Columns(**{one.name: np.load(file, allow_pickle=False) for one in fields(Columns)}))
        return pieces
