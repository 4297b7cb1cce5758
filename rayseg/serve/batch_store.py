"""What the server knows of its batches, in storage: one JSON object per batch, below `spec.batches`.

    BATCHES/20261125T093000-3f9c2ab0.json   asked for by whom and when, its spec, its state, its counts
    BATCHES/lists/<sha256>.txt              the images of a batch that named them one by one

How far a batch has come is not in here: its output says that, and whoever goes on with it counts there. A record changes
only where its state does, by a conditional put, so that a cancellation and the end of a batch cannot overwrite each other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from rayseg import storage
from rayseg.errors import Conflict, JobError, ObjectNotFound

State = Literal["queued", "planning", "running", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
SCHEMA_VERSION = 1
_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
_THREADS = 16
_log = logging.getLogger("rayseg.serve")


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. `spec` is its output's, as JSON; counts are those of its end, or of when its state last changed."""

    id: str
    model: str
    spec: dict[str, Any]
    created: str
    state: State = "queued"
    total: int | None = None
    done: int = 0
    failed: int = 0
    error: str | None = None
    finished: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def with_state(self, state: State, **changes: Any) -> BatchRecord:
        """This batch in another state; one that ends it is dated."""
        finished = _now() if state in ENDED else None
        return replace(self, state=state, finished=finished, **changes)


def new_record(model: str, spec: dict[str, Any]) -> BatchRecord:
    """A batch that was asked for now."""
    id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    return BatchRecord(id, model, spec, _now())


def is_id(text: str) -> bool:
    """Whether `text` could name a batch, and so may become part of a key."""
    return _ID.fullmatch(text) is not None


class BatchStore:
    """The records below `uri`. Every method may raise `StorageError`; records that have ended are remembered."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._ended: dict[str, BatchRecord] = {}

    def add(self, record: BatchRecord) -> None:
        """Put a new record."""
        storage.create(self._uri_of(record.id), _to_bytes(record))

    def read(self, id: str) -> BatchRecord | None:
        """The record as it is now, None where there is none."""
        return self._versioned(id)[0]

    def update(self, id: str, change: Callable[[BatchRecord], BatchRecord]) -> BatchRecord | None:
        """Put what `change` makes of the record as it is; one that has ended stays as it is. None where there is none."""
        while True:
            record, version = self._versioned(id)
            if record is None or record.ended:
                return record
            changed = change(record)
            try:
                storage.replace(self._uri_of(id), _to_bytes(changed), version)
            except (Conflict, ObjectNotFound):
                continue  # somebody else was faster: look again
            return self._remembered(changed)

    def remove(self, id: str) -> None:
        """Forget a batch; its output stays."""
        storage.delete(self._uri_of(id))
        self._ended.pop(id, None)

    def newest(self, limit: int | None = None) -> list[BatchRecord]:
        """The latest batches first, at most `limit`."""
        names = (entry.uri.rpartition("/")[2] for page in self._pages() for entry in page)
        ids = sorted((name.removesuffix(".json") for name in names if name.endswith(".json")), reverse=True)
        with ThreadPoolExecutor(_THREADS, "rayseg-records") as threads:
            records = threads.map(self._remembered_or_read, list(filter(is_id, ids))[:limit])
            return [record for record in records if record is not None]

    def put_list(self, images: Sequence[str]) -> str:
        """The URI of a list of `images`: the same images are the same list, so that a batch of them can be resumed."""
        data = "".join(f"{image}\n" for image in images).encode()
        uri = storage.join(self.uri, "lists", f"{hashlib.sha256(data).hexdigest()}.txt")
        storage.write(uri, data)
        return uri

    def _pages(self) -> Iterable[list[storage.Entry]]:
        try:
            yield from storage.list_pages(self.uri)
        except ObjectNotFound:
            return  # a local folder that was never made is an empty one

    def _remembered_or_read(self, id: str) -> BatchRecord | None:
        try:
            return self._ended.get(id) or self.read(id)
        except JobError as error:
            _log.warning("a record is passed over", extra={"fields": {"batch": id, "error": str(error)}})
            return None

    def _versioned(self, id: str) -> tuple[BatchRecord | None, str]:
        try:
            found = storage.read_versioned(self._uri_of(id))
        except ObjectNotFound:
            return None, ""
        return self._remembered(_from_bytes(found.data, self._uri_of(id))), found.version

    def _remembered(self, record: BatchRecord) -> BatchRecord:
        if record.ended:
            self._ended[record.id] = record
        return record

    def _uri_of(self, id: str) -> str:
        return storage.join(self.uri, f"{id}.json")


def _to_bytes(record: BatchRecord) -> bytes:
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(record)}, indent=1).encode()


def _from_bytes(data: bytes, uri: str) -> BatchRecord:
    try:
        fields = json.loads(data)
        if fields.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"expected schema version {SCHEMA_VERSION}")
        return BatchRecord(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{uri}: not the record of a batch: {error!r}") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
