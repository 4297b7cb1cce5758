"""Finding repeated URIs in a list too long for a set of strings.

A table with a line per object names each image many times, in any order; each is to be labelled once. A URI is kept as
96 bits of hash, 12 bytes where a Python set takes a hundred and more: among 100 million URIs the chance that one is
wrongly taken for a repeat is below 1e-12.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GROWTH = 4  # a run is merged into the one before it unless that is this many times longer


class Repeats:
    """Remembers URIs; `fresh` tells the new ones."""

    def __init__(self) -> None:
        self._runs: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # (keys (K,) int64 ascending, checks (K,) uint32), long to short

    def fresh(self, uris: Sequence[str]) -> np.ndarray:
        """(N,) bool: the URI was in no call before, nor earlier in this one."""
        first = dict.fromkeys(uris)
        keys = np.fromiter(map(hash, first), np.int64, len(first))
        checks = np.fromiter((hash("\0" + uri) & 0xFFFFFFFF for uri in first), np.uint32, len(first))
        order = np.argsort(keys)  # ascending needles find their place several times faster
        keys, checks = keys[order], checks[order]
        new = ~self._has(keys, checks)
        self._keep(keys[new], checks[new])
        is_new = np.empty(len(first), bool)
        is_new[order] = new
        if len(first) == len(uris):
            return is_new
        left = dict(zip(first, is_new.tolist(), strict=True))
        return np.array([left.pop(uri, False) for uri in uris])

    def _has(self, keys: np.ndarray, checks: np.ndarray) -> np.ndarray:
        found = np.zeros(len(keys), bool)
        for run_keys, run_checks in self._runs:
            at = np.minimum(np.searchsorted(run_keys, keys), len(run_keys) - 1)
            found |= (run_keys[at] == keys) & (run_checks[at] == checks)
        return found

    def _keep(self, keys: np.ndarray, checks: np.ndarray) -> None:
        while self._runs and len(self._runs[-1][0]) < _GROWTH * len(keys):
            run_keys, run_checks = self._runs.pop()
            at = np.searchsorted(run_keys, keys)
            keys, checks = np.insert(run_keys, at, keys), np.insert(run_checks, at, checks)
        if len(keys):
            self._runs.append((keys, checks))
