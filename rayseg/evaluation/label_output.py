"""Predictions that a label run wrote: Parquet, one row per image, read part by part, column by column.

Only a complete output is read, and of it only the parts that its manifest names. Where one of its URIs is exactly that of an
image of the ground truth, URIs are what is compared; else paths and file names are (`names`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from rayseg import storage
from rayseg.errors import JobError, ObjectNotFound
from rayseg.evaluation.columns import Columns
from rayseg.evaluation.predictions import Predictions, Spooled
from rayseg.evaluation.truth import Truth
from rayseg.formats.faults import Faults
from rayseg.formats.parts import read_part


def read_label_output(out: str, truth: Truth, faults: Faults, notes: Faults) -> Predictions:
    """All rows of the label output `out`. Raises `JobError` where it is not complete, `StorageError` for what is broken."""
    manifest = _manifest(out)
    return _Reader(out, manifest, truth, faults, notes).go()


def _manifest(out: str) -> dict[str, Any]:
    try:
        manifest = json.loads(storage.read(storage.join(out, "manifest.json")))
        if isinstance(manifest, dict) and all(isinstance(part["name"], str) for part in manifest["parts"]):
            return manifest
    except ObjectNotFound:
        raise JobError(
            f"{out}: expected a complete label output, found no manifest.json in it: run its label command again"
        ) from None
    except (ValueError, KeyError, TypeError):
        pass
    raise JobError(f"{out}: its manifest.json is not that of a label run")


class _Reader:
    def __init__(self, out: str, manifest: dict[str, Any], truth: Truth, faults: Faults, notes: Faults) -> None:
        self._uris = [storage.join(out, "data", part["name"]) for part in manifest["parts"]]
        self._truth, self._faults, self._notes = truth, faults, notes
        self._predictions = Spooled(out)
        self._counts = self._predictions.counts
        names = manifest.get("model", {}).get("class_names")
        self._counts.class_names = tuple(names) if isinstance(names, list) else None
        self._seen = np.zeros(len(truth.images), bool)
        self._by_uri = {uri: rank for rank, uri in enumerate(truth.images.uris) if uri is not None}
        self._exact = False

    def go(self) -> Predictions:
        self._exact = any(uri in self._by_uri for table in self._tables() for uri in table["uri"].to_pylist())
        for table in self._tables():
            self._add(table)
        self._counts.images_without_row = int((~self._seen).sum())
        return self._predictions

    def _tables(self) -> Iterator[pa.Table]:
        for uri in self._uris:
            yield read_part(uri)

    def _add(self, table: pa.Table) -> None:
        """The rows of one part."""
        instances = table["instances"].combine_chunks()
        if isinstance(instances, pa.ChunkedArray):
            instances = pa.concat_arrays(instances.chunks)
        lengths = np.diff(instances.offsets.to_numpy())
        self._counts.predictions += int(lengths.sum())
        self._counts.failed_images += int(table["error"].is_valid().to_numpy().sum())
        ranks = self._ranks(table, lengths)
        rows = np.repeat(ranks, lengths)
        flat: pa.StructArray = instances.flatten()
        classes = self._classes(flat.field("category"), rows >= 0)
        kept = np.flatnonzero((rows >= 0) & (classes >= 0))
        self._counts.taken += len(kept)
        ordinals = np.repeat(table["ordinal"].to_numpy(), lengths)
        self._predictions.spool.add(self._columns(flat, rows, classes, ordinals, kept))

    def _ranks(self, table: pa.Table, lengths: np.ndarray) -> np.ndarray:
        """Each row's image by its rank in the ground truth, -1 for none: (R,) int64."""
        ranks = np.full(len(table), -1, np.int64)
        heights, widths = (table[side].fill_null(0).to_numpy() for side in ("height", "width"))
        for row, uri in enumerate(table["uri"].to_pylist()):
            rank = self._by_uri.get(uri, -1) if self._exact else self._truth.images.of_path(uri)
            if rank < 0:
                self._counts.other_images += int(lengths[row])
                self._notes.add(self._predictions.source, "image", uri, "is not in the ground truth")
            elif self._seen[rank]:
                name = self._truth.images.names[rank]
                self._faults.add(self._predictions.source, "image", uri, f"image {name} has a row already")
            else:
                self._seen[rank] = True
                if self._fits(rank, int(heights[row]), int(widths[row]), uri):
                    ranks[row] = rank
        return ranks

    def _fits(self, rank: int, height: int, width: int, uri: str) -> bool:
        """Whether the image that was labelled has the size that the ground truth says; where that says none, it is this."""
        known = self._truth.image_hws[rank]
        if not height:
            return True  # it failed: it has no instances
        if not known.any():
            self._truth.image_hws[rank] = height, width
        elif tuple(known.tolist()) != (height, width):
            message = (
                f"expected a size of {known.tolist()} (height, width) as in the ground truth, found {[height, width]}"
            )
            self._faults.add(self._predictions.source, "image size", uri, message)
            return False
        return True

    def _classes(self, names: pa.Array, wanted: np.ndarray) -> np.ndarray:
        """Classes by name, -1 for those that the ground truth lacks: (N,) int32. `wanted` are counted where they miss."""
        encoded = names.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        found = np.array(
            [self._truth.classes.find(word) if word is not None else -1 for word in words] + [-1], np.int32
        )
        codes = encoded.indices.fill_null(len(words)).to_numpy()
        for code, count in enumerate(np.bincount(codes[wanted], minlength=len(words) + 1).tolist()):
            if count and found[code] < 0:
                self._counts.miss_class(str(words[code]) if code < len(words) else "no name", count)
        return found[codes]

    def _columns(
        self, flat: pa.StructArray, rows: np.ndarray, classes: np.ndarray, ordinals: np.ndarray, kept: np.ndarray
    ) -> Columns:
        scores = flat.field("score").fill_null(float("nan")).to_numpy().astype(np.float64)
        finite = np.isfinite(scores[kept])
        for row in kept[~finite].tolist():
            message = f"expected a finite score, found {scores[row]}"
            self._faults.add(self._predictions.source, "score", f"ordinal {ordinals[row]}", message)
        kept = kept[finite]
        boxes = flat.field("bbox").flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 4)
        rles = flat.field("rle").fill_null("").cast(pa.large_string())
        _, offsets, data = rles.buffers()
        ends = np.frombuffer(offsets, np.int64)[rles.offset : rles.offset + len(rles) + 1]
        everything = Columns(
            images=rows,
            classes=classes,
            boxes_xywh=boxes,
            lengths=np.diff(ends),
            counts=np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.empty(0, np.uint8),
            areas=np.full(len(rows), np.nan),
            scores=scores,
            flags=np.zeros(len(rows), np.uint8),
            items=ordinals,
        )
        return everything.take(kept)
