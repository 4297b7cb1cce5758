"""Who calls: bearer tokens, known by their hashes alone.

A tokens file, or $RAYSEG_SERVE_TOKENS, has a line per token, `name:sha256:<hex>`; `rayseg serve --new-token NAME` makes a
token and its line. A token has 256 random bits, so that a plain hash of it tells nobody what it is. What is presented is
compared with every hash, each time in constant time. Without any tokens everybody is the caller "anonymous", and the server
listens on loopback only and answers only to loopback's names, so that no web page can reach it under a name of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from rayseg.errors import UsageError
from rayseg.serve.problems import Problem

TOKENS_VARIABLE = "RAYSEG_SERVE_TOKENS"
ANONYMOUS = "anonymous"
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):sha256:([0-9a-f]{64})")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Tokens:
    """`hashes` by name, SHA-256 in hex; none lets everybody in as "anonymous"."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self.hashes = dict(hashes)

    def caller(self, authorization: str | None) -> str:
        """The name of the token in an Authorization header. Raises a `Problem` (401)."""
        if not self.hashes:
            return ANONYMOUS
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorized("expected the header: Authorization: Bearer TOKEN")
        presented = hash_of(token.strip())
        found = None
        for name, known in self.hashes.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(presented, known):
                found = name
        if found is None:
            raise _unauthorized("this token is not known")
        return found


def hash_of(token: str) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """A new token and the line that lets it in."""
    token = secrets.token_urlsafe(32)
    line = f"{name}:sha256:{hash_of(token)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"--new-token {name!r}: expected letters, digits, dots, dashes and underscores, up to 64")
    return token, line


def load_tokens(tokens_file: str | None, environment: Mapping[str, str] | None = None) -> Tokens:
    """The tokens of a file, else of the environment. Raises `UsageError`, which never quotes a line."""
    if tokens_file is not None:
        try:
            return parse(Path(tokens_file).read_text(encoding="utf-8"), tokens_file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UsageError(f"tokens_file {tokens_file}: cannot be read: {reason}") from None
    text = (os.environ if environment is None else environment).get(TOKENS_VARIABLE, "")
    return parse(text.replace(",", "\n"), f"${TOKENS_VARIABLE}") if text else Tokens({})


def parse(text: str, source: str) -> Tokens:
    """The tokens of `text`; empty lines and those that begin with # are left out."""
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in hashes:
            fault = "expected name:sha256:<64 hex digits>" if match is None else f"the name {match[1]} is there twice"
            raise UsageError(f"{source}, line {number}: {fault}; rayseg serve --new-token NAME makes such a line")
        hashes[match[1]] = match[2]
    if not hashes:
        raise UsageError(f"{source}: holds no token")
    return Tokens(hashes)


def check_host_setting(host: str, tokens: Tokens) -> None:
    """Raise `UsageError` for a server that others could reach without a token."""
    if not tokens.hashes and not is_loopback(host):
        raise UsageError(
            f"host: {host!r} can be reached by others, and there are no tokens: set tokens_file or ${TOKENS_VARIABLE} "
            "(rayseg serve --new-token NAME makes one), or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host_header(host: str | None, tokens: Tokens) -> None:
    """Without tokens: raise a `Problem` unless the request was sent to a name of loopback (DNS rebinding)."""
    if tokens.hashes:
        return
    name = re.sub(r":\d+$", "", (host or "").lower())
    if name not in _LOOPBACK_NAMES:
        raise Problem(421, "wrong-host", "this server has no tokens and answers to localhost and 127.0.0.1 only")


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="rayseg"'})
