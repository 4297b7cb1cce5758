"""The records of an evaluation as two Parquet tables, for a later comparison and for anyone with a query.

    detections.parquet  image, class, score, place; by measure what it found at each IoU threshold; its kind of error
    truths.parquet      image, class, area, crowd; by measure whether it counts

Bits: bit t of `segm_matched` says whether the detection hits a truth at the t-th IoU threshold (.50, .55 ... .95), of
`segm_ignored` whether it counts as neither right nor wrong there. The images stand in the order in which the COCO API goes
through them; the classes, and every image's name, in the tables' metadata.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayseg import storage
from rayseg.errors import StorageError, UsageError
from rayseg.evaluation.metrics import Metrics
from rayseg.evaluation.numbers import MEASURES, SIZES, Measure
from rayseg.evaluation.ranked import Ranked
from rayseg.kernels.matching import BACKGROUND, BOTH, CLASS, DUPLICATE, IGNORED, PLACE, TRUE

DETECTIONS, TRUTHS = "detections.parquet", "truths.parquet"
_KIND_NAMES = {
    TRUE: "right",
    CLASS: "class",
    PLACE: "localisation",
    BOTH: "both",
    DUPLICATE: "duplicate",
    BACKGROUND: "background",
    IGNORED: "ignored",
}
_VERSION = 1


def match_tables(metrics: Metrics) -> dict[str, bytes]:
    """The two files of an evaluation, by name."""
    records, order = metrics.records, metrics.order
    assert records is not None and order is not None, "only what evaluate() returns has records"
    detections, truths = records.detections, records.truths
    kinds = [_KIND_NAMES[code] for code in range(len(_KIND_NAMES))]
    columns: dict[str, Any] = {
        "image": pa.DictionaryArray.from_arrays(pa.array(detections.images), pa.array(list(metrics.image_names))),
        "class": pa.DictionaryArray.from_arrays(pa.array(detections.classes), pa.array(metrics.class_names)),
        "score": detections.scores,
        "place": detections.places,
        "error": pa.DictionaryArray.from_arrays(pa.array(detections.kinds.astype(np.int32)), pa.array(kinds)),
    }
    truth_columns: dict[str, Any] = {
        "image": pa.DictionaryArray.from_arrays(pa.array(truths.images), pa.array(list(metrics.image_names))),
        "class": pa.DictionaryArray.from_arrays(pa.array(truths.classes), pa.array(metrics.class_names)),
        "area": truths.areas,
        "crowd": truths.crowd,
    }
    for measure, found in records.found.items():
        columns[f"{measure}_matched"] = found.matched[:, 0]
        columns[f"{measure}_ignored"] = found.ignored[:, 0]
        columns[f"{measure}_iou"] = pa.array(found.ious, from_pandas=True)
        truth_columns[f"{measure}_counts"] = ~found.hidden[:, 0]
    metadata = {
        "rayseg.evaluation": str(_VERSION),
        "rayseg.classes": json.dumps(metrics.class_names),
        "rayseg.images": json.dumps([metrics.image_names[rank] for rank in np.argsort(order)]),
        "rayseg.primary": metrics.primary,
    }
    return {DETECTIONS: _file(columns, metadata), TRUTHS: _file(truth_columns, metadata)}


def _file(columns: dict[str, Any], metadata: dict[str, str]) -> bytes:
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


class Matches:
    """The records of one evaluation as far as a comparison needs them."""

    def __init__(
        self, name: str, classes: list[str], images: list[str], primary: Measure, ranks: dict[Measure, Ranked]
    ) -> None:
        self.name, self.classes, self.images, self.primary, self.ranks = name, classes, images, primary, ranks


def read_matches(folder: str) -> Matches:
    """The records in an evaluation's output folder. Raises `UsageError` where it holds none."""
    detections, truths = _table(folder, DETECTIONS), _table(folder, TRUTHS)
    try:
        metadata = {key.decode(): value.decode() for key, value in (detections.schema.metadata or {}).items()}
        classes, images = json.loads(metadata["rayseg.classes"]), json.loads(metadata["rayseg.images"])
        image_rows, class_rows = ({name: i for i, name in enumerate(names)} for names in (images, classes))
        measures = [name for name in MEASURES if f"{name}_matched" in detections.column_names]
        primary = next(name for name in MEASURES if name == metadata["rayseg.primary"])
        plain = _columns(detections, image_rows, class_rows), _columns(truths, image_rows, class_rows)
        ranks = {name: _ranked(name, detections, truths, plain, len(classes)) for name in measures}
    except (KeyError, ValueError, TypeError, StopIteration, pa.ArrowException) as error:
        raise UsageError(f"{folder}: its {DETECTIONS} and {TRUTHS} are not those of an evaluation: {error!r}") from None
    return Matches(folder, classes, images, primary, ranks)


def matches_of(name: str, metrics: Metrics) -> Matches:
    """The same of an evaluation in memory."""
    from rayseg.evaluation.ranked import ranked

    records, order = metrics.records, metrics.order
    assert records is not None and order is not None, "only what evaluate() returns has records"
    images = [str(metrics.image_names[rank]) for rank in np.argsort(order).tolist()]
    ranks = {}
    for measure in records.found:
        one = ranked(records, measure, len(metrics.classes), order)
        ranks[measure] = Ranked(
            one.rows, one.class_starts, order[one.images].astype(np.int32), one.places, one.matched, one.ignored,
            order[one.truth_images].astype(np.int32), one.truth_classes, one.hidden,
        )  # fmt: skip
    return Matches(name, list(metrics.class_names), images, metrics.primary, ranks)


def _table(folder: str, name: str) -> pa.Table:
    uri = storage.join(folder, name)
    try:
        return pq.read_table(pa.BufferReader(storage.read(uri)))
    except (StorageError, pa.ArrowException) as error:
        raise UsageError(
            f"{folder}: expected the output of rayseg eval, found no {name} that can be read in it: {error}"
        ) from None


def _columns(table: pa.Table, images: dict[str, int], classes: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the images and classes of a table's rows, (N,) int32 each."""
    return _places(table["image"], images), _places(table["class"], classes)


def _places(column: pa.ChunkedArray, known: dict[str, int]) -> np.ndarray:
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    words = np.array([known[word] for word in encoded.dictionary.to_pylist()], np.int32)
    return words[encoded.indices.to_numpy()] if len(words) else np.empty(0, np.int32)


def _ranked(
    measure: Measure,
    detections: pa.Table,
    truths: pa.Table,
    plain: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    classes: int,
) -> Ranked:
    (images, labels), (truth_images, truth_labels) = plain
    places, scores = detections["place"].to_numpy(), detections["score"].to_numpy()
    rows = np.lexsort((places, images, -scores, labels))
    matched, ignored = np.zeros((2, len(rows), len(SIZES)), np.uint16)
    matched[:, 0] = detections[f"{measure}_matched"].to_numpy()[rows]
    ignored[:, 0] = detections[f"{measure}_ignored"].to_numpy()[rows]
    hidden = np.ones((len(truth_images), len(SIZES)), bool)
    hidden[:, 0] = ~truths[f"{measure}_counts"].to_numpy(zero_copy_only=False)
    starts = np.searchsorted(labels[rows], np.arange(classes + 1)).astype(np.int64)
    return Ranked(rows, starts, images[rows], places[rows], matched, ignored, truth_images, truth_labels, hidden)
