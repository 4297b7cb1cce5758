"""`Rles`: N COCO RLE masks of one image in one contiguous buffer.

The bytes are exactly those of pycocotools' compressed `counts`, one mask after the other, so Arrow takes them as a
string column without a copy and a file gets them without another encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rayseg.kernels import rle_codec


class RleCheck(NamedTuple):
    """What `check_rle` found: `reason` is None for a valid RLE, else says what is wrong (area and box are then 0)."""

    reason: str | None
    area: int
    box_xywh: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Rles:
    """N masks of one image.

    counts    (total bytes,) uint8, the compressed counts of all masks, one after the other
    offsets   (N + 1,) int64, mask i is `counts[offsets[i]:offsets[i + 1]]`
    image_hw  (H, W) of the image in pixels
    """

    counts: np.ndarray
    offsets: np.ndarray
    image_hw: tuple[int, int]

    @classmethod
    def empty(cls, image_hw: tuple[int, int]) -> Rles:
        """No masks, for an image of `image_hw`."""
        return cls(np.empty(0, np.uint8), np.zeros(1, np.int64), checked_hw(image_hw))

    @classmethod
    def from_runs(cls, runs: np.ndarray, run_offsets: np.ndarray, image_hw: tuple[int, int]) -> Rles:
        """Compress run lengths: `runs` int64 of all masks, `run_offsets` (N + 1) int64. Runs are taken as they are."""
        counts, offsets = rle_codec.compress_runs(
            np.ascontiguousarray(runs, np.int64), np.ascontiguousarray(run_offsets, np.int64)
        )
        return cls(counts, offsets, checked_hw(image_hw))

    @classmethod
    def from_coco(cls, rles: Sequence[dict[str, Any]], image_hw: tuple[int, int] | None = None) -> Rles:
        """Take pycocotools' form: `{"size": [H, W], "counts": bytes | str | list of run lengths}`.

        All masks must be of one size, `image_hw` where given (needed for an empty list).
        Raises ValueError where sizes differ, or nothing tells the size. Counts are not checked: see `check`.
        """
        if image_hw is None and not rles:
            raise ValueError("image_hw is needed for an empty list of RLEs")
        hw = checked_hw(rles[0]["size"] if image_hw is None else image_hw)
        pieces = []
        for i, rle in enumerate(rles):
            if tuple(rle["size"]) != hw:
                raise ValueError(f"RLE {i} has size {list(rle['size'])}, expected {list(hw)}: one record is one image")
            pieces.append(_counts_bytes(rle["counts"]))
        return cls.from_strings(pieces, hw)

    @classmethod
    def from_strings(cls, strings: Iterable[bytes | str], image_hw: tuple[int, int]) -> Rles:
        """Take compressed counts, one string per mask. They are not checked: see `check`."""
        pieces = [s.encode("ascii") if isinstance(s, str) else bytes(s) for s in strings]
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        return cls(np.frombuffer(b"".join(pieces), np.uint8), offsets, checked_hw(image_hw))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __eq__(self, other: object) -> bool:
        """Same image size and the same bytes, mask by mask."""
        if not isinstance(other, Rles):
            return NotImplemented
        return self.image_hw == other.image_hw and self.strings() == other.strings()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rles({len(self)} masks of {self.image_hw[0]} x {self.image_hw[1]} pixels, {self.size_bytes} bytes)"

    @property
    def size_bytes(self) -> int:
        """Length of all compressed counts together."""
        return int(self.offsets[-1] - self.offsets[0])

    def strings(self) -> list[bytes]:
        """The compressed counts, one bytes object per mask."""
        data, places = self.counts.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(places)]

    def arrow_buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (N + 1,) int32 and bytes uint8, as `pyarrow.StringArray.from_buffers` takes them; bytes not copied.

        Raises ValueError above 2 GiB of counts, where Arrow needs `large_string` and `offsets` itself.
        """
        if self.offsets[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"{self.offsets[-1]} bytes of counts do not fit 32-bit offsets; use large_string")
        return self.offsets.astype(np.int32), self.counts

    def to_coco(self) -> list[dict[str, Any]]:
        """pycocotools' form: one `{"size": [H, W], "counts": bytes}` per mask."""
        return [{"size": list(self.image_hw), "counts": counts} for counts in self.strings()]

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Run lengths of all masks (int64, zeros first) and their offsets (N + 1,) int64."""
        return rle_codec.decompress_counts(self.counts, self.offsets)

    def areas(self) -> np.ndarray:
        """Pixels of each mask, (N,) int64."""
        return rle_codec.runs_areas(*self.runs())

    def boxes_xywh(self) -> np.ndarray:
        """Tight boxes (N, 4) float64 as x, y, width, height in pixels, zeros for an empty mask: pycocotools' toBbox."""
        return rle_codec.runs_boxes(*self.runs(), max(self.image_hw[0], 1)).astype(np.float64)

    def decode(self, i: int) -> np.ndarray:
        """Mask `i` as (H, W) uint8 of 0 and 1. Raises IndexError for an unknown one, ValueError for a broken one."""
        mask = self.select([range(len(self))[i]])
        if (reason := mask.check()[0]) is not None:
            raise ValueError(f"RLE {i} of {self.image_hw[0]} x {self.image_hw[1]} pixels {reason}")
        flat = np.zeros(self.image_hw[0] * self.image_hw[1], np.uint8)
        rle_codec.fill_runs(mask.runs()[0], flat)
        return flat.reshape(self.image_hw[::-1]).T

    def select(self, indices: Any) -> Rles:
        """The masks at `indices` (ints, or one bool per mask), in that order."""
        chosen = np.arange(len(self))[np.asarray(indices) if len(indices) else np.empty(0, np.int64)]
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        source = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Rles(self.counts[source], offsets, self.image_hw)

    def check(self) -> list[str | None]:
        """For each mask None, or what is wrong with it: bad bytes, negative or empty runs, runs that miss H * W."""
        codes, _, _ = rle_codec.inspect_counts(self.counts, self.offsets, *self.image_hw)
        return [rle_codec.REASONS[code] or None for code in codes.tolist()]


def check_rle(counts: bytes | str, image_hw: tuple[int, int]) -> RleCheck:
    """Validate one compressed RLE against an image size: decodable, canonical, runs that sum to exactly H * W."""
    data = counts.encode("utf-8") if isinstance(counts, str) else bytes(counts)
    height, width = checked_hw(image_hw)
    codes, areas, boxes = rle_codec.inspect_counts(
        np.frombuffer(data, np.uint8), np.array([0, len(data)], np.int64), height, width
    )
    x, y, w, h = boxes[0].tolist()
    return RleCheck(rle_codec.REASONS[int(codes[0])] or None, int(areas[0]), (x, y, w, h))


def checked_hw(image_hw: Sequence[int]) -> tuple[int, int]:
    """`image_hw` as two ints. Raises ValueError unless both are whole and not negative."""
    if len(image_hw) != 2 or any(int(side) != side or side < 0 for side in image_hw):
        raise ValueError(f"image_hw must be two whole numbers (H, W) >= 0, found {tuple(image_hw)}")
    return int(image_hw[0]), int(image_hw[1])


def _counts_bytes(counts: bytes | str | Sequence[int]) -> bytes:
    """Compressed counts from any of COCO's three forms."""
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str):
        return counts.encode("ascii")
    runs = np.asarray(counts, np.int64)
    return rle_codec.compress_runs(runs, np.array([0, len(runs)], np.int64))[0].tobytes()
