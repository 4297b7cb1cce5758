"""Which URIs callers may have read or written: those below a configured prefix, and nothing that only looks so.

A URI is taken apart by whole segments, so "s3://photos" does not allow "s3://photos-evil/x". Dot segments, also
percent-encoded ones, backslashes, control characters, user names and, outside S3 where they are part of the key, queries and
fragments are refused rather than interpreted. Local paths are allowed only where a prefix is a local path, and are followed
through every link before they are compared. HTTP is no prefix at all, so no metadata service can be reached through one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from rayseg.errors import StorageError, UsageError
from rayseg.serve.problems import Problem
from rayseg.storage import local
from rayseg.storage.entry import scheme_of

Access = Literal["read", "write"]
_LOCAL = ("", "file")
_REFUSED_SCHEMES = ("http", "https", "ftp")
_BAD_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\\u2028\u2029]")
_MOST_CHARACTERS = 2048


@dataclass(frozen=True)
class Prefixes:
    """What may be read and what may be written. Raises `UsageError` for a prefix that could not be enforced."""

    read: Sequence[str] = ()
    write: Sequence[str] = ()

    def __post_init__(self) -> None:
        for field, prefixes in (("read_prefixes", self.read), ("write_prefixes", self.write)):
            for prefix in prefixes:
                _check_prefix(field, prefix)

    def readable(self, uri: str) -> str:
        """`uri` as storage should read it; a local path comes out absolute, links resolved. Raises a `Problem` (403)."""
        return self._allowed(uri, self.read, "read")

    def writable(self, uri: str) -> str:
        """The same for writing below `uri`."""
        return self._allowed(uri, self.write, "write")

    def _allowed(self, uri: str, prefixes: Sequence[str], access: Access) -> str:
        _check_spelling(uri)
        scheme = scheme_of(uri)
        if scheme in _LOCAL:
            real = _real_path(uri)
            roots = [os.path.realpath(local.path_of(prefix)) for prefix in prefixes if scheme_of(prefix) in _LOCAL]
            if any(_below(real, root) for root in roots):
                return real
        else:
            normal = scheme + uri[len(scheme) :]
            if any(_below(normal, scheme_of(prefix) + prefix[len(scheme_of(prefix)) :]) for prefix in prefixes):
                return normal
        raise _refused(uri, access, bool(prefixes))


def _real_path(uri: str) -> str:
    """The local path behind a URI and every link. Raises a `Problem` where one of them is spelt as none should be."""
    try:
        path = local.path_of(uri)
    except StorageError:
        raise Problem(422, "bad-uri", "uri: expected file:///path, without a machine's name") from None
    _check_characters(path)
    real = os.path.realpath(path)
    _check_characters(real)
    return real


def _check_characters(text: str) -> None:
    if _BAD_CHARACTER.search(text):
        raise Problem(422, "bad-uri", "uri: control characters and backslashes are not taken")


def _below(uri: str, prefix: str) -> bool:
    """Whether `uri` is `prefix` or lies below it, by whole segments."""
    prefix = prefix.rstrip("/")
    return uri.rstrip("/") == prefix or uri.startswith(prefix + "/")


def _check_prefix(field: str, prefix: str) -> None:
    scheme = scheme_of(prefix)
    if scheme in _REFUSED_SCHEMES:
        raise UsageError(f"{field}: {prefix!r}: expected s3:// or a local folder; {scheme} is not read for callers")
    try:
        _check_spelling(prefix)
    except Problem as problem:
        raise UsageError(f"{field}: {prefix!r}: {problem.detail}") from None


def _check_spelling(uri: str) -> None:
    if not uri or len(uri) > _MOST_CHARACTERS:
        raise Problem(422, "bad-uri", f"uri: expected 1 to {_MOST_CHARACTERS} characters, found {len(uri)}")
    _check_characters(uri)
    scheme = scheme_of(uri)
    rest = uri.partition("://")[2] if scheme not in ("", "file") else uri
    if ("/." in f"/{rest}" or "%" in rest) and any(_is_dots(segment) for segment in rest.split("/")):
        raise Problem(422, "bad-uri", "uri: segments of dots are not taken; name the object itself")
    if scheme not in _LOCAL:
        host = rest.partition("/")[0]
        if not host or "@" in host or ":" in host or "%" in host:
            raise Problem(422, "bad-uri", "uri: expected a plain bucket's name after ://")
        if scheme != "s3" and ("?" in uri or "#" in uri):
            raise Problem(422, "bad-uri", "uri: queries and fragments are not taken")


def _is_dots(segment: str) -> bool:
    """Whether the segment is "." or "..", as it is or as something on the way might decode it."""
    for _ in range(3):
        if segment in (".", ".."):
            return True
        segment = unquote(segment)
    return segment in (".", "..")


def _refused(uri: str, access: Access, some: bool) -> Problem:
    if not some:
        return Problem(
            403, "uri-not-allowed", f"this server is not set up to {access} URIs ({access}_prefixes is empty)"
        )
    return Problem(403, "uri-not-allowed", f"uri: {uri[:200]!r} is outside what this server may {access}")
