"""What callers are told when a request cannot be answered: RFC 9457 problem documents.

    {"type": "rayseg:too-large", "title": ..., "status": 413, "detail": ..., "request_id": ...}

A `Problem` is raised anywhere below a route and names what the caller can change. Whatever else is raised becomes
"rayseg:internal" and says nothing of what happened inside; the log does, under the same request id.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Problem(Exception):
    """An answer other than the one asked for; `kind` is its stable name, `detail` says what to change."""

    def __init__(self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, kind, detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.status, self.kind, self.detail, self.headers)

    def document(self, request_id: str) -> dict[str, Any]:
        """The body, as JSON takes it."""
        return {
            "type": f"rayseg:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }

    def body(self, request_id: str) -> bytes:
        return json.dumps(self.document(request_id)).encode()


def _rebuilt(status: int, kind: str, detail: str, headers: dict[str, str]) -> Problem:
    return Problem(status, kind, detail, headers=headers)


def busy(detail: str, retry_after_s: int = 1) -> Problem:
    """503: the request was fine, the server has no room for it now."""
    return Problem(503, "busy", detail, headers={"Retry-After": str(retry_after_s)})


def internal() -> Problem:
    """500, without any of the inside."""
    return Problem(500, "internal", "something failed on our side; the log has it under this request id")


def request_id_of(given: str | None) -> str:
    """The caller's own id where it is harmless in a header and a log line, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
