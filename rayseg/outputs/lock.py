"""`lock.json`: one driver at a time owns an output.

The lock is taken by a conditional put and kept by a heartbeat that replaces it, also conditionally, so a driver that was
away too long (paused, cut off) learns from its next heartbeat that another one took over. Ages come from the store's own
clock. A lock whose owner ran on this very machine and is no longer there is taken at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rayseg import storage
from rayseg.errors import Conflict, JobError, ObjectNotFound, StorageError

TTL_S = 60.0
BEATS_PER_TTL = 6


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock, in enough detail to tell on the same machine whether it still lives."""

    id: str
    host: str
    pid: int
    machine: str  # kernel boot and pid namespace: equal only where `pid` means the same process
    started: str  # start time of `pid`, so that a reused pid is not taken for the owner

    @classmethod
    def me(cls) -> Owner:
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, _machine(), _started(pid))

    def is_here(self) -> bool:
        """True when the owner ran on this machine, so that looking at the process tells whether it lives."""
        return bool(self.machine) and self.machine == _machine()

    def lives(self) -> bool:
        """Whether the process is still there; only meaningful when `is_here`."""
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


class Lock:
    """A held `lock.json`; `lost` is set when another driver took over."""

    def __init__(self, uri: str, owner: Owner, version: str, ttl_s: float) -> None:
        self.lost = threading.Event()
        self._uri, self._owner, self._version, self._ttl_s = uri, owner, version, ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="rayseg-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `JobError` when the lock was lost."""
        if self.lost.is_set():
            raise JobError(f"{self._uri}: another run took over this output; what it has accepted so far is kept")

    def release(self) -> None:
        """Stop the heartbeat and remove the lock if it is still ours."""
        self._stop.set()
        self._thread.join()
        if not self.lost.is_set():
            with contextlib.suppress(StorageError):
                if storage.read_versioned(self._uri).version == self._version:
                    storage.delete(self._uri)

    def _beat(self) -> None:
        while not self._stop.wait(self._ttl_s / BEATS_PER_TTL):
            try:
                self._version = storage.replace(self._uri, _body(self._owner, self._ttl_s), self._version)
            except (Conflict, ObjectNotFound):
                self.lost.set()
                return
            except StorageError:
                continue  # unreachable for now: only a Conflict proves that the lock is lost


def acquire(out: str, ttl_s: float = TTL_S, say: Callable[[str], None] = lambda _: None) -> Lock:
    """Take `out`/lock.json; waits for a silent owner to expire, at most `ttl_s` of that owner.

    Raises `JobError` naming the owner when another run is alive, `StorageError` when the output cannot be written.
    """
    uri = storage.join(out, "lock.json")
    owner = Owner.me()
    while True:
        try:
            return Lock(uri, owner, storage.create(uri, _body(owner, ttl_s)), ttl_s)
        except Conflict:
            version = _wait_for_expiry(uri, say)
        if version is None:
            continue
        try:
            return Lock(uri, owner, storage.replace(uri, _body(owner, ttl_s), version), ttl_s)
        except (Conflict, ObjectNotFound):
            continue  # another driver was faster: look at its lock


def _wait_for_expiry(uri: str, say: Callable[[str], None]) -> str | None:
    """The version of an expired lock, None when it went away; raises when its owner gives a sign of life."""
    first: str | None = None
    while True:
        try:
            held = storage.read_versioned(uri)
        except ObjectNotFound:
            return None
        owner, ttl_s = _parse(held.data)
        here = owner if owner is not None and owner.is_here() else None
        if held.age_s >= ttl_s or (here and not here.lives()):
            return held.version
        if here or (first is not None and held.version != first):
            raise JobError(f"{uri}: another run is writing this output ({owner}); wait for it, or stop it")
        if first is None:
            first = held.version
            say(f"output locked by {owner}; last sign of life {held.age_s:.0f} s ago, waiting whether it gives another")
        time.sleep(min(1.0, max(0.05, ttl_s - held.age_s)))


def _body(owner: Owner, ttl_s: float) -> bytes:
    record = {"owner": asdict(owner), "ttl_s": ttl_s, "heartbeat": time.time()}
    return json.dumps(record, indent=1).encode()


def _parse(data: bytes) -> tuple[Owner | None, float]:
    try:
        record = json.loads(data)
        return Owner(**record["owner"]), float(record["ttl_s"])
    except (ValueError, KeyError, TypeError):
        return None, TTL_S


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
