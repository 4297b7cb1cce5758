"""Which rows of an output count: parts, epochs, the manifest.

    data/part-EEEE-OOOOOOOOOOOO-HHHHHHHH.parquet   a part: rows and, in its footer, the ordinals it covers
    epochs/EEEE.json                               what the driver of epoch EEEE found and accepted when it began
    manifest.json                                  written last: complete, and exactly these parts

A part counts when the epoch it was written in accepted it: the epoch after reads `epochs/EEEE.json`, adds the parts that
carry EEEE in their names, and records the union as its own. A part that lands later, from a driver that was thought dead,
is in nobody's record (a ghost): it is never counted, and whoever finishes removes it. Parts that cover an ordinal twice
cannot both be accepted; the first by name is, and what only the other held is labelled again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayseg import storage
from rayseg.errors import Conflict, JobError, ObjectNotFound
from rayseg.formats.ordinals import OrdinalBitmap
from rayseg.formats.parts import BrokenPart, PartFooter, read_footers

_PART = re.compile(r"part-(\d{4,})-(\d{12,})-([0-9a-f]{8})\.parquet")
_EPOCH = re.compile(r"(\d{4,})\.json")


@dataclass(frozen=True, slots=True)
class Counts:
    """Images by outcome, and instances; images = labelled + empty + failed."""

    labelled: int = 0
    empty: int = 0
    failed: int = 0
    instances: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.labelled + other.labelled,
            self.empty + other.empty,
            self.failed + other.failed,
            self.instances + other.instances,
        )

    @property
    def images(self) -> int:
        return self.labelled + self.empty + self.failed


def part_name(epoch: int, ordinals: np.ndarray) -> str:
    """Name of the part that holds `ordinals` (K,) int64 in `epoch`: a retried write lands on the same key."""
    digest = hashlib.sha256(np.ascontiguousarray(ordinals, np.int64).tobytes()).hexdigest()[:8]
    return f"part-{epoch:04d}-{int(ordinals.min()):012d}-{digest}.parquet"


class Ledger:
    """The accepted parts of one output, as the driver that owns `epoch` sees them."""

    def __init__(self, out: str, total: int, epoch: int) -> None:
        self.out, self.total, self.epoch = out, total, epoch
        self.done = OrdinalBitmap(total)
        self.parts: dict[str, PartFooter] = {}

    @property
    def remaining(self) -> int:
        return self.total - self.done.count()

    def counts(self) -> Counts:
        """What the accepted parts hold."""
        return sum((_counts(part) for part in self.parts.values()), Counts())

    def accept(self, part: PartFooter) -> bool:
        """Count `part`; False when one of its ordinals is counted already or not in the plan, so that it must not be."""
        if part.name in self.parts:
            return True
        beyond = len(part.ranges) and part.ranges[-1, 1] > self.total
        if beyond or self.done.overlaps(part.ranges):
            return False
        self.done.add_ranges(part.ranges)
        self.parts[part.name] = part
        return True

    def finish(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Put `manifest.json` and remove what no epoch accepted; returns the manifest that stands.

        Raises `JobError` when ordinals are missing.
        """
        if self.remaining:
            raise JobError(f"{self.out}: {self.remaining} of {self.total} images have no row yet")
        parts = [
            {"name": part.name, "rows": part.rows, "size_bytes": part.size_bytes}
            for part in sorted(self.parts.values(), key=lambda part: part.name)
        ]
        manifest = {**manifest, "parts": parts}
        try:
            storage.create(_manifest_uri(self.out), json.dumps(manifest, indent=1).encode())
        except Conflict:
            standing = read_manifest(self.out)  # a driver that lost its lock was complete all the same
            if standing is None:
                raise
            manifest = standing
        remove_strays(self.out, manifest)
        return manifest


def begin(
    out: str,
    total: int,
    *,
    drop_failed: bool = False,
    afresh: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Ledger, list[PartFooter]]:
    """Claim the next epoch of `out` and count what earlier ones left.

    With `drop_failed`, parts that hold error rows are not accepted; they are returned, so that their good rows can be
    carried over. With `afresh` nothing that is there is accepted. A part that is broken or gone does not count, so its
    images are labelled again; `say` hears of it. Raises `JobError` when another driver claimed the epoch.
    """
    last, accepted = _last_epoch(out)
    ledger = Ledger(out, total, last + 1)
    dropped: list[PartFooter] = []
    if not afresh:
        for footer in _countable(out, last, accepted, say):
            if drop_failed and footer.counts.get("failed", 0):
                dropped.append(footer)
            else:
                ledger.accept(footer)
    _claim(out, ledger.epoch, ledger.parts)
    return ledger, dropped


def _claim(out: str, epoch: int, accepted: Iterable[str]) -> None:
    record = {"epoch": epoch, "accepted": sorted(accepted)}
    try:
        storage.create(storage.join(out, "epochs", f"{epoch:04d}.json"), json.dumps(record).encode())
    except Conflict:
        raise JobError(f"{out}: another run claimed epoch {epoch}; start again") from None


def read_manifest(out: str) -> dict[str, Any] | None:
    """The manifest of a complete output, None when it is not complete."""
    try:
        return json.loads(storage.read(_manifest_uri(out)))
    except ObjectNotFound:
        return None


def remove_strays(out: str, manifest: dict[str, Any]) -> int:
    """Delete the parts that a complete output's manifest does not name; returns how many there were."""
    named = {part["name"] for part in manifest["parts"]}
    strays = [uri for name, uri in _listed_parts(out) if name not in named]
    for uri in strays:
        storage.delete(uri)
    return len(strays)


def clear(out: str) -> None:
    """Forget everything but the epochs; a new one accepts nothing, so that no late part of the past can ever count.

    The manifest goes first, so that nothing half removed looks whole.
    """
    last, _ = _last_epoch(out)
    _claim(out, last + 1, ())
    storage.delete(_manifest_uri(out))
    storage.delete(storage.join(out, "job.json"))
    for folder in ("plan", "data"):
        for entry in _entries(storage.join(out, folder)):
            storage.delete(entry.uri)


def reopen(out: str) -> None:
    """Take back `manifest.json`: the output is incomplete again, all its parts stand."""
    storage.delete(_manifest_uri(out))


def has_parts(out: str) -> bool:
    """True when parts of a run, counted or not, lie in `out`."""
    return next(_listed_parts(out), None) is not None


def _countable(out: str, last: int, accepted: set[str], say: Callable[[str], None]) -> Iterator[PartFooter]:
    """Footers of the parts that epoch `last` + 1 may count: accepted ones first, then those of `last`, each by name."""
    listed = dict(_listed_parts(out))
    for name in sorted(accepted - listed.keys()):
        say(f"data/{name} was counted before and is gone: its images are labelled again")
    fresh = sorted(name for name in listed.keys() - accepted if _epoch_of(name) == last)
    names = [*sorted(accepted & listed.keys()), *fresh]
    for footer in read_footers([listed[name] for name in names]):
        if isinstance(footer, BrokenPart):
            say(f"{footer}: its images are labelled again")
        else:
            yield footer


def _last_epoch(out: str) -> tuple[int, set[str]]:
    epochs = [
        (int(match[1]), entry.uri)
        for entry in _entries(storage.join(out, "epochs"))
        if (match := _EPOCH.fullmatch(_name(entry.uri)))
    ]
    if not epochs:
        return 0, set()
    last, uri = max(epochs)
    return last, set(json.loads(storage.read(uri))["accepted"])


def _listed_parts(out: str) -> Iterator[tuple[str, str]]:
    for entry in _entries(storage.join(out, "data")):
        name = _name(entry.uri)
        if _PART.fullmatch(name):
            yield name, entry.uri


def _entries(folder: str) -> Iterator[storage.Entry]:
    try:
        for page in storage.list_pages(folder):
            yield from page
    except ObjectNotFound:
        return  # a local folder that was never made is an empty one


def _counts(part: PartFooter) -> Counts:
    return Counts(**{key: int(part.counts.get(key, 0)) for key in ("labelled", "empty", "failed", "instances")})


def total_size_bytes(parts: Iterable[PartFooter]) -> int:
    """Bytes of `parts` in storage."""
    return sum(part.size_bytes for part in parts)


def _epoch_of(name: str) -> int:
    match = _PART.fullmatch(name)
    return int(match[1]) if match else -1


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _manifest_uri(out: str) -> str:
    return storage.join(out, "manifest.json")
