"""A random order of names that depends on the seed and the names alone.

Each name gets a random number of its own, a keyed hash. So the order is the same on every machine and for whatever
order the names come in, and adding an image moves no other.
"""

from __future__ import annotations

import hashlib


def rank(seed: int, name: str) -> int:
    """The number of `name` under `seed`, even over 0 to 2^64 - 1; sorting by it shuffles."""
    key = seed.to_bytes(16, "big", signed=True)
    return int.from_bytes(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest(), "big"
    )
