"""Every error rayseg raises on purpose, as one short tree.

    RaysegError
    ├── UsageError            wrong usage or a bad spec; the command exits with 2
    ├── StorageError          .uri names the object
    │   ├── ObjectNotFound    the bucket is there, the key or file is not
    │   ├── BucketNotFound    the bucket is not there
    │   ├── AccessDenied      the credentials are known, the action is not allowed
    │   ├── WrongCredentials  unknown key id, bad signature, expired token, or none found
    │   ├── Unreachable       no answer, or only 5xx and throttling, until the retries ran out
    │   ├── Conflict          a conditional write lost: the object exists or has changed
    │   ├── UnsupportedScheme no reader for this scheme, or no conditional write for an output
    │   └── BrokenPart, BrokenPlan, NotJson, NotAList   a file that is not what its place says, beside its reader
    ├── ImageError            .kind says what is wrong with the bytes, see `images.decode`
    ├── ModelError            an unknown model, a broken checkpoint, weights that are not to be had
    ├── EndpointError         a serving endpoint refused, or gave no usable answer; .status, .request_id
    └── JobError              a run that cannot go on: locked, changed, incomplete

A message names the thing, what was expected, what was found and what to do.
"""

from __future__ import annotations

from typing import Any


class RaysegError(Exception):
    """Root of the tree. Commands print the message alone and exit with 1."""

    exit_code = 1

    @property
    def kind(self) -> str:
        """Snake-case name that goes into the `error.kind` column of a label run."""
        name = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


class UsageError(RaysegError):
    """Wrong usage or a bad spec: names the field, the given value and what is allowed."""

    exit_code = 2


class StorageError(RaysegError):
    """Something about bytes at a URI."""

    def __init__(self, uri: str, message: str) -> None:
        super().__init__(f"{uri}: {message}")
        self.uri = uri
        self._message = message

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str]]:
        return type(self), (self.uri, self._message)


class ObjectNotFound(StorageError):
    """The bucket or file system answers, but has no such key or file."""


class BucketNotFound(StorageError):
    """The bucket does not exist."""


class AccessDenied(StorageError):
    """The credentials are known, but this action is not allowed to them."""


class WrongCredentials(StorageError):
    """No credentials, an unknown access key, a bad signature or an expired token."""


class Unreachable(StorageError):
    """The endpoint gave no usable answer until the retries ran out."""


class Conflict(StorageError):
    """A conditional write lost: the object exists already, or is not the one expected."""


class UnsupportedScheme(StorageError):
    """The scheme cannot be read, or cannot take the conditional writes an output needs."""


class ImageError(RaysegError):
    """Bytes that do not become an image; `kind` is one of the names in `images.ERROR_KINDS`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self._kind = kind

    @property
    def kind(self) -> str:
        return self._kind

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self._kind, str(self))


class ModelError(RaysegError):
    """An unknown model, a broken checkpoint, or weights that cannot be had."""


class EndpointError(RaysegError):
    """A serving endpoint refused, or gave no usable answer until the retries ran out.

    `status` is that of HTTP, None without an answer; `problem` names the refusal ("too-large"), `request_id` finds it in the
    server's log.
    """

    def __init__(self, message: str, *, status: int | None = None, problem: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status, self.problem, self.request_id = status, problem, request_id

    @property
    def kind(self) -> str:
        return self.problem.replace("-", "_") or super().kind

    def __reduce__(self) -> tuple[Any, ...]:
        return _endpoint_error, (str(self), self.status, self.problem, self.request_id)


def _endpoint_error(message: str, status: int | None, problem: str, request_id: str) -> EndpointError:
    return EndpointError(message, status=status, problem=problem, request_id=request_id)


class JobError(RaysegError):
    """A run that cannot start or go on; the message says how to resume or what to change."""
