"""Images that are nearly the same: recompressed, resized, a little brighter. Above all those in more than one split.

An image's fingerprint is a difference hash (dHash): of a tiny gray thumbnail, for each pair of neighbours whether the
second is brighter; 64 bits along the rows, 64 along the columns. Two images are near duplicates where each hash differs
in at most `max_distance` bits. Of 132 photographs, JPEG of quality 30, halving and darkening by a fifth changed at most 5
bits; any two different ones differed in 15 and more. Cropping, turning and mirroring are not seen through.

Search: cut into max_distance + 2 bands, two hashes that near agree in at least two bands. So for each pair of bands the
images are sorted by these bits, and only those that share them are compared (after Manku, Jain and Das Sarma, "Detecting
Near-Duplicates for Web Crawling", WWW 2007).

N images, H W image pixels.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from PIL import Image

MAX_DISTANCE = 5
_MIN_CONTRAST = 8  # gray levels within the thumbnail; what is flatter has no features that could be compared
_FINE = 72  # side of the thumbnail from which both tiny ones are averaged
_MAX_STEPS = 2000  # among images that share bits, each is compared with so many that follow it in the order of hashes


class Fingerprint(NamedTuple):
    """64 bits along the rows and 64 along the columns of an image."""

    rows: int
    columns: int


def fingerprint(pixels: np.ndarray) -> Fingerprint | None:
    """The fingerprint of an upright image (H, W, 3) uint8; None for one that is all of one colour, or nearly."""
    fine = np.asarray(Image.fromarray(pixels).resize((_FINE, _FINE), Image.Resampling.BOX), np.float64).mean(axis=2)
    # 8 rows of 9; not rounded, as neighbours that become equal tell nothing
    wide = fine.reshape(8, 9, 9, 8).mean(axis=(1, 3))
    tall = fine.reshape(9, 8, 8, 9).mean(axis=(1, 3))  # 9 rows of 8
    if np.ptp(wide) < _MIN_CONTRAST:
        return None
    return Fingerprint(_bits(wide[:, 1:] > wide[:, :-1]), _bits(tall[1:] > tall[:-1]))


def near_duplicates(fingerprints: np.ndarray, max_distance: int = MAX_DISTANCE) -> list[np.ndarray]:
    """Groups of near duplicates among fingerprints (N, 2) uint64, as ascending indices, by their first.

    Whoever is near to any of a group belongs to it; only groups of two and more are returned. Of more than 2000 images
    that all share 18 of their bits without being near duplicates, some pairs may be missed.
    Raises `ValueError` unless max_distance is 0 to 20.
    """
    if not 0 <= max_distance <= 20:
        raise ValueError(f"max_distance must be 0 to 20 bits, found {max_distance}")
    prints = np.asarray(fingerprints, np.uint64).reshape(-1, 2)
    distinct, inverse = np.unique(prints, axis=0, return_inverse=True)
    roots = np.arange(len(distinct))
    for shared in _band_pairs(max_distance + 2):
        roots = _joined(distinct, distinct[:, 0] & shared, roots, max_distance)
    return _groups(roots[inverse.reshape(-1)])


def distance(one: Fingerprint, other: Fingerprint) -> int:
    """By how many bits the rows or the columns differ, whichever is more."""
    return max((one.rows ^ other.rows).bit_count(), (one.columns ^ other.columns).bit_count())


def _bits(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _band_pairs(bands: int) -> list[np.uint64]:
    """For each pair of bands the bits of both."""
    edges = [64 * band // bands for band in range(bands + 1)]
    masks = [((1 << edges[band + 1]) - 1) ^ ((1 << edges[band]) - 1) for band in range(bands)]
    return [np.uint64(one | other) for one, other in combinations(masks, 2)]


def _joined(prints: np.ndarray, keys: np.ndarray, roots: np.ndarray, max_distance: int) -> np.ndarray:
    """`roots` (N,) of groups, after joining those with near images of one key."""
    order = np.lexsort((prints[:, 0], keys))
    sorted_keys, sorted_prints = keys[order], prints[order]
    here = np.flatnonzero(sorted_keys[1:] == sorted_keys[:-1])
    for step in range(1, _MAX_STEPS + 1):
        if not len(here):
            break
        apart = np.bitwise_count(sorted_prints[here] ^ sorted_prints[here + step]).max(axis=1)
        near = here[apart <= max_distance]
        if len(near):
            roots = _united(roots, order[near], order[near + step])
        if step & (step - 1) == 0:
            here = _unfinished(here, sorted_keys, roots[order])
        here = here[here + step + 1 < len(order)]
        here = here[sorted_keys[here] == sorted_keys[here + step + 1]]
    return roots


def _unfinished(here: np.ndarray, sorted_keys: np.ndarray, sorted_roots: np.ndarray) -> np.ndarray:
    """Of the positions `here`, those whose images of one key are not all in one group yet."""
    starts = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]))
    same = np.minimum.reduceat(sorted_roots, starts) == np.maximum.reduceat(sorted_roots, starts)
    return here[~same[np.searchsorted(starts, here, side="right") - 1]]


def _united(roots: np.ndarray, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Roots after each of `ones` has joined its one of `others`; a group's root is its smallest index."""
    roots = roots.copy()
    while True:
        a, b = roots[ones], roots[others]
        if np.array_equal(a, b):
            return roots
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]


def _groups(roots: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(roots, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))
