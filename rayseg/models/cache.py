"""Weights on local disk: downloaded once per machine, however many processes ask.

`$RAYSEG_CACHE` or `~/.cache/rayseg`; a model's weights lie in `models/<fingerprint>/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rayseg.errors import ModelError


def models_folder() -> Path:
    """Where downloaded checkpoints lie."""
    root = os.environ.get("RAYSEG_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "rayseg") / "models"


def fetched_once(target: Path, fault: Callable[[Path], str | None], fetch: Callable[[BinaryIO], None]) -> Path:
    """`target`, after one process of this machine has made it with `fetch` if it was missing or damaged.

    `fault` says what is wrong with a file, or None; `fetch` writes the content into an open file. Whoever comes while
    another process fetches waits for it. The file appears whole or not at all.
    Raises `ModelError` if the fetched bytes are faulty themselves, or if the folder cannot be written.
    """
    if _is_good(target, fault):
        return target
    try:
        with _exclusive(target):
            if not _is_good(target, fault):
                _fetch(target, fault, fetch)
    except OSError as error:
        raise ModelError(
            f"{target.parent}: cannot keep a model there ({error.strerror or error}); "
            "free some space, or point RAYSEG_CACHE (TORCH_HOME for torchvision's weights) elsewhere"
        ) from error
    return target


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_good(target: Path, fault: Callable[[Path], str | None]) -> bool:
    return target.exists() and fault(target) is None


def _fetch(target: Path, fault: Callable[[Path], str | None], fetch: Callable[[BinaryIO], None]) -> None:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            fetch(file)
        wrong = fault(part)
        if wrong is not None:
            raise ModelError(wrong)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`; it falls open when its holder dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
